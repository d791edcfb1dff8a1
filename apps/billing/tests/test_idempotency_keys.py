"""Idempotency keys in the ledger: taken with a hold and ended with it, by whoever ends it.

Over 400 lines because each way in which a hold ends is tried with and without a key.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import orjson
import pytest
from django.db import IntegrityError

from apps.audit.models import APIRequest, CallKey
from apps.billing import reaper
from apps.billing.flushing import Flusher, Quarantined
from apps.billing.journal import Journal
from apps.billing.ledger.commands import (
    Claim,
    ClaimEnd,
    Held,
    HoldRefused,
    KeyState,
    PlaceHold,
    RepeatAnswer,
    Resolve,
    Resolved,
)
from apps.billing.ledger.store import Engine, flush
from apps.billing.models import Account, Entry, Hold
from apps.billing.tasks import end_orphaned_keys
from apps.core.ids import new_uuid7
from tests.support.databases import Database
from tests.support.races import race
from tests.support.soundness import is_sound
from tests.support.world import NOW, UNIT, Gateway, make_quota, make_world

DIGEST, FINGERPRINT, OTHER = b"\x01" * 32, b"\x02" * 32, b"\x03" * 32
ANSWER = RepeatAnswer(200, '[["content-type","application/json"]]', b"\x00sealed\xff")
NOT_KEPT = RepeatAnswer(200, "[]", None)
DAY = timedelta(hours=24)
Connect = Callable[[], Engine]


def claim_of(gateway: Gateway, *, fingerprint: bytes = FINGERPRINT) -> Claim:
    return Claim(gateway.world.user.pk, DIGEST, fingerprint)


def claim_with(gateway: Gateway, digest: bytes) -> Claim:
    return Claim(gateway.world.user.pk, digest, FINGERPRINT)


def placement(
    gateway: Gateway, units: int = 10, *, claim: Claim | None = None, quotas: tuple[int, ...] = ()
) -> PlaceHold:
    command = gateway.placement(units * UNIT, quotas=quotas)
    return command._replace(claim=claim or claim_of(gateway))


def place(
    gateway: Gateway, units: int = 10, *, at: datetime = NOW, claim: Claim | None = None
) -> Held | HoldRefused:
    batch = gateway.batch(holds=(placement(gateway, units, claim=claim),), at=at)
    _, (answer,) = flush(gateway.engine, batch, incarnation_id=gateway.incarnation_id)
    return answer


def held(gateway: Gateway, units: int = 10, *, at: datetime = NOW) -> Held:
    answer = place(gateway, units, at=at)
    assert isinstance(answer, Held)
    return answer


def ending(
    gateway: Gateway, hold: Held, tokens: int, answer: RepeatAnswer | None = ANSWER
) -> Resolve:
    command = gateway.resolution(hold, tokens)
    return command._replace(claim_end=ClaimEnd(claim_of(gateway), answer))


def end(
    gateway: Gateway,
    hold: Held,
    tokens: int,
    answer: RepeatAnswer | None = ANSWER,
    *,
    at: datetime = NOW,
) -> Resolved:
    batch = gateway.batch(resolves=(ending(gateway, hold, tokens, answer),), at=at)
    (resolved,), _ = flush(gateway.engine, batch, incarnation_id=gateway.incarnation_id)
    return resolved


def keys() -> list[tuple[UUID, int | None, bytes | None]]:
    """Return whose each key is, its status and the body that is stored."""
    rows = CallKey.objects.order_by("request_id")
    return [
        (row.request_id, row.status_code, None if row.body is None else bytes(row.body))
        for row in rows
    ]


def charges() -> list[int]:
    return list(APIRequest.objects.order_by("id").values_list("charge_nanos", flat=True))


def test_a_key_is_taken_with_the_hold_and_its_repeat_holds_nothing(gateway: Gateway) -> None:
    first = held(gateway)

    repeat = place(gateway)

    wallet = Account.objects.get(pk=gateway.world.wallet_id)
    assert repeat == HoldRefused("repeated", first=KeyState(first.request_id, FINGERPRINT, None))
    assert keys() == [(first.request_id, None, None)]
    assert (wallet.held_nanos, Hold.objects.count()) == (10 * UNIT, 1)


def test_a_call_without_a_key_leaves_no_key(gateway: Gateway) -> None:
    hold = gateway.hold(UNIT)
    assert isinstance(hold, Held)

    gateway.resolve(hold, 1)

    assert keys() == []
    assert "has_key" not in APIRequest.objects.values().get()


def test_an_answer_is_kept_for_a_day_and_then_the_key_is_new(gateway: Gateway) -> None:
    first = held(gateway)
    end(gateway, first, 3)
    in_time = place(gateway, at=NOW + DAY - timedelta(seconds=1))

    second = held(gateway, at=NOW + DAY)

    assert in_time == HoldRefused(
        "repeated", first=KeyState(first.request_id, FINGERPRINT, NOW + DAY)
    )
    assert keys() == [(second.request_id, None, None)]
    assert charges() == [3 * UNIT]
    assert is_sound()


def test_a_key_lasts_a_day_of_the_database_whatever_the_clock_of_a_gateway_says(
    gateway: Gateway,
) -> None:
    """A key is ended by a gateway that is a day behind, and asked for by one that is ahead."""
    batch = gateway.batch(holds=(placement(gateway),), at=NOW - DAY)
    _, (first,) = flush(
        gateway.engine, replace(batch, keys_now=NOW), incarnation_id=gateway.incarnation_id
    )
    assert isinstance(first, Held)
    batch = gateway.batch(resolves=(ending(gateway, first, 3),), at=NOW - DAY)
    flush(gateway.engine, replace(batch, keys_now=NOW), incarnation_id=gateway.incarnation_id)

    batch = gateway.batch(holds=(placement(gateway),), at=NOW + 2 * DAY)
    _, (repeat,) = flush(
        gateway.engine, replace(batch, keys_now=NOW), incarnation_id=gateway.incarnation_id
    )

    assert repeat == HoldRefused(
        "repeated", first=KeyState(first.request_id, FINGERPRINT, NOW + DAY)
    )
    assert APIRequest.objects.get().settled_at == NOW - DAY


def test_the_time_of_an_engine_is_read_once(ledger_connect: Connect) -> None:
    engine = ledger_connect()

    first, begun = engine.now(), time.monotonic()
    second = engine.now()

    assert abs(first - datetime.now(UTC)) < timedelta(minutes=1)
    assert timedelta() <= second - first <= timedelta(seconds=time.monotonic() - begun + 0.1)


def test_the_answer_is_stored_as_it_came_with_the_settlement(gateway: Gateway) -> None:
    first = held(gateway)

    end(gateway, first, 3)

    row = CallKey.objects.get()
    assert (row.status_code, row.headers, bytes(row.body or b"")) == ANSWER
    assert (row.user_id, bytes(row.digest), bytes(row.fingerprint)) == (
        gateway.world.user.pk,
        DIGEST,
        FINGERPRINT,
    )
    assert (row.created_at, row.expires_at) == (NOW, NOW + DAY)


def test_a_call_that_ends_without_an_answer_and_a_charge_does_not_burn_its_key(
    gateway: Gateway,
) -> None:
    first = held(gateway)
    end(gateway, first, 0, None)
    free = keys()

    second = held(gateway)

    assert free == []
    assert keys() == [(second.request_id, None, None)]


def test_a_running_call_keeps_its_key_however_long_it_runs(gateway: Gateway) -> None:
    held(gateway)

    repeat = place(gateway, at=NOW + 30 * DAY)

    assert isinstance(repeat, HoldRefused)
    assert repeat.reason == "repeated"


def test_a_hold_that_is_refused_takes_no_key(gateway: Gateway) -> None:
    refused = place(gateway, 101)
    free = keys()

    granted = place(gateway, 100)

    assert refused == HoldRefused("balance")
    assert free == []
    assert isinstance(granted, Held)


def test_of_two_in_one_batch_the_first_that_is_granted_has_the_key(gateway: Gateway) -> None:
    commands = tuple(placement(gateway, units) for units in (101, 60, 60))

    _, (poor, first, repeat) = flush(
        gateway.engine, gateway.batch(holds=commands), incarnation_id=gateway.incarnation_id
    )

    assert poor == HoldRefused("balance")
    assert isinstance(first, Held)
    assert repeat == HoldRefused("repeated", first=KeyState(first.request_id, FINGERPRINT, None))
    assert keys() == [(first.request_id, None, None)]


def test_a_key_that_is_let_go_is_free_for_a_hold_of_the_same_batch(gateway: Gateway) -> None:
    first = held(gateway)
    command = placement(gateway)

    _, (second,) = flush(
        gateway.engine,
        gateway.batch(resolves=(ending(gateway, first, 0, None),), holds=(command,)),
        incarnation_id=gateway.incarnation_id,
    )

    assert isinstance(second, Held)
    assert keys() == [(command.request_id, None, None)]


def test_an_answer_of_the_same_batch_refuses_a_hold(gateway: Gateway) -> None:
    first = held(gateway)

    _, (repeat,) = flush(
        gateway.engine,
        gateway.batch(resolves=(ending(gateway, first, 2),), holds=(placement(gateway),)),
        incarnation_id=gateway.incarnation_id,
    )

    assert repeat == HoldRefused(
        "repeated", first=KeyState(first.request_id, FINGERPRINT, NOW + DAY)
    )
    assert charges() == [2 * UNIT]


def test_the_same_key_of_another_user_is_another_key(gateway: Gateway) -> None:
    held(gateway)
    other = Claim(gateway.world.user.pk + 1, DIGEST, FINGERPRINT)

    answer = place(gateway, claim=other)

    assert isinstance(answer, Held)
    assert CallKey.objects.count() == 2


def test_who_repeats_with_something_else_is_told_what_the_key_stands_for(gateway: Gateway) -> None:
    held(gateway)

    repeat = place(gateway, claim=claim_of(gateway, fingerprint=OTHER))

    assert isinstance(repeat, HoldRefused)
    assert repeat.first is not None
    assert repeat.first.fingerprint == FINGERPRINT


def test_a_repeat_is_told_so_also_when_nothing_is_left_in_the_wallet(gateway: Gateway) -> None:
    first = held(gateway, 100)
    end(gateway, first, 100)

    repeat = place(gateway, 100)

    assert isinstance(repeat, HoldRefused)
    assert repeat.reason == "repeated"


# ---- owners that die


def resolve_orphans(gateway: Gateway) -> None:
    """End the gateway's lease and have another process resolve its holds."""
    gateway.engine.end(gateway.incarnation_id)
    living = Gateway(gateway.world, gateway.engine)
    flusher = Flusher(gateway.engine)
    flusher.use_lease(living.incarnation_id)
    resolves = reaper.resolve_dead(gateway.engine, gateway.incarnation_id, now=NOW)
    flusher.flush(resolves, [])
    gateway.incarnation_id = living.incarnation_id


def test_the_key_of_a_dead_owner_that_delivered_nothing_is_free_again(gateway: Gateway) -> None:
    held(gateway)

    resolve_orphans(gateway)

    free = keys()
    second = held(gateway)
    end(gateway, second, 4)
    assert free == []
    assert charges() == [0, 4 * UNIT]
    assert is_sound()


def test_what_a_dead_owner_had_delivered_is_not_made_a_second_time(gateway: Gateway) -> None:
    first = held(gateway)
    counts = orjson.dumps({"input": 2}).decode()
    gateway.engine.checkpoint([(first.request_id, counts)])

    resolve_orphans(gateway)

    assert charges() == [2 * UNIT]
    assert keys() == [(first.request_id, 499, None)]
    assert isinstance(place(gateway), HoldRefused)


def test_who_does_not_know_of_keys_leaves_them_for_a_task_to_end(gateway: Gateway) -> None:
    running = held(gateway)
    other_user = Claim(gateway.world.user.pk + 1, DIGEST, FINGERPRINT)
    free, used = place(gateway, claim=other_user), place(gateway, claim=claim_with(gateway, b"u"))
    assert isinstance(free, Held)
    assert isinstance(used, Held)
    gateway.resolve(free, 0)  # as by an older version: nothing is said of keys
    gateway.resolve(used, 2)

    ended = [end_orphaned_keys(), end_orphaned_keys()]

    assert ended == [2, 0]
    assert keys() == [(running.request_id, None, None), (used.request_id, 200, None)]
    assert CallKey.objects.get(pk=used.request_id).expires_at is not None


def test_a_settlement_in_quarantine_keeps_its_key(gateway: Gateway) -> None:
    first = held(gateway)
    flusher = Flusher(gateway.engine)
    flusher.use_lease(gateway.incarnation_id)
    command = ending(gateway, first, 5)
    poison = command._replace(row={**command.row, "user_id": None})

    (outcome,), _ = flusher.flush([poison], [])

    assert outcome == Quarantined(first.request_id)
    assert keys() == [(first.request_id, None, None)]
    assert isinstance(place(gateway), HoldRefused)


def test_a_stranger_and_a_hold_that_is_given_back_let_their_keys_go(gateway: Gateway) -> None:
    held(gateway)
    (stranger,) = gateway.engine.own_holds(gateway.incarnation_id, -1)
    flush(
        gateway.engine,
        gateway.batch(resolves=(reaper.resolve_stranger(stranger, now=NOW),)),
        incarnation_id=gateway.incarnation_id,
    )
    after_stranger = keys()
    command = placement(gateway)
    batch = gateway.batch(holds=(command,))
    _, (granted,) = flush(gateway.engine, batch, incarnation_id=gateway.incarnation_id)
    assert isinstance(granted, Held)

    void = reaper.void(command, granted, state="voided", error_code="hold_abandoned", now=NOW)
    flush(gateway.engine, gateway.batch(resolves=(void,)), incarnation_id=gateway.incarnation_id)

    assert after_stranger == []
    assert keys() == []
    assert Hold.objects.count() == 0


# ---- settlements that come late


def test_a_late_settlement_takes_a_free_key_back_with_its_answer(gateway: Gateway) -> None:
    first = held(gateway)
    resolve_orphans(gateway)

    late = end(gateway, first, 5)

    assert late == Resolved(first.request_id, 5 * UNIT, is_first=False)
    assert keys() == [(first.request_id, 200, ANSWER.body)]
    assert isinstance(place(gateway), HoldRefused)
    assert is_sound()


def test_a_late_settlement_completes_what_a_checkpoint_had_charged(gateway: Gateway) -> None:
    first = held(gateway)
    gateway.engine.checkpoint([(first.request_id, orjson.dumps({"input": 2}).decode())])
    resolve_orphans(gateway)

    late = end(gateway, first, 5)

    assert late == Resolved(first.request_id, 3 * UNIT, is_first=False)
    assert keys() == [(first.request_id, 200, ANSWER.body)]


@pytest.mark.parametrize("is_second_done", [False, True], ids=["running", "done"])
def test_a_late_settlement_charges_nothing_where_its_key_has_paid_for_another_call(
    gateway: Gateway, is_second_done: bool
) -> None:
    first = held(gateway)
    resolve_orphans(gateway)
    second = held(gateway)
    if is_second_done:
        end(gateway, second, 4)

    late = end(gateway, first, 5)

    if not is_second_done:
        end(gateway, second, 4)
    wallet = Account.objects.get(pk=gateway.world.wallet_id)
    assert late == Resolved(first.request_id, 0, is_first=False)
    assert (wallet.posted_nanos, wallet.held_nanos) == (96 * UNIT, 0)
    assert keys() == [(second.request_id, 200, ANSWER.body)]
    assert Entry.objects.filter(request_id=first.request_id).count() == 0
    assert is_sound()


def test_a_late_settlement_is_charged_where_its_key_has_gone_to_a_call_for_something_else(
    gateway: Gateway,
) -> None:
    first = held(gateway)
    resolve_orphans(gateway)
    second = place(gateway, claim=claim_of(gateway, fingerprint=OTHER))
    assert isinstance(second, Held)

    late = end(gateway, first, 5)
    again = end(gateway, first, 5)

    assert (late.charged_nanos, again.charged_nanos) == (5 * UNIT, 0)
    assert keys() == [(second.request_id, None, None)]
    assert is_sound()


def test_a_settlement_that_comes_twice_keeps_its_answer_and_charges_once(gateway: Gateway) -> None:
    first = held(gateway)
    command = ending(gateway, first, 5)

    ended, _ = flush(
        gateway.engine,
        gateway.batch(resolves=(command, command)),
        incarnation_id=gateway.incarnation_id,
    )
    again = end(gateway, first, 5)

    assert [answer.charged_nanos for answer in (*ended, again)] == [5 * UNIT, 0, 0]
    assert keys() == [(first.request_id, 200, ANSWER.body)]


@pytest.mark.parametrize("answer", [ANSWER, NOT_KEPT, None], ids=["answer", "not kept", "free"])
def test_the_journal_carries_what_becomes_of_the_key(
    gateway: Gateway, tmp_path: Path, answer: RepeatAnswer | None
) -> None:
    first = held(gateway)
    command = ending(gateway, first, 0 if answer is None else 5, answer)
    journal = Journal(tmp_path)

    journal.append([command])
    (read,) = journal.read(10)
    flush(gateway.engine, gateway.batch(resolves=(read,)), incarnation_id=gateway.incarnation_id)

    journal.close()
    assert read == command
    expected = [] if answer is None else [(first.request_id, answer.status_code, answer.body)]
    assert keys() == expected


def test_a_settlement_in_its_bare_form_keeps_the_key_without_the_answer(gateway: Gateway) -> None:
    first = held(gateway)
    flusher = Flusher(gateway.engine)
    flusher.use_lease(gateway.incarnation_id)
    command = ending(gateway, first, 5, RepeatAnswer(200, "[]", b"x"))
    poison = command._replace(attempts=({"id": "no uuid"},))

    (outcome,), _ = flusher.flush([poison], [])

    assert outcome == Resolved(first.request_id, 5 * UNIT)
    assert keys() == [(first.request_id, 200, None)]


def test_the_size_of_a_settlement_counts_its_answer(gateway: Gateway) -> None:
    first = held(gateway)

    sizes = [ending(gateway, first, 5, answer).size() for answer in (NOT_KEPT, ANSWER)]

    assert sizes == [1_000, 1_008]


# ---- many at once


def test_of_64_processes_at_once_one_has_the_key(ledger_connect: Connect) -> None:
    world = make_world(1_000 * UNIT)
    quota = make_quota(world, 100 * UNIT)
    gateways = [Gateway(world, ledger_connect()) for _ in range(64)]

    def act(barrier: threading.Barrier, number: int) -> Held | HoldRefused:
        # Half of them take the money from a quota, so that the wallet is all they share.
        quotas = (quota,) if number % 2 else ()
        batch = gateways[number].batch(holds=(placement(gateways[number], quotas=quotas),))
        barrier.wait()
        _, (answer,) = flush(
            gateways[number].engine, batch, incarnation_id=gateways[number].incarnation_id
        )
        return answer

    answers = race(64, act)

    first = next(answer for answer in answers if isinstance(answer, Held))
    repeat = HoldRefused("repeated", first=KeyState(first.request_id, FINGERPRINT, None))
    assert answers.count(repeat) == 63
    assert keys() == [(first.request_id, None, None)]
    assert Hold.objects.count() == 1


def test_of_32_at_once_with_an_empty_wallet_none_is_told_that_it_is_a_repeat(
    ledger_connect: Connect,
) -> None:
    world = make_world(UNIT)
    gateways = [Gateway(world, ledger_connect()) for _ in range(32)]

    def act(barrier: threading.Barrier, number: int) -> Held | HoldRefused:
        barrier.wait()
        return place(gateways[number], 2)

    answers = race(32, act)

    assert answers == [HoldRefused("balance")] * 32
    assert keys() == []


def test_control_who_looks_before_he_locks_the_wallet_takes_the_key_twice(
    committed_db: Database,
) -> None:
    world = make_world(UNIT)
    seen = f"SELECT count(*) FROM audit_callkey WHERE user_id = {world.user.pk}"  # noqa: S608 (no input)

    def act(barrier: threading.Barrier, number: int) -> bool:
        with closing(committed_db.connect()) as connection:
            (count,) = connection.execute(seen).fetchone()
            barrier.wait()
            return bool(count == 0)

    taken = race(8, act)

    assert taken.count(True) == 8


def test_an_expired_key_goes_to_one_of_16(ledger_connect: Connect) -> None:
    world = make_world(100 * UNIT)
    gateways = [Gateway(world, ledger_connect()) for _ in range(16)]
    end(gateways[0], held(gateways[0]), 3)

    def act(barrier: threading.Barrier, number: int) -> Held | HoldRefused:
        barrier.wait()
        return place(gateways[number], 2, at=NOW + DAY)

    answers = race(16, act)

    (second,) = [answer for answer in answers if isinstance(answer, Held)]
    assert keys() == [(second.request_id, None, None)]


def test_the_database_itself_takes_a_key_of_a_user_once(gateway: Gateway) -> None:
    first = held(gateway)
    row = CallKey.objects.get()
    row.pk = new_uuid7()

    with pytest.raises(IntegrityError):
        row.save(force_insert=True)

    assert keys() == [(first.request_id, None, None)]
