"""The gateway's errors in Google's shape: what its SDKs raise, and whether they try again."""

from typing import Final

import orjson
import pytest

from apps.core.error_rows import ROWS
from apps.core.errors import GatewayError
from apps.proxy.dialects.gemini_errors import (
    gemini_body,
    gemini_in_band_event,
    gemini_name,
    gemini_status,
    known_code,
)
from tests.support.cases import for_all

# Of google.rpc.Code, as far as the gateway has a use for them.
NAMES: Final = {
    "ABORTED", "CANCELLED", "DEADLINE_EXCEEDED", "INTERNAL", "INVALID_ARGUMENT", "NOT_FOUND",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "UNAUTHENTICATED", "UNAVAILABLE", "UNIMPLEMENTED",
}  # fmt: skip
# By these alone google-genai 3.6 tries again, where it is told to try again at all.
RETRIED: Final = {408, 429, 500, 502, 503, 504}


@for_all(
    ("row", "status", "name"),
    [
        ("E01", 401, "UNAUTHENTICATED"),
        ("E05", 403, "PERMISSION_DENIED"),
        ("E07", 404, "NOT_FOUND"),
        ("E10", 405, "INVALID_ARGUMENT"),
        ("E11", 400, "INVALID_ARGUMENT"),
        ("E14", 400, "INVALID_ARGUMENT"),
        ("E15", 413, "INVALID_ARGUMENT"),
        ("E18", 408, "DEADLINE_EXCEEDED"),
        ("E19", 402, "RESOURCE_EXHAUSTED"),
        ("E20", 402, "RESOURCE_EXHAUSTED"),
        ("E21", 402, "RESOURCE_EXHAUSTED"),
        ("E22", 429, "RESOURCE_EXHAUSTED"),
        ("E25", 403, "PERMISSION_DENIED"),
        ("E26", 400, "INVALID_ARGUMENT"),
        ("E27", 409, "ABORTED"),
        ("E28", 422, "INVALID_ARGUMENT"),
        ("E31", 409, "ABORTED"),
        ("E32", 501, "UNIMPLEMENTED"),
        ("E33", 503, "UNAVAILABLE"),
        ("E34", 503, "UNAVAILABLE"),
        ("E41", 502, "UNAVAILABLE"),
        ("E43", 429, "RESOURCE_EXHAUSTED"),
        ("E48", 504, "DEADLINE_EXCEEDED"),
        ("E52", 501, "INTERNAL"),
        ("E60", 200, "UNAVAILABLE"),
        ("E61", 200, "INTERNAL"),
        ("E62", 499, "CANCELLED"),
        ("E70", 500, "INTERNAL"),
        ("E71", 501, "INTERNAL"),
    ],
)
def test_an_error_has_googles_status_and_name(row: str, status: int, name: str) -> None:
    error = GatewayError(row)

    assert (gemini_status(error), gemini_name(error)) == (status, name)


@for_all("row", ROWS)
def test_every_error_has_a_name_that_google_knows_and_a_small_body(row: str) -> None:
    error = GatewayError(row, message='"' * 5000, param='"' * 500)

    body = gemini_body(error, "req_1")

    told = orjson.loads(body)["error"]
    assert body.startswith(b'{"error":')
    assert list(told) == ["code", "message", "status", "details"]
    assert told["status"] in NAMES
    assert len(body) <= 4096


@for_all("row", ROWS)
def test_what_must_not_be_sent_again_has_no_status_that_is_tried_again(row: str) -> None:
    error = GatewayError(row)

    assert not (error.should_retry is False and gemini_status(error) in RETRIED)


@for_all("row", ROWS)
def test_the_code_is_the_status_or_what_an_sdk_raises_once_a_stream_has_begun(row: str) -> None:
    error = GatewayError(row)

    code = orjson.loads(gemini_body(error, "req_1"))["error"]["code"]

    assert 400 <= code < 600
    assert gemini_status(error) in (code, 200)


def test_details_tell_reason_parameter_request_and_wait() -> None:
    refused = GatewayError("E14", param="tools[0].googleSearch", message="No.")
    limited = GatewayError("E22", retry_after=7)

    details = orjson.loads(gemini_body(refused, "req_1"))["error"]["details"]
    wait = orjson.loads(gemini_body(limited, "req_1"))["error"]["details"][-1]

    assert details == [
        {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "UNSUPPORTED_PARAMETER"},
        {"@type": "type.googleapis.com/google.rpc.RequestInfo", "requestId": "req_1"},
        {
            "@type": "type.googleapis.com/google.rpc.BadRequest",
            "fieldViolations": [{"field": "tools[0].googleSearch"}],
        },
    ]
    assert wait == {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "7s"}


def test_an_error_in_a_stream_is_an_event_that_begins_with_it() -> None:
    event = gemini_in_band_event(GatewayError("E60", message="Cut."), "req_1")

    assert event.startswith(b'data: {"error":{"code":503,"message":"Cut.","status":"UNAVAILABLE",')
    assert event.endswith(b"}\n\n")


@pytest.mark.parametrize("document", [{}, {"error": None}, {"error": 1}, {"error": {"status": 1}}])
def test_an_error_without_a_known_name_has_no_code(document: dict[str, object]) -> None:
    assert known_code(document) is None
