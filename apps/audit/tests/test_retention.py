"""Bodies are erased by rule, in small batches and on record; calls stay as they are (I-73).

Over 400 lines because all that is erased by age is tried with the same calls and bodies.
"""

from __future__ import annotations

import io
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import OperationalError, connection
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings

from apps.audit.models import AdminEvent, APIRequest, CallKey, Payload, RefusalCount
from apps.audit.retention import (
    BATCH_ROWS,
    Erasure,
    Selection,
    SelectionEmpty,
    erase_payloads,
    prune_idempotency_keys,
)
from apps.audit.tasks import erase_payloads as task
from apps.audit.tasks import prune_idempotency_keys as prune_task
from apps.audit.tasks import prune_refusals
from apps.core.ids import uuid7
from tests.support.calls import record_call

NOW = datetime.now(UTC)


def make_payload(*, days_ago: float, user_id: int = 1, size: int = 10) -> uuid.UUID:
    """Write a call of so long ago with its bodies and return its id."""
    at = NOW - timedelta(days=days_ago)
    request_id = uuid7(int(at.timestamp() * 1000), uuid.uuid4().bytes)
    record_call(id=request_id, user_id=user_id, started_at=at)
    Payload.objects.create(
        request_id=request_id,
        salt=b"\x01" * 16,
        request_body=b"q" * size,
        response_body=b"a" * size,
        is_request_truncated=False,
        is_response_truncated=False,
    )
    return request_id


def run(*arguments: str) -> str:
    out = io.StringIO()
    call_command("erase_payloads", *arguments, stdout=out)
    return out.getvalue()


def left() -> list[uuid.UUID]:
    return list(Payload.objects.order_by("pk").values_list("pk", flat=True))


def test_only_bodies_of_calls_before_the_moment_go(db: None) -> None:
    old, older, new = (make_payload(days_ago=days) for days in (31, 400, 29))

    done = erase_payloads(Selection(before=NOW - timedelta(days=30)), reason="test")

    assert done == Erasure(count=2, first=older, last=old)
    assert left() == [new]
    assert APIRequest.objects.count() == 3


def told(action: str) -> list[dict[str, object]]:
    """Return what the events of an action say, oldest first."""
    events = AdminEvent.objects.filter(action=action).order_by("pk")
    return [event.after for event in events if event.after is not None]


def test_each_run_is_on_record_with_counts_and_range_and_no_run_that_found_nothing(
    db: None,
) -> None:
    first, last = make_payload(days_ago=5), make_payload(days_ago=4)
    before = NOW - timedelta(days=3)

    for _ in range(2):
        erase_payloads(Selection(before=before), reason="by hand")

    events = AdminEvent.objects.order_by("pk").values_list("action", "reason", "actor_name")
    assert list(events) == [
        ("payloads.erasing", "by hand", "system"),
        ("payloads.erased", "by hand", "system"),
    ]
    selected = {"before": before.isoformat(), "user_id": None, "request_id": None}
    assert told("payloads.erasing") == [{"payloads_at_least": 2, **selected}]
    assert told("payloads.erased") == [
        {
            "payloads": 2,
            "first_request": str(first),
            "last_request": str(last),
            "is_complete": True,
            **selected,
        }
    ]


def test_each_of_several_runs_tells_what_it_erased_itself(
    db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("apps.audit.retention.BATCH_ROWS", 2)
    ids = [make_payload(days_ago=days) for days in (7, 6, 5, 4, 3)]

    runs = [
        erase_payloads(Selection(before=NOW), reason="test", seconds_max=-1.0) for _ in range(3)
    ]

    assert [(run.count, run.is_complete) for run in runs] == [(2, False), (2, False), (1, True)]
    ranges = [
        (event["payloads"], event["first_request"], event["last_request"])
        for event in told("payloads.erased")
    ]
    assert ranges == [
        (2, str(ids[0]), str(ids[1])),
        (2, str(ids[2]), str(ids[3])),
        (1, str(ids[4]), str(ids[4])),
    ]


def test_a_run_that_fails_tells_what_had_gone_by_then(
    db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("apps.audit.retention.BATCH_ROWS", 1)
    ids = [make_payload(days_ago=days) for days in (3, 2)]

    def refuse_the_second(
        execute: Callable[..., object], sql: str, parameters: Any, many: bool, context: Any
    ) -> object:
        if sql.startswith("DELETE") and len(left()) == 1:
            raise OperationalError("the disk is gone")
        return execute(sql, parameters, many, context)

    with connection.execute_wrapper(refuse_the_second), pytest.raises(OperationalError):
        erase_payloads(Selection(before=NOW), reason="test")

    (event,) = told("payloads.erased")
    assert (event["payloads"], event["last_request"]) == (1, str(ids[0]))
    assert event["is_complete"] is False


def test_measuring_is_bounded_and_says_at_least(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("apps.audit.retention._PAGE_ROWS", 2)
    monkeypatch.setattr("apps.audit.retention._PAGES_MEASURED", 2)
    for days in range(1, 8):
        make_payload(days_ago=days)

    done = erase_payloads(Selection(before=NOW), reason="test")

    assert done.count == 7
    assert [event["payloads_at_least"] for event in told("payloads.erasing")] == [4]
    assert [event["payloads"] for event in told("payloads.erased")] == [7]


def test_calls_that_begin_after_the_run_are_not_meant_by_it(db: None) -> None:
    make_payload(days_ago=1, user_id=7)
    later = make_payload(days_ago=-1, user_id=7)

    erase_payloads(Selection(user_id=7), reason="test")

    assert left() == [later]
    (event,) = told("payloads.erased")
    assert datetime.fromisoformat(str(event["before"])) >= NOW


def test_of_one_user_or_of_one_call_nobody_else_s_go(db: None) -> None:
    mine = [make_payload(days_ago=days, user_id=7) for days in (3, 2, 1)]
    other = make_payload(days_ago=2, user_id=8)

    erase_payloads(Selection(request_id=mine[1]), reason="test")
    one = left()
    erase_payloads(Selection(user_id=7, before=NOW - timedelta(days=2)), reason="test")
    two = left()
    erase_payloads(Selection(user_id=7), reason="test")

    assert one == [mine[0], other, mine[2]]
    assert two == [other, mine[2]]
    assert left() == [other]


def test_a_transaction_removes_a_bounded_number_of_rows_and_of_bytes(db: None) -> None:
    for _ in range(2 * BATCH_ROWS + 1):
        make_payload(days_ago=2)
    for _ in range(3):
        make_payload(days_ago=1.5, size=400 << 10)

    with CaptureQueriesContext(connection) as queries:
        done = erase_payloads(Selection(before=NOW - timedelta(days=1)), reason="test")

    deletions = [query for query in queries if query["sql"].startswith("DELETE")]
    assert done.count == 2 * BATCH_ROWS + 4
    # 50, 50, 1 with the first large one, then one by one.
    assert len(deletions) == 5


def test_nothing_selected_is_not_everything(db: None) -> None:
    with pytest.raises(SelectionEmpty):
        erase_payloads(Selection(), reason="test")


def test_a_task_that_leaves_bodies_says_so(
    db: None, settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("apps.audit.retention.BATCH_ROWS", 2)
    monkeypatch.setattr("apps.audit.tasks.RUN_SECONDS_MAX", -1.0)
    settings.PAYLOAD_DAYS = 30
    for days in (31, 32, 33):
        make_payload(days_ago=days)

    counts = [task() for _ in range(3)]

    assert counts == [2, 1, 0]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "older than PAYLOAD_DAYS=30 are left: 2 were erased" in caplog.text


def test_the_task_follows_the_setting(db: None, settings: Settings) -> None:
    make_payload(days_ago=31)
    new = make_payload(days_ago=29)

    settings.PAYLOAD_DAYS = 0
    kept = task()
    settings.PAYLOAD_DAYS = 30
    erased = task()

    assert (kept, erased) == (0, 1)
    assert left() == [new]
    assert set(AdminEvent.objects.values_list("reason", flat=True)) == {"PAYLOAD_DAYS=30"}


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        (("--days", "2"), 1),
        (("--before", "2020-01-01"), 0),
        (("--user", "1"), 2),
        (("--user", "2"), 0),
        (("--user", "1", "--days", "2"), 1),
    ],
)
def test_the_command_says_how_much_it_erased(
    db: None, arguments: tuple[str, ...], count: int
) -> None:
    for days in (1, 3):
        make_payload(days_ago=days)

    said = run(*arguments)

    assert said.startswith(f"erased {count} payloads\n")
    assert len(left()) == 2 - count


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--days", "-1"),
        ("--days", "x"),
        ("--before", "yesterday"),
        ("--before", "2999-01-01"),
        ("--request", "1"),
    ],
)
def test_the_command_refuses_what_is_unclear(db: None, arguments: tuple[str, ...]) -> None:
    make_payload(days_ago=3)

    with pytest.raises(CommandError):
        run(*arguments)

    assert len(left()) == 1


def test_the_command_says_what_it_takes_for_days(db: None) -> None:
    with pytest.raises(CommandError, match="not a whole number from 1 to 36500"):
        run("--days", "\u00b2")


@pytest.mark.parametrize("arguments", [("--days", "0"), ("--days", "00", "--user", "1")])
def test_no_days_are_refused_as_the_setting_keeps_bodies_with_them(
    db: None, arguments: tuple[str, ...]
) -> None:
    make_payload(days_ago=3)

    with pytest.raises(CommandError, match=r"0 keeps bodies for ever.*--before"):
        run(*arguments)

    assert len(left()) == 1


# ---- answers for who repeats a call


def make_key(
    *, hours_ago: float = 1, user_id: int = 1, is_running: bool = False, size: int = 10
) -> uuid.UUID:
    """Write the idempotency key of a call that began so long ago, and return the call's id."""
    at = NOW - timedelta(hours=hours_ago)
    request_id = uuid7(int(at.timestamp() * 1000), uuid.uuid4().bytes)
    CallKey.objects.create(
        request_id=request_id,
        user_id=user_id,
        digest=uuid.uuid4().bytes,
        fingerprint=b"f",
        status_code=None if is_running else 200,
        headers="[]",
        body=None if is_running else b"a" * size,
        created_at=at,
        expires_at=None if is_running else at + timedelta(hours=24),
    )
    return request_id


def bodies() -> dict[uuid.UUID, bool]:
    """Return of each key whether its answer is still there."""
    return {row.pk: row.body is not None for row in CallKey.objects.all()}


def test_answers_of_a_user_go_with_his_bodies_and_their_keys_stay(db: None) -> None:
    mine, running = make_key(), make_key(is_running=True)
    theirs = make_key(user_id=2)

    erase_payloads(Selection(user_id=1), reason="by hand")

    assert bodies() == {mine: False, running: False, theirs: True}
    assert CallKey.objects.get(pk=mine).status_code == 200
    assert [event["payloads_at_least"] for event in told("payloads.erasing")] == [0]
    (event,) = told("payloads.erased")
    assert (event["answers"], event["payloads"], event["user_id"]) == (1, 0, 1)


def test_an_answer_goes_with_its_call_or_by_age(db: None) -> None:
    one, old, new = make_key(), make_key(hours_ago=3), make_key()

    erase_payloads(Selection(request_id=one), reason="by hand")
    erase_payloads(Selection(before=NOW - timedelta(hours=2)), reason="by hand")

    assert bodies() == {one: False, old: False, new: True}


def test_keys_are_forgotten_after_a_day_but_for_those_of_running_calls(db: None) -> None:
    make_key(hours_ago=25)
    left, running = make_key(hours_ago=23), make_key(hours_ago=50, is_running=True)

    deleted = prune_task()

    assert deleted == 1
    assert set(bodies()) == {left, running}


def test_a_worker_whose_clock_is_ahead_forgets_no_key_before_its_time(db: None) -> None:
    make_key(hours_ago=25)
    left = make_key(hours_ago=1)

    deleted = prune_idempotency_keys(now=NOW + timedelta(days=2), seconds_max=60.0)

    assert deleted == 1
    assert set(bodies()) == {left}


def test_keys_are_forgotten_in_transactions_of_a_bounded_size(db: None) -> None:
    for _ in range(120):
        make_key(hours_ago=25)
    for _ in range(3):
        make_key(hours_ago=26, size=1 << 20)

    with CaptureQueriesContext(connection) as queries:
        deleted = prune_idempotency_keys(now=NOW, seconds_max=60.0)

    deletes = [query["sql"] for query in queries if query["sql"].startswith("DELETE")]
    assert deleted == 123
    # Three of a mebibyte each alone, then 50, 50 and 20.
    assert len(deletes) == 6


def test_a_run_forgets_keys_until_its_time_is_over_and_the_next_one_goes_on(
    db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("apps.audit.retention._PAGE_ROWS", 1)
    monkeypatch.setattr("apps.core.pieces.PAUSE_SECONDS", 0.0)
    for _ in range(103):
        make_key(hours_ago=25)

    deleted = [prune_idempotency_keys(now=NOW, seconds_max=seconds) for seconds in (-1.0, 60.0)]

    assert deleted == [1, 102]
    assert bodies() == {}


def test_answers_that_a_run_leaves_are_told_and_go_with_the_next_one(
    db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("apps.audit.retention.BATCH_ROWS", 1)
    for _ in range(2):
        make_key(hours_ago=3)

    runs = [
        erase_payloads(Selection(before=NOW), reason="test", seconds_max=-1.0) for _ in range(2)
    ]

    assert [run.is_complete for run in runs] == [False, True]
    assert [(event["answers"], event["is_complete"]) for event in told("payloads.erased")] == [
        (1, False),
        (1, True),
    ]
    assert set(bodies().values()) == {False}


def test_counts_of_refused_calls_are_kept_for_400_days(
    db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("apps.audit.retention._REFUSAL_ROWS", 2)
    for days in (0, 399, 401, 402, 403, 800):
        RefusalCount.objects.create(
            api_key_id=1, code="x", minute=NOW - timedelta(days=days), count=days
        )

    with CaptureQueriesContext(connection) as queries:
        deleted = prune_refusals()

    deletes = [query["sql"] for query in queries if query["sql"].startswith("DELETE")]
    assert (deleted, len(deletes)) == (4, 2)
    assert prune_refusals() == 0
    assert set(RefusalCount.objects.values_list("count", flat=True)) == {0, 399}
