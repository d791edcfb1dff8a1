"""The gateway's errors in Anthropic's shape: what its SDKs raise, and whether they try again."""

from typing import Final

import orjson

from apps.core.error_rows import ROWS
from apps.core.errors import GatewayError
from apps.proxy.dialects.anthropic_errors import (
    anthropic_body,
    anthropic_in_band_event,
    anthropic_status,
    anthropic_type,
)
from tests.support.cases import for_all

# Of SDK 2.11, and `request_too_large` of the documentation.
TYPES: Final = {
    "api_error", "authentication_error", "billing_error", "conflict_error",
    "invalid_request_error", "not_found_error", "overloaded_error", "permission_error",
    "rate_limit_error", "request_too_large", "timeout_error",
}  # fmt: skip


@for_all(
    ("row", "status", "kind"),
    [
        ("E01", 401, "authentication_error"),
        ("E05", 403, "permission_error"),
        ("E07", 404, "not_found_error"),
        ("E08", 403, "permission_error"),
        ("E10", 405, "invalid_request_error"),
        ("E11", 400, "invalid_request_error"),
        ("E14", 400, "invalid_request_error"),
        ("E15", 413, "request_too_large"),
        ("E16", 415, "invalid_request_error"),
        ("E18", 408, "timeout_error"),
        ("E19", 402, "billing_error"),
        ("E20", 402, "billing_error"),
        ("E21", 402, "billing_error"),
        ("E22", 429, "rate_limit_error"),
        ("E27", 409, "conflict_error"),
        ("E28", 422, "invalid_request_error"),
        ("E32", 503, "api_error"),
        ("E33", 529, "overloaded_error"),
        ("E34", 503, "api_error"),
        ("E36", 503, "overloaded_error"),
        ("E37", 529, "overloaded_error"),
        ("E41", 502, "api_error"),
        ("E43", 429, "rate_limit_error"),
        ("E46", 502, "api_error"),
        ("E48", 504, "timeout_error"),
        ("E60", 200, "api_error"),
        ("E70", 500, "api_error"),
    ],
)
def test_an_error_has_anthropics_status_and_type(row: str, status: int, kind: str) -> None:
    error = GatewayError(row)

    assert (anthropic_status(error), anthropic_type(error)) == (status, kind)


def test_an_overloaded_upstream_is_told_as_such() -> None:
    error = GatewayError("E46", status=503)

    assert (anthropic_status(error), anthropic_type(error)) == (529, "overloaded_error")


@for_all("row", ROWS)
def test_every_error_has_a_type_that_the_sdks_know_and_a_small_body(row: str) -> None:
    error = GatewayError(row, message="x" * 5000, param="p" * 500)

    body = anthropic_body(error, "req_1")

    told = orjson.loads(body)
    assert set(told) == {"type", "error", "request_id"}
    assert (told["type"], told["request_id"]) == ("error", "req_1")
    assert set(told["error"]) == {"type", "message"}
    assert told["error"]["type"] in TYPES
    assert len(body) <= 4096


def test_the_parameter_is_told_once() -> None:
    named = GatewayError("E14", param="tools[0]", message="'tools[0]' is not supported.")
    unnamed = GatewayError("E14", param="tools[0]", message="Not supported.")

    assert orjson.loads(anthropic_body(named, "r"))["error"]["message"] == (
        "'tools[0]' is not supported."
    )
    assert orjson.loads(anthropic_body(unnamed, "r"))["error"]["message"] == (
        "tools[0]: Not supported."
    )


def test_an_error_in_a_stream_has_its_event_line() -> None:
    event = anthropic_in_band_event(GatewayError("E60", message="Cut."), "req_1")

    assert event == (
        b"event: error\n"
        b'data: {"type":"error","error":{"type":"api_error","message":"Cut."},'
        b'"request_id":"req_1"}\n\n'
    )


def test_who_wants_anthropic_to_keep_the_conversation_is_told_to_send_it_whole() -> None:
    refused = GatewayError("E14", param="thread")
    other = GatewayError("E14", param="threads")

    details = [
        orjson.loads(anthropic_body(error, "r"))["error"].get("details")
        for error in (refused, other)
    ]

    assert details == [{"error_code": "thread_unsupported_request"}, None]
