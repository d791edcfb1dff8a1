"""What has been spent of budgets in the periods that run now, as the ledger counts it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from django.db.models import Q

from apps.billing.ledger.commands import Cap, CapScope
from apps.billing.models import SpendCounter
from apps.billing.periods import Budget, bounds_of, is_month, make_budget
from apps.users.models import User, UserGroup


@dataclass(frozen=True, slots=True)
class BudgetUse:
    """One budget in the period that runs now, in nanos."""

    budget_nanos: int
    spent_nanos: int
    held_nanos: int
    begins_at: datetime
    resets_at: datetime

    @property
    def left_nanos(self) -> int:
        """What new calls can hold."""
        return max(0, self.budget_nanos - self.spent_nanos - self.held_nanos)


class BudgetUses(NamedTuple):
    """The budgets of one user or user group; None where there is none."""

    day: BudgetUse | None = None
    month: BudgetUse | None = None


NO_BUDGETS = BudgetUses()


def budget_of_user(user: User) -> Budget | None:
    """Return what a user may spend in his periods, None where he may spend anything."""
    return _budget_of("user", user)


def budget_of_group(group: UserGroup) -> Budget | None:
    """Return what a user group may spend in its periods, None where it may spend anything."""
    return _budget_of("user_group", group)


def _budget_of(scope: CapScope, row: User | UserGroup) -> Budget | None:
    return make_budget(scope, row.pk, row.daily_budget_nanos, row.monthly_budget_nanos)


def find_uses(budget: Budget | None, *, now: datetime) -> BudgetUses:
    """Return what has been spent of one budget."""
    if budget is None:
        return NO_BUDGETS
    return list_uses([budget], now=now)[budget.scope_id]


def list_uses(budgets: Iterable[Budget], *, now: datetime) -> dict[int, BudgetUses]:
    """Return what has been spent of budgets of one kind, by the ids of those who have them.

    One query, and none without budgets.
    """
    caps = [cap for budget in budgets for cap in budget.caps_at(now)]
    ids_by_scope: dict[str, list[int]] = {}
    for cap in caps:
        ids_by_scope.setdefault(cap.key[0], []).append(cap.scope_id)
    wanted = Q()
    for scope, ids in ids_by_scope.items():
        wanted |= Q(scope=scope, scope_id__in=ids)
    rows = SpendCounter.objects.filter(wanted) if caps else SpendCounter.objects.none()
    counted = {
        (scope, scope_id): (spent, held)
        for scope, scope_id, spent, held in rows.values_list(
            "scope", "scope_id", "spent_nanos", "held_nanos"
        )
    }
    found: dict[int, BudgetUses] = {}
    for cap in caps:
        uses = found.get(cap.scope_id, NO_BUDGETS)
        use = _use_of(cap, *counted.get(cap.key, (0, 0)))
        found[cap.scope_id] = (
            uses._replace(month=use) if is_month(cap.period) else uses._replace(day=use)
        )
    return found


def _use_of(cap: Cap, spent_nanos: int, held_nanos: int) -> BudgetUse:
    begins_at, resets_at = bounds_of(cap.period)
    return BudgetUse(cap.cap_nanos, spent_nanos, held_nanos, begins_at, resets_at)
