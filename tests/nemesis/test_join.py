"""The joined logs: what is explained, and that what is wrong is found (a control)."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import pytest

from tests.nemesis.join import LOST_ATTEMPT, Recorded, Upstream, explain, join
from tests.nemesis.seen import Seen

ID = UUID("01a220fa-c536-703c-abf9-8bb80d2a021f")
ANSWER = "0123456789abcdef0123456789abc"
OTHER = "x" * 29
CALL = Upstream(1.0, 10, 5, True, ANSWER, "demo-chat", "ok")  # 10 x 1000 + 5 x 4000 nanos
LOST = Upstream(0.5, 10, 2, False, OTHER, "demo-chat:fault=cut_after(0)", "cut_after")
ROW = Recorded("completed", "reported", False, 30_000, 90_000, 1, "", 0, (f"req_{ANSWER}",))
REAPED = replace(ROW, state="interrupted", usage_source="none", charge_nanos=0, attempt_count=0)
WHOLE = Seen("plain", status=200, request_id=str(ID), is_whole=True, is_clean=True)


def test_what_agrees_needs_no_explanation() -> None:
    joined = join([WHOLE], {ID: [CALL]}, {ID: ROW})

    assert joined.problems == []
    assert (joined.charged_nanos, joined.counted_nanos) == (30_000, 30_000)


def test_an_attempt_that_failed_over_is_the_operator_s_loss() -> None:
    row = replace(ROW, attempt_count=2, attempt_ids=(f"req_{OTHER}", f"req_{ANSWER}"))

    assert explain([LOST, CALL], row) == [(LOST_ATTEMPT, -18_000), ("exact", 0)]
    assert join([WHOLE], {ID: [LOST, CALL]}, {ID: row}).problems == []


def test_an_attempt_that_was_given_up_may_arrive_after_the_one_that_answered() -> None:
    row = replace(ROW, attempt_count=2, attempt_ids=("", f"req_{ANSWER}"))

    assert explain([CALL, LOST], row) == [(LOST_ATTEMPT, -18_000), ("exact", 0)]


@pytest.mark.parametrize(
    ("row", "reason", "nanos"),
    [
        (replace(ROW, charge_nanos=29_999), "?completed by reported usage", -1),
        (replace(ROW, state="failed", charge_nanos=1), "?a failure was charged", -29_999),
        (replace(ROW, late_nanos=1), "?late, and no reaper came before", 1),
        (
            replace(ROW, usage_source="estimated", charge_nanos=90_001),
            "?more than the hold without a report",
            60_001,
        ),
        (replace(ROW, state="client_disconnected", usage_source="estimated", charge_nanos=20_000),
         "the client left: estimated", -10_000),
        (replace(REAPED, usage_source="checkpoint", charge_nanos=18_000),
         "the gateway died: checkpoint", -12_000),
        (replace(REAPED, usage_source="checkpoint", charge_nanos=18_000, late_nanos=30_000),
         "?late, beyond what the provider reported", 18_000),
        (replace(REAPED, charge_nanos=31_000),
         "?the gateway died: charged without a checkpoint", 1_000),
        (replace(ROW, is_suspect=True, charge_nanos=90_001),
         "?more than the hold and than what the provider counted", 60_001),
        (replace(ROW, is_suspect=True, charge_nanos=90_000),
         "usage that cannot be true: cut at the hold", 60_000),
    ],
)  # fmt: skip
def test_each_difference_has_its_reason_or_is_a_finding(
    row: Recorded, reason: str, nanos: int
) -> None:
    assert explain([CALL], row) == [(reason, nanos)]
    problems = join([], {ID: [CALL]}, {ID: row}).problems
    assert (problems != []) == reason.startswith("?")


def test_a_charge_without_a_call_is_found() -> None:
    assert join([], {}, {ID: ROW}).problems


def test_a_call_that_is_not_on_record_is_found() -> None:
    assert join([], {ID: [CALL]}, {}).problems
    assert join([WHOLE], {}, {}).problems


def test_a_call_of_the_provider_that_no_attempt_knows_is_found() -> None:
    row = replace(ROW, attempt_ids=(f"req_{OTHER}",))

    assert join([WHOLE], {ID: [CALL]}, {ID: row}).problems


def test_an_end_that_was_seen_and_not_charged_is_found() -> None:
    assert join([WHOLE], {ID: [CALL]}, {ID: REAPED}).problems
    assert join([WHOLE], {ID: [CALL]}, {ID: replace(REAPED, late_nanos=30_000)}).problems == []


@pytest.mark.parametrize("fault", ["bad_usage", "no_usage"])
def test_an_end_without_usage_to_go_by_is_paid_by_estimate(fault: str) -> None:
    call = replace(CALL, fault=fault)

    assert join([WHOLE], {ID: [call]}, {ID: REAPED}).problems
    assert join([WHOLE], {ID: [call]}, {ID: replace(REAPED, late_nanos=29_000)}).problems == []
    assert join([WHOLE], {ID: [CALL]}, {ID: replace(REAPED, late_nanos=29_000)}).problems


def test_a_checkpoint_that_was_estimated_above_the_report_is_kept() -> None:
    row = replace(REAPED, usage_source="checkpoint", charge_nanos=31_000)

    assert join([WHOLE], {ID: [CALL]}, {ID: row}).problems == []
    assert join([WHOLE], {ID: [CALL]}, {ID: replace(row, charge_nanos=29_000)}).problems
    assert explain([CALL], row) == [
        ("the gateway died: a checkpoint above what was reported later", 1_000)
    ]


def test_an_error_that_clients_retry_and_that_was_charged_is_found() -> None:
    refused = Seen("plain", status=502, request_id=str(ID), is_free=True)
    row = replace(ROW, state="upstream_interrupted")

    assert join([refused], {ID: [CALL]}, {ID: row}).problems


@pytest.mark.parametrize(
    ("tail", "is_clean", "is_problem"),
    [
        (b'data: {"choices":[]}\n\ndata: [DONE]\n\n', True, False),
        (b'data: {"choices":[]}\n\n', True, True),
        (b'data: {"choices":[]}\n\n', False, False),
        (b'data: {"error":{"code":"upstream_interrupted"}}\n\n', False, False),
        (b'data: {"error":{"code":"upstream_interrupted"}}\n\n', True, True),
        (b'data: {"error":{"message":"sk-audit-0123456789abcdefghijklmnop"}}\n\n', False, True),
    ],
)
def test_a_stream_ends_with_its_end_or_not_cleanly(
    tail: bytes, is_clean: bool, is_problem: bool
) -> None:
    seen = Seen("plain", status=200, is_stream=True, is_clean=is_clean)

    seen.note_stream(tail)

    assert bool(seen.problems) == is_problem
