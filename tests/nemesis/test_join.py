"""The joined logs: what is explained, and that what is wrong is found (a control)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from tests.nemesis.calling import Answer
from tests.nemesis.join import (
    LOST_ATTEMPT,
    Recorded,
    Upstream,
    check_keys,
    explain,
    join,
    mark_repeats,
    read_upstream,
)
from tests.nemesis.keyed import KeyLog
from tests.nemesis.raw import Unchunker
from tests.nemesis.refusals import read_refusal
from tests.nemesis.seen import IN_THE_STREAM, Seen
from tests.nemesis.surfaces import (
    ANTHROPIC,
    GEMINI,
    GEMINI_ARRAY,
    OPENAI,
    RESPONSES,
    Follower,
    Surface,
)

ID = UUID("01a220fa-c536-703c-abf9-8bb80d2a021f")
OTHER_ID = UUID("01a220fa-c536-703c-abf9-8bb80d2a0220")
THIRD_ID = UUID("01a220fa-c536-703c-abf9-8bb80d2a0221")
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
        (replace(REAPED, late_nanos=34_000, late_source="estimated"),
         "settled late by the owner: estimated", 4_000),
        (replace(REAPED, late_nanos=34_000, late_source="reported"),
         "?late, beyond what the provider reported", 4_000),
        (replace(REAPED, charge_nanos=31_000),
         "?the gateway died: charged without a checkpoint", 1_000),
        (replace(ROW, is_suspect=True, charge_nanos=90_001),
         "?more than the hold and than what the provider counted", 60_001),
        (replace(ROW, is_suspect=True, charge_nanos=90_000),
         "?usage that cannot be true: cut at the hold, and nothing was wrong with it", 60_000),
        (replace(ROW, state="client_disconnected", charge_nanos=22_000),
         "?the client left, and usage was reported", -8_000),
    ],
)  # fmt: skip
def test_each_difference_has_its_reason_or_is_a_finding(
    row: Recorded, reason: str, nanos: int
) -> None:
    assert explain([CALL], row) == [(reason, nanos)]
    problems = join([], {ID: [CALL]}, {ID: row}).problems
    assert (problems != []) == reason.startswith("?")


def test_usage_that_cannot_be_true_costs_the_hold() -> None:
    row = replace(ROW, is_suspect=True, charge_nanos=90_000)

    assert explain([replace(CALL, fault="bad_usage")], row) == [
        ("usage that cannot be true: cut at the hold", 60_000)
    ]


def test_what_google_has_told_by_then_is_charged_where_a_client_leaves() -> None:
    call = replace(CALL, dialect="gemini", has_usage=False)
    row = replace(ROW, state="client_disconnected", charge_nanos=22_000)

    assert explain([call], row) == [("the client left: what was told by then", -8_000)]
    more = replace(row, charge_nanos=31_000)
    assert explain([call], more) == [("?the client left, and usage was reported", 1_000)]


def test_the_last_attempt_is_found_where_its_id_is_not_known() -> None:
    lost = replace(LOST, started_at=2.0)
    row = replace(
        ROW, attempt_count=2, attempt_ids=("", ""), attempt_models=(LOST.model, CALL.model)
    )

    assert explain([CALL, lost], row) == [(LOST_ATTEMPT, -18_000), ("exact", 0)]


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


@pytest.mark.parametrize("how", [{"error": IN_THE_STREAM}, {"has_left": True}])
def test_what_never_reached_the_owner_is_paid_by_estimate(how: dict[str, Any]) -> None:
    """Its client was told that the answer broke off, or had left and nobody read on; who saw it
    whole pays what was counted.
    """
    row = replace(REAPED, late_nanos=34_000)
    unfinished = replace(WHOLE, is_whole=False, **how)

    assert join([unfinished], {ID: [CALL]}, {ID: row}).problems == []
    assert join([WHOLE], {ID: [CALL]}, {ID: row}).problems
    assert join([unfinished], {ID: [CALL]}, {ID: replace(row, late_nanos=90_001)}).problems


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
    ("dialect", "status", "body", "is_found"),
    [
        ("openai", 502, b'{"error":{"type":"server_error","code":"upstream_error"}}', True),
        ("openai", 502, b'{"error":{"type":"server_error","code":"upstream_auth_error"}}', False),
        ("openai", 503, b'{"error":{"type":"server_error","code":"service_unavailable"}}', False),
        ("openai", 503, b'{"error":{"type":"server_error","code":"model_not_available"}}', False),
        ("openai-responses", 500, b'{"error":{"type":"server_error","code":"internal_error"}}',
         True),
        ("anthropic", 504, b'{"type":"error","error":{"type":"timeout_error"},"request_id":"1"}',
         True),
        ("anthropic", 503, b'{"type":"error","error":{"type":"api_error"},"request_id":"1"}',
         False),
        ("gemini", 503, b'{"error":{"code":503,"status":"UNAVAILABLE","details":'
         b'[{"reason":"MODEL_NOT_AVAILABLE"}]}}', True),
    ],
)  # fmt: skip
def test_an_error_that_follows_a_hold_and_is_not_on_record_is_found(
    dialect: str, status: int, body: bytes, is_found: bool
) -> None:
    seen = Seen("plain", dialect=dialect, status=status, request_id=str(ID))
    seen.note_refusal(body)

    assert bool(join([seen], {}, {}).problems) == is_found
    failed = Recorded("failed", "none", False, 0, 90_000, 1, "")
    assert join([seen], {}, {ID: failed}).problems == []


def test_a_key_that_was_charged_twice_or_answered_twice_is_found() -> None:
    row = replace(ROW, key="once")
    died = replace(REAPED, key="once")

    assert check_keys({"once": {str(ID)}}, {ID: row}) == []
    assert len(check_keys({}, {ID: row, OTHER_ID: row})) == 1
    both = {str(ID), str(OTHER_ID)}
    assert len(check_keys({"once": both}, {ID: row, OTHER_ID: row})) == 2
    assert check_keys({"once": both}, mark_repeats({ID: row, OTHER_ID: died})) == []
    assert len(check_keys({"once": both}, mark_repeats({ID: replace(row, charge_nanos=0),
                                                        OTHER_ID: died}))) == 1  # fmt: skip


def test_who_saw_an_end_that_its_repeat_was_charged_for_is_explained() -> None:
    died, row = replace(REAPED, key="once"), replace(ROW, key="once")

    assert join([WHOLE], {ID: [CALL]}, {ID: died, OTHER_ID: row}).problems
    rows = mark_repeats({ID: died, OTHER_ID: row})
    problems = join([WHOLE], {ID: [CALL], OTHER_ID: [CALL]}, rows).problems
    assert problems == []


def test_a_quote_that_was_charged_or_spent_twice_is_found() -> None:
    spent = Recorded("voided", "none", False, 0, 90_000, 0, "quote_spent")
    quote = Seen("quote", status=200, request_id=str(OTHER_ID), is_quote=True)
    call = replace(WHOLE, quote_id=str(OTHER_ID), request_id=str(ID))

    assert join([quote, call], {ID: [CALL]}, {ID: ROW, OTHER_ID: spent}).problems == []
    lapsed = replace(spent, error_code="quote_lapsed")
    assert join([quote], {}, {OTHER_ID: lapsed}).problems == []
    assert join([call], {ID: [CALL]}, {ID: ROW, OTHER_ID: lapsed}).problems
    assert join([quote], {}, {OTHER_ID: replace(lapsed, charge_nanos=1)}).problems
    again = replace(call, request_id=str(THIRD_ID))
    rows = {ID: ROW, OTHER_ID: spent, THIRD_ID: ROW}
    assert join([call, again], {ID: [CALL], THIRD_ID: [CALL]}, rows).problems


def test_the_provider_s_log_tells_what_was_reported_to_its_end() -> None:
    told = {
        "request_headers": {"x-request-id": str(ID)},
        "method": "POST",
        "path": "/v1beta/models/demo:streamGenerateContent",
        "started_at": 1.0,
        "input_tokens": 10,
        "output_tokens": 3,
        "usage_sent": True,
        "response_id": ANSWER,
        "model": "demo",
        "fault": "ok",
        "ended": "client_closed",
    }

    (left,) = read_upstream([told])[ID]
    (whole,) = read_upstream([told | {"ended": "done"}])[ID]
    (chat,) = read_upstream([told | {"path": "/v1/chat/completions"}])[ID]
    assert (left.dialect, left.has_usage, whole.has_usage) == ("gemini", False, True)
    assert (chat.dialect, chat.has_usage) == ("openai", True)
    assert read_upstream([told | {"method": "GET", "path": "/v1/responses/resp_1"}]) == {}


@pytest.mark.parametrize(
    ("surface", "data", "is_clean", "is_problem"),
    [
        (OPENAI, b'data: {"choices":[]}\n\ndata: [DONE]\n\n', True, False),
        (OPENAI, b'data: {"choices":[]}\n\n', True, True),
        (OPENAI, b'data: {"choices":[]}\n\n', False, False),
        (OPENAI, b'data: {"error":{"code":"upstream_interrupted"}}\n\n', False, False),
        (OPENAI, b'data: {"error":{"code":"upstream_interrupted"}}\n\n', True, True),
        (OPENAI, b'data: {"error":{"message":"sk-audit-0123456789abcdefghijklmnop"}}\n\n', False,
         True),
        (ANTHROPIC, b'event: message_stop\ndata: {"type":"message_stop"}\n\n', True, False),
        (ANTHROPIC, b'event: message_delta\ndata: {"type":"message_delta"}\n\n', True, True),
        (ANTHROPIC, b'event: error\ndata: {"type":"error"}\n\n', True, True),
        (ANTHROPIC, b'event: error\ndata: {"type":"error"}\n\n', False, False),
        (RESPONSES, b'event: response.completed\ndata: {"response":{}}\n\n', True, False),
        (RESPONSES, b'event: response.in_progress\ndata: {"response":{}}\n\n', True, True),
        (GEMINI, b'data: {"candidates":[{"finishReason":"STOP"}]}\r\n\r\n', True, False),
        (GEMINI, b'data: {"candidates":[{"content":{}}]}\r\n\r\n', True, True),
        (GEMINI_ARRAY, b'[{"candidates":[{"finishReason":"STOP"}]}\n]', True, False),
        (GEMINI_ARRAY, b'[{"candidates":[{"finishReason":"STOP"}]}', True, True),
        (GEMINI_ARRAY, b'[{"candidates":[]},\n{"error":{"code":503}}', False, False),
        (GEMINI_ARRAY, b'[{"candidates":[]},\n{"error":{"code":503}}\n]', True, True),
    ],
)  # fmt: skip
@pytest.mark.parametrize("size", [1, 7, 1_000])
def test_a_stream_ends_with_its_end_or_not_cleanly(
    surface: Surface, data: bytes, is_clean: bool, is_problem: bool, size: int
) -> None:
    seen = Seen("plain", status=200, is_stream=True, is_clean=is_clean)
    followed = Follower(surface)
    for at in range(0, len(data), size):
        followed.feed(data[at : at + size])

    seen.note_stream(followed)

    assert bool(seen.problems) == is_problem


@pytest.mark.parametrize("size", [1, 5, 1_000])
def test_words_are_counted_once_however_they_come(size: int) -> None:
    followed, framing = Follower(ANTHROPIC), Unchunker()
    body = b'data: {"type":"text_delta"}\n\n' * 12
    data = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    for at in range(0, len(data), size):
        followed.feed(framing.feed(data[at : at + size]))

    assert (followed.words, framing.is_complete) == (12, True)
    assert followed.tail == body


@pytest.mark.parametrize(
    ("dialect", "status", "body", "is_known"),
    [
        ("openai", 429, b'{"error":{"type":"insufficient_quota","code":'
         b'"project_spend_limit_exceeded"}}', True),
        ("openai", 429, b'{"error":{"type":"insufficient_quota","code":"slow_down"}}', False),
        ("anthropic", 402, b'{"type":"error","error":{"type":"billing_error"},"request_id":"1"}',
         True),
        ("anthropic", 429, b'{"type":"error","error":{"type":"billing_error"},"request_id":"1"}',
         False),
        ("gemini", 402, b'{"error":{"code":402,"status":"RESOURCE_EXHAUSTED","details":'
         b'[{"reason":"PROJECT_SPEND_LIMIT_EXCEEDED"}]}}', True),
        ("gemini", 402, b'{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","details":'
         b'[{"reason":"PROJECT_SPEND_LIMIT_EXCEEDED"}]}}', False),
        ("gemini", 500, b"<html>", False),
    ],
)  # fmt: skip
def test_what_is_not_in_the_table_of_errors_is_found(
    dialect: str, status: int, body: bytes, is_known: bool
) -> None:
    assert read_refusal(dialect, status, body).is_known == is_known


def test_a_replay_that_is_not_the_answer_is_found() -> None:
    first = Seen("keyed", status=200, request_id=str(ID), is_whole=True)
    part = Seen("keyed", status=200, request_id=str(ID))
    again = {"idempotent-replayed": "true"}
    log = KeyLog()

    assert log.note(Answer(part, {}, b"an ans")) == []
    assert log.note(Answer(first, {}, b"an answer")) == []
    assert log.note(Answer(first, again, b"an answer")) == []
    assert len(log.note(Answer(first, again, b"another"))) == 2
    assert len(log.note(Answer(first, {}, b"an answer"))) == 2
