"""What is left of budgets, for their owners and for administrators."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
from pytest_django import DjangoAssertNumQueries

from apps.audit.models import AdminEvent
from apps.billing.budgets import NO_BUDGETS, BudgetUse, budget_of_group, budget_of_user, list_uses
from apps.billing.models import SpendCounter
from apps.billing.periods import bounds_of, day_of, month_of
from apps.users.models import Role, User, UserGroup
from tests.support.people import make_admin, make_user, rest_client

DOLLAR: Final = 1_000_000_000
NOW: Final = datetime(2026, 11, 29, 21, 30, tzinfo=UTC)
TODAY: Final = (datetime(2026, 11, 29, tzinfo=UTC), datetime(2026, 11, 30, tzinfo=UTC))
THIS_MONTH: Final = (datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC))
pytestmark = pytest.mark.usefixtures("db")


def count(scope: str, row_id: int, spent: int, held: int = 0) -> None:
    """Write a counter."""
    SpendCounter.objects.create(scope=scope, scope_id=row_id, spent_nanos=spent, held_nanos=held)


def test_each_has_what_is_counted_in_the_periods_that_run(
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    ada = make_user(daily_budget_nanos=10, monthly_budget_nanos=100)
    bob = make_user(monthly_budget_nanos=50)
    count("user:2026-11-29", ada.pk, 3, 2)
    count("user:2026-11", ada.pk, 30, 2)
    count("user:2026-11", bob.pk, 70)
    for scope in ("user", "user:2026-11-28", "user:2026-10", "user_group:2026-11-29"):
        count(scope, ada.pk, 1_000)
    count("user:2026-11-29", bob.pk, 1_000)  # While he had a budget of the day.
    budgets = [budget for row in (ada, bob) if (budget := budget_of_user(row)) is not None]

    with django_assert_num_queries(1):
        uses = list_uses(budgets, now=NOW)

    assert uses[ada.pk] == (BudgetUse(10, 3, 2, *TODAY), BudgetUse(100, 30, 2, *THIS_MONTH))
    assert uses[bob.pk] == (None, BudgetUse(50, 70, 0, *THIS_MONTH))
    assert [use.left_nanos for use in (*uses[ada.pk], uses[bob.pk].month) if use] == [5, 68, 0]


def test_without_budgets_nothing_is_asked(
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    user, group = make_user(), UserGroup.objects.create(name="staff")

    with django_assert_num_queries(0):
        assert (budget_of_user(user), budget_of_group(group)) == (None, None)
        assert list_uses([], now=NOW) == {}
    assert NO_BUDGETS == (None, None)


def shown_of(period: str, budget: str, spent: str, left: str) -> dict[str, Any]:
    """Return a budget as REST shows it."""
    begins_at, resets_at = (f"{at:%Y-%m-%dT%H:%M:%S}Z" for at in bounds_of(period))
    return {
        "budget": budget,
        "spent": spent,
        "held": "0",
        "left": left,
        "begins_at": begins_at,
        "resets_at": resets_at,
    }


def test_owner_and_administrators_see_what_is_left_and_viewers_do_not() -> None:
    group = UserGroup.objects.create(name="staff", monthly_budget_nanos=5 * DOLLAR)
    ada = make_user(user_group=group, daily_budget_nanos=2 * DOLLAR)
    now = datetime.now(UTC)
    count(f"user:{day_of(now)}", ada.pk, DOLLAR // 2)
    count(f"user:{day_of(now - timedelta(days=1))}", ada.pk, 9 * DOLLAR)
    count(f"user_group:{month_of(now)}", group.pk, DOLLAR)
    own = {"day": shown_of(day_of(now), "2", "0.5", "1.5"), "month": None}
    of_group = {"day": None, "month": shown_of(month_of(now), "5", "1", "4")}
    path = f"/api/admin/users/{ada.pk}/"
    group_path = f"/api/admin/user-groups/{group.pk}/"

    mine = rest_client(ada).get("/api/user/profile/").json()

    assert mine["budgets"] == own
    assert (mine["limits"]["daily_budget"], mine["limits"]["monthly_budget"]) == ("2", None)
    for role in (Role.ADMIN, Role.ANALYST):
        client = rest_client(make_user(role=role))
        user = client.get(path).json()
        assert (user["daily_budget"], user["monthly_budget"], user["budgets"]) == ("2", None, own)
        assert client.get("/api/admin/users/?search=" + ada.username).json()["results"] == [user]
        assert client.get(f"{group_path}budgets/").json() == of_group
        assert client.get(group_path).json()["monthly_budget"] == "5"
    viewer = rest_client(make_user(role=Role.VIEWER))
    hidden = viewer.get(path).json()
    assert (hidden["daily_budget"], hidden["monthly_budget"], hidden["budgets"]) == (None,) * 3
    assert viewer.get(group_path).json()["monthly_budget"] is None
    assert viewer.get(f"{group_path}budgets/").status_code == 403
    assert rest_client(ada).get(f"{group_path}budgets/").status_code == 403


def test_budgets_are_set_on_record_and_never_by_oneself() -> None:
    root, ada = make_admin(username="root"), make_user()
    client = rest_client(root)

    changed = client.patch(
        f"/api/admin/users/{ada.pk}/", {"daily_budget": "2.5", "monthly_budget": "0"}
    )
    wrong = client.patch(f"/api/admin/users/{ada.pk}/", {"daily_budget": "-1"})
    own = [
        client.patch(f"/api/admin/users/{root.pk}/", {name: "1000"})
        for name in ("daily_budget", "monthly_budget")
    ]

    assert (changed.json()["daily_budget"], changed.json()["monthly_budget"]) == ("2.5", "0")
    assert changed.json()["budgets"]["month"]["left"] == "0"
    assert wrong.json() == {"daily_budget": ["An amount must not be negative."]}
    assert [(answer.status_code, answer.json()["code"]) for answer in own] == [
        (403, "own_account")
    ] * 2
    event = AdminEvent.objects.get(action="user.changed")
    assert (event.object_id, event.before, event.after) == (
        str(ada.pk),
        {"daily_budget_nanos": None, "monthly_budget_nanos": None},
        {"daily_budget_nanos": 2_500_000_000, "monthly_budget_nanos": 0},
    )
    assert User.objects.get(pk=root.pk).daily_budget_nanos is None
