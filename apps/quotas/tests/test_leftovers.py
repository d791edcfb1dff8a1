"""What an expired quota has left returns to the operator: once, and never what a call holds."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from apps.audit.models import AdminEvent
from apps.billing.ledger.commands import Held
from apps.billing.ledger.store import Engine
from apps.billing.models import Account, Transaction
from apps.model_groups.models import ModelGroup
from apps.quotas import leftovers
from apps.quotas.allowances import (
    QuotaUse,
    change_quota,
    create_quota,
    lock_quotas,
    remaining,
)
from apps.quotas.leftovers import take_back_expired
from apps.quotas.models import UserQuota
from apps.quotas.tasks import end_expired
from apps.users.models import User
from tests.support.people import make_user
from tests.support.races import CROWD, at_once
from tests.support.soundness import is_sound
from tests.support.world import Gateway, make_world

pytestmark = pytest.mark.usefixtures("committed_db")

USD = 10**9


def _expired(user: User | None = None, *, days: int = 1, total: int = 5 * USD) -> UserQuota:
    quota = create_quota(
        user=user or make_user(),
        model_group=ModelGroup.objects.get_or_create(name="group")[0],
        total_nanos=total,
    )
    UserQuota.objects.update(expires_at=datetime.now(UTC) - timedelta(days=days))
    return quota


def _use_of(quota: UserQuota) -> QuotaUse:
    return remaining(UserQuota.objects.select_related("account").get(pk=quota.pk))


def _events() -> list[tuple[str, Any, Any]]:
    rows = AdminEvent.objects.filter(action="quota.expired").order_by("id")
    return [(row.actor_name, row.before, row.after) for row in rows]


def _promotion_nanos() -> int:
    return int(Account.objects.get(kind="promotion").posted_nanos)


def test_what_an_expired_quota_has_left_returns_to_the_operator_once() -> None:
    quota = _expired(days=400)

    counts = [end_expired(), end_expired()]

    assert counts == [1, 0]
    assert _use_of(quota) == QuotaUse(used_nanos=0, held_nanos=0, remaining_nanos=0)
    assert UserQuota.objects.values_list("total_nanos", "is_active").get() == (0, True)
    assert _promotion_nanos() == 0
    assert _events() == [("system", {"total_nanos": 5 * USD}, {"total_nanos": 0})]
    reasons = Transaction.objects.order_by("created_at", "pk").values_list("reason", flat=True)
    assert list(reasons) == ["quota given", "quota expired"]
    assert is_sound()


def test_a_quota_that_runs_keeps_its_money() -> None:
    endless, later = _expired(), _expired()
    UserQuota.objects.filter(pk=endless.pk).update(expires_at=None)
    UserQuota.objects.filter(pk=later.pk).update(
        expires_at=datetime.now(UTC) + timedelta(minutes=5)
    )

    assert end_expired() == 0

    assert [_use_of(quota).remaining_nanos for quota in (endless, later)] == [5 * USD] * 2
    assert _promotion_nanos() == -10 * USD
    assert _events() == []


def test_what_a_call_holds_stays_until_it_has_ended(
    ledger_connect: Callable[[], Engine],
) -> None:
    world = make_world()
    gateway = Gateway(world, ledger_connect())
    quota = _expired(world.user)
    held = gateway.hold(3 * USD, quotas=(quota.account_id,))
    assert isinstance(held, Held)

    first = end_expired()
    during = _use_of(quota)
    gateway.resolve(held, 1_000_000)
    second = end_expired()

    assert (first, second) == (1, 1)
    assert during == QuotaUse(used_nanos=0, held_nanos=3 * USD, remaining_nanos=0)
    assert _use_of(quota) == QuotaUse(used_nanos=USD, held_nanos=0, remaining_nanos=0)
    assert _promotion_nanos() == -USD
    assert [after for _, _, after in _events()] == [{"total_nanos": 3 * USD}, {"total_nanos": USD}]
    assert Account.objects.get(pk=world.wallet_id).posted_nanos == 10 * USD
    assert is_sound()


def test_an_end_that_is_put_off_before_the_lock_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    quota = _expired()

    def lock_late(quota_ids: Any) -> Any:
        later = datetime.now(UTC) + timedelta(days=1)
        change_quota(quota_id=quota.pk, changes={"expires_at": later}, actor=None)
        return lock_quotas(quota_ids)

    monkeypatch.setattr(leftovers, "lock_quotas", lock_late)

    assert end_expired() == 0
    assert _use_of(quota).remaining_nanos == 5 * USD
    assert _events() == []


def test_many_are_taken_back_in_pieces_and_a_later_run_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(leftovers, "PIECE", 2)
    monkeypatch.setattr(leftovers, "EXPIRED_MAX", 5)
    quotas = [_expired() for _ in range(7)]

    count = end_expired()
    left = [_use_of(quota).remaining_nanos // USD for quota in quotas]

    assert (count, left) == (5, [0, 0, 0, 0, 0, 5, 5])
    assert Transaction.objects.filter(reason="quota expired").count() == 3
    assert end_expired() == 2
    assert _promotion_nanos() == 0
    assert is_sound()


def test_eight_runs_and_calls_at_once_take_each_nano_once(
    ledger_connect: Callable[[], Engine],
) -> None:
    world = make_world(100 * USD)
    quotas = [_expired(world.user) for _ in range(4)]
    gateways = [Gateway(world, ledger_connect()) for _ in range(4)]

    def act(number: int) -> int:
        if number % 2:
            return take_back_expired()
        gateway, quota = gateways[number // 2], quotas[number // 2]
        held = gateway.hold(2 * USD, quotas=(quota.account_id,))
        assert isinstance(held, Held)
        gateway.resolve(held, 1_000_000)
        return 0

    at_once(CROWD, act)
    end_expired()

    used = sum(_use_of(quota).used_nanos for quota in quotas)
    assert [_use_of(quota).remaining_nanos for quota in quotas] == [0] * 4
    assert _promotion_nanos() == -used
    assert Account.objects.get(pk=world.wallet_id).posted_nanos == 96 * USD + used
    assert is_sound()
