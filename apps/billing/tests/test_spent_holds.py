"""A hold that spends another: what was reserved goes over to it, whole and once."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from threading import Barrier

from apps.audit.models import APIRequest
from apps.billing.flushing import Flusher
from apps.billing.ledger.commands import Held, HoldRefused, PlaceHold, Resolve
from apps.billing.ledger.store import Engine, flush
from apps.billing.models import Account, Hold
from tests.support.soundness import is_sound
from tests.support.world import UNIT, Gateway, make_quota

Connect = Callable[[], Engine]


def hold(gateway: Gateway, units: int, *, quotas: tuple[int, ...] = ()) -> Held:
    answer = gateway.hold(units * UNIT, quotas=quotas)
    assert isinstance(answer, Held)
    return answer


def spend(gateway: Gateway, quoted: Held, units: int) -> PlaceHold:
    return gateway.placement(units * UNIT)._replace(spends=gateway.resolution(quoted, 0))


def place(
    gateway: Gateway, *holds: PlaceHold, resolves: tuple[Resolve, ...] = ()
) -> list[Held | HoldRefused]:
    batch = gateway.batch(resolves=resolves, holds=holds)
    ended, placed = flush(gateway.engine, batch, incarnation_id=gateway.incarnation_id)
    assert len(ended) == len(resolves)
    return placed


def wallet(gateway: Gateway) -> tuple[int, int]:
    account = Account.objects.get(pk=gateway.world.wallet_id)
    return account.posted_nanos // UNIT, account.held_nanos // UNIT


def test_what_was_reserved_is_there_for_the_hold_that_spends_it(gateway: Gateway) -> None:
    quoted = hold(gateway, 60)
    hold(gateway, 30)

    (answer,) = place(gateway, spend(gateway, quoted, 70))

    assert isinstance(answer, Held)
    assert wallet(gateway) == (100, 100)
    assert set(Hold.objects.values_list("amount_nanos", flat=True)) == {70 * UNIT, 30 * UNIT}
    row = APIRequest.objects.get()
    assert (row.id, row.state, row.charge_nanos) == (quoted.request_id, "voided", 0)
    assert is_sound()


def test_control_without_it_the_money_is_not_there(gateway: Gateway) -> None:
    hold(gateway, 60)
    hold(gateway, 30)

    assert gateway.hold(70 * UNIT) == HoldRefused("balance")


def test_nobody_who_asks_in_the_same_batch_gets_in_between(gateway: Gateway) -> None:
    quoted = hold(gateway, 100)

    mine, other = place(gateway, spend(gateway, quoted, 100), gateway.placement(UNIT))

    assert isinstance(mine, Held)
    assert other == HoldRefused("balance")


def test_nobody_who_asked_before_in_the_same_batch_gets_in_between(gateway: Gateway) -> None:
    quoted = hold(gateway, 100)

    other, mine = place(gateway, gateway.placement(UNIT), spend(gateway, quoted, 100))

    assert other == HoldRefused("balance")
    assert isinstance(mine, Held)
    assert wallet(gateway) == (100, 100)
    assert is_sound()


def test_of_two_that_spend_in_one_batch_neither_gets_what_the_other_had(gateway: Gateway) -> None:
    first, second = hold(gateway, 40), hold(gateway, 60)

    greedy, modest = place(gateway, spend(gateway, first, 50), spend(gateway, second, 60))

    assert greedy == HoldRefused("balance")
    assert isinstance(modest, Held)
    assert is_sound()


def test_a_hold_is_spent_once(gateway: Gateway) -> None:
    quoted = hold(gateway, 40)

    first, second = place(gateway, spend(gateway, quoted, 40), spend(gateway, quoted, 40))
    (third,) = place(gateway, spend(gateway, quoted, 40))

    assert isinstance(first, Held)
    assert (second, third) == (HoldRefused("spent"), HoldRefused("spent"))
    assert wallet(gateway) == (100, 40)
    assert APIRequest.objects.count() == 1
    assert is_sound()


def test_a_hold_that_has_lapsed_is_not_spent(gateway: Gateway) -> None:
    quoted = hold(gateway, 40)

    (answer,) = place(
        gateway, spend(gateway, quoted, 40), resolves=(gateway.resolution(quoted, 0),)
    )

    assert answer == HoldRefused("spent")
    assert wallet(gateway) == (100, 0)
    assert Hold.objects.count() == 0


def test_a_hold_over_quota_and_wallet_gives_back_each_part(gateway: Gateway) -> None:
    quota = make_quota(gateway.world, 25 * UNIT)
    quoted = hold(gateway, 40, quotas=(quota,))

    (answer,) = place(gateway, spend(gateway, quoted, 90))

    assert isinstance(answer, Held)
    assert answer.legs == ((gateway.world.wallet_id, 90 * UNIT),)
    assert Account.objects.get(pk=quota).held_nanos == 0
    assert is_sound()


def test_a_hold_that_another_process_has_placed_can_be_spent(
    gateway: Gateway, ledger_connect: Connect
) -> None:
    quoted = hold(gateway, 40)
    with closing(ledger_connect()) as engine:
        other = Gateway(gateway.world, engine)

        (answer,) = place(other, spend(other, quoted, 40))

    assert isinstance(answer, Held)
    assert Hold.objects.get().incarnation_id == other.incarnation_id


def test_of_sixteen_that_spend_one_hold_at_once_one_does(
    gateway: Gateway, ledger_connect: Connect
) -> None:
    quoted = hold(gateway, 100)
    barrier = Barrier(16)

    def run(_: int) -> object:
        with closing(ledger_connect()) as engine:
            flusher = Flusher(engine)
            flusher.use_lease(gateway.incarnation_id)
            command = spend(gateway, quoted, 100)
            barrier.wait()
            return flusher.flush([], [command])[1][0]

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(run, range(16)))

    assert sum(isinstance(answer, Held) for answer in answers) == 1
    assert answers.count(HoldRefused("spent")) == 15
    assert wallet(gateway) == (100, 100)
    assert is_sound()
