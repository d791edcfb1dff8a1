"""Where stored answers lie: rows that commit with the settlements of their calls, or not at all."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import cast

import psycopg
import pytest
from django.db import connection

from apps.audit.models import APIRequest, StoredAnswer
from apps.billing import reaper
from apps.billing.journal import Journal
from apps.billing.ledger.commands import Held, Resolve, Resolved, StoredRecord
from apps.billing.ledger.sqlite import SqliteEngine
from apps.billing.ledger.store import Engine, flush
from apps.billing.models import Account, Hold
from apps.billing.tests.writer_kit import flusher_of
from tests.support.databases import Database
from tests.support.races import race
from tests.support.soundness import is_sound
from tests.support.world import NOW, UNIT, Gateway, make_world

ONE, OTHER = b"\x01" * 32, b"\x02" * 32
HERE, ELSEWHERE = 31, 32  # providers
MONTH = timedelta(days=30)
SECOND = timedelta(seconds=1)
Connect = Callable[[], Engine]


def record(
    *digests: bytes, provider_id: int = HERE, user_id: int = 7, at: datetime = NOW
) -> StoredRecord:
    return StoredRecord(digests, provider_id, 5, user_id, 9, at, at + MONTH)


def ending(gateway: Gateway, stored: StoredRecord | None, tokens: int = 3) -> Resolve:
    """Return the settlement of a call that is held for 5 units."""
    held = gateway.hold(5 * UNIT)
    assert isinstance(held, Held)
    return gateway.resolution(held, tokens)._replace(stored=stored)


def settle(gateway: Gateway, *resolves: Resolve) -> list[Resolved]:
    ended, _ = flush(
        gateway.engine, gateway.batch(resolves=resolves), incarnation_id=gateway.incarnation_id
    )
    return ended


def owners() -> list[tuple[bytes, int, int]]:
    """Return of each row the digest, the provider and the user."""
    rows = StoredAnswer.objects.order_by("digest", "provider_id")
    return [(bytes(row.digest), row.provider_id, row.user_id) for row in rows]


def test_each_id_of_an_answer_is_a_row(gateway: Gateway) -> None:
    settle(gateway, ending(gateway, record(OTHER, ONE)), ending(gateway, None))

    columns = ("digest", "provider_id", "provider_key_id", "user_id", "model_id")
    rows = StoredAnswer.objects.order_by("digest")
    found = rows.values_list(*columns, "created_at", "expires_at")
    assert [(bytes(digest), *more) for digest, *more in found] == [
        (ONE, 31, 5, 7, 9, NOW, NOW + MONTH),
        (OTHER, 31, 5, 7, 9, NOW, NOW + MONTH),
    ]


@pytest.mark.postgres
def test_rows_and_settlement_are_one_transaction_on_postgresql(gateway: Gateway) -> None:
    settle(gateway, ending(gateway, record(ONE, OTHER)))

    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT xmin::text FROM audit_storedanswer UNION ALL "
            "SELECT xmin::text FROM audit_apirequest"
        )
        writers = [row[0] for row in cursor.fetchall()]
    assert len(writers) == 3
    assert len(set(writers)) == 1


@pytest.mark.sqlite
def test_rows_and_settlement_are_one_transaction_on_sqlite(gateway: Gateway) -> None:
    command = ending(gateway, record(ONE, OTHER))
    ran: list[str] = []
    ledger = cast(SqliteEngine, gateway.engine)._connection

    ledger.set_trace_callback(ran.append)
    settle(gateway, command)
    ledger.set_trace_callback(None)

    kinds = [" ".join(statement.split()[:3]) for statement in ran]
    kept = [
        kind
        for kind in kinds
        if kind.startswith(("BEGIN", "COMMIT", "INSERT INTO audit", "DELETE FROM billing_hold"))
    ]
    assert kept == [
        "BEGIN IMMEDIATE",
        "DELETE FROM billing_hold",
        "INSERT INTO audit_apirequest",
        "INSERT INTO audit_storedanswer",
        "COMMIT",
    ]


def test_a_settlement_that_fails_leaves_no_row(gateway: Gateway) -> None:
    command = ending(gateway, record(ONE))
    broken = command._replace(row={**command.row, "user_name": None})

    with pytest.raises(Exception, match="user_name"):
        settle(gateway, broken)

    assert owners() == []
    assert Hold.objects.count() == 1
    assert APIRequest.objects.count() == 0


def test_a_row_that_fails_leaves_no_settlement(gateway: Gateway) -> None:
    command = ending(gateway, record(ONE, OTHER)._replace(user_id=cast(int, None)))

    with pytest.raises(Exception, match="user_id"):
        settle(gateway, command)

    assert owners() == []
    assert Hold.objects.count() == 1
    assert Account.objects.get(pk=gateway.world.wallet_id).posted_nanos == 100 * UNIT


def test_a_poisonous_row_is_left_out_and_its_call_settled(gateway: Gateway) -> None:
    good = ending(gateway, record(ONE))
    poison = ending(gateway, record(OTHER)._replace(user_id=cast(int, None)))
    more = ending(gateway, record(OTHER, provider_id=ELSEWHERE))

    outcomes, _ = flusher_of(gateway).flush([good, poison, more], [])

    assert outcomes == [Resolved(one.request_id, 3 * UNIT) for one in (good, poison, more)]
    assert owners() == [(ONE, HERE, 7), (OTHER, ELSEWHERE, 7)]
    assert Hold.objects.count() == 0
    assert is_sound()


def test_a_poisonous_settlement_is_settled_without_its_rows(gateway: Gateway) -> None:
    command = ending(gateway, record(ONE))
    poison = command._replace(attempts=({"id": "no uuid"},))

    (outcome,), _ = flusher_of(gateway).flush([poison], [])

    assert outcome == Resolved(command.request_id, 3 * UNIT)
    assert owners() == []
    assert Hold.objects.count() == 0


def test_of_two_with_one_id_in_one_batch_the_latest_has_it(gateway: Gateway) -> None:
    settle(
        gateway,
        ending(gateway, record(ONE, OTHER, user_id=7, at=NOW + SECOND)),
        ending(gateway, record(ONE, user_id=8, at=NOW)),
        ending(gateway, record(OTHER, OTHER, user_id=9, at=NOW + SECOND)),
        ending(gateway, record(ONE, user_id=10, provider_id=ELSEWHERE)),
    )

    assert owners() == [(ONE, HERE, 7), (ONE, ELSEWHERE, 10), (OTHER, HERE, 9)]


def test_a_later_answer_with_an_id_takes_it_over(gateway: Gateway) -> None:
    settle(gateway, ending(gateway, record(ONE, user_id=7)))
    later = record(ONE, OTHER, user_id=8, at=NOW + SECOND)._replace(provider_key_id=6, model_id=10)

    settle(gateway, ending(gateway, later))

    assert owners() == [(ONE, HERE, 8), (OTHER, HERE, 8)]
    row = StoredAnswer.objects.get(digest=ONE)
    assert (row.provider_key_id, row.model_id) == (6, 10)
    assert (row.created_at, row.expires_at) == (NOW + SECOND, NOW + SECOND + MONTH)


def test_a_settlement_that_is_replayed_leaves_what_came_later(gateway: Gateway) -> None:
    first = ending(gateway, record(ONE, OTHER, user_id=7))
    settle(gateway, first)
    settle(gateway, ending(gateway, record(ONE, user_id=8, at=NOW + SECOND)))

    (again,) = settle(gateway, first)

    assert again == Resolved(first.request_id, 0, is_first=False)
    assert owners() == [(ONE, HERE, 8), (OTHER, HERE, 7)]
    assert is_sound()


def test_a_settlement_that_comes_late_writes_its_rows(gateway: Gateway) -> None:
    command = ending(gateway, record(ONE))
    gateway.engine.end(gateway.incarnation_id)
    living = Gateway(gateway.world, gateway.engine)
    dead = reaper.resolve_dead(gateway.engine, gateway.incarnation_id, now=NOW)
    settle(living, *dead)
    before = owners()

    (late,) = settle(living, command)

    assert before == []
    assert late == Resolved(command.request_id, 3 * UNIT, is_first=False)
    assert owners() == [(ONE, HERE, 7)]


def test_the_journal_carries_the_rows(gateway: Gateway, tmp_path: Path) -> None:
    at = NOW.replace(microsecond=0)
    commands = [ending(gateway, stored) for stored in (record(ONE, OTHER, at=at), None)]
    journal = Journal(tmp_path)

    journal.append(commands)
    read = journal.read(10)
    settle(gateway, *read)
    settle(gateway, *read)

    journal.close()
    assert read == commands
    assert owners() == [(ONE, HERE, 7), (OTHER, HERE, 7)]
    assert StoredAnswer.objects.get(digest=ONE).created_at == at


def test_the_size_of_a_settlement_counts_its_rows(gateway: Gateway) -> None:
    command = ending(gateway, None)

    sizes = [
        command._replace(stored=stored).size() for stored in (None, record(ONE), record(ONE, OTHER))
    ]

    assert sizes == [1_000, 1_200, 1_400]


def test_as_many_rows_as_an_answer_may_have_are_written(gateway: Gateway) -> None:
    answers = [[bytes([answer, n % 256]) + bytes(30) for n in range(257)] for answer in range(3)]

    settle(gateway, *(ending(gateway, record(*digests)) for digests in answers))

    assert [digest for digest, _, _ in owners()] == sorted({*answers[0], *answers[1], *answers[2]})


# ---- several gateways


ROUNDS = 6
# So many that one transaction takes a while to write them.
DIGESTS = tuple(number.to_bytes(32, "big") for number in range(1_000))


@pytest.mark.postgres
def test_gateways_that_write_the_same_ids_in_opposite_orders_do_not_deadlock(
    ledger_connect: Connect,
) -> None:
    # Their accounts are others: only at the rows of answers can one wait for the other.
    revenue_ids = Account.objects.filter(kind="revenue").order_by("pk").values_list("pk", flat=True)
    worlds = [replace(make_world(10_000 * UNIT), revenue_id=revenue_ids[n]) for n in range(2)]
    gateways = [Gateway(world, ledger_connect()) for world in worlds]

    def write(barrier: threading.Barrier, number: int) -> int:
        gateway = gateways[number]
        charged = 0
        for turn in range(ROUNDS):
            at = NOW + turn * SECOND
            command = ending(gateway, record(*DIGESTS[:: (-1) ** number], at=at))
            barrier.wait()
            charged += settle(gateway, command)[0].charged_nanos
        return charged

    assert race(2, write) == [3 * UNIT * ROUNDS] * 2
    assert tuple(digest for digest, _, _ in owners()) == DIGESTS
    assert is_sound()


@pytest.mark.postgres
def test_control_rows_that_are_written_as_they_come_deadlock(
    committed_db: Database, gateway: Gateway
) -> None:
    settle(gateway, ending(gateway, record(ONE, OTHER)))

    def write(barrier: threading.Barrier, number: int) -> bool:
        with closing(committed_db.connect()) as own:
            own.execute("BEGIN")
            for turn, digest in enumerate((ONE, OTHER)[:: (-1) ** number]):
                if turn:
                    barrier.wait()
                try:
                    own.execute(
                        "INSERT INTO audit_storedanswer (digest, provider_id, provider_key_id, "  # noqa: S608 (no input)
                        f"user_id, model_id, created_at, expires_at) VALUES ('\\x{digest.hex()}', "
                        f"{HERE}, 5, 7, 9, now(), now()) ON CONFLICT (digest, provider_id) "
                        "DO UPDATE SET user_id = excluded.user_id"
                    )
                except psycopg.errors.DeadlockDetected:
                    return True
            own.execute("COMMIT")
        return False

    assert sorted(race(2, write)) == [False, True]
