import json

import pytest

from apps.core.error_rows import ROWS
from apps.core.errors import GatewayError, in_band_event, openai_body, openai_headers
from tests.support.cases import for_all

# row: status, type, code, Retry-After, x-should-retry, extra headers
EXPECTED = {
    "E01": (401, "invalid_request_error", "missing_api_key", None, None, "www-authenticate"),
    "E02": (401, "invalid_request_error", "invalid_api_key", None, None, "www-authenticate"),
    "E03": (
        401,
        "invalid_request_error",
        "conflicting_credentials",
        None,
        None,
        "www-authenticate",
    ),
    "E04": (401, "invalid_request_error", "api_key_disabled", None, None, "www-authenticate"),
    "E05": (403, "invalid_request_error", "account_disabled", None, None, ""),
    "E06": (403, "invalid_request_error", "ip_not_authorized", None, None, ""),
    "E07": (404, "invalid_request_error", "model_not_found", None, None, ""),
    "E08": (403, "invalid_request_error", "insufficient_scope", None, None, ""),
    "E09": (404, "invalid_request_error", "unknown_url", None, None, ""),
    "E10": (405, "invalid_request_error", "method_not_supported", None, None, "allow"),
    "E11": (400, "invalid_request_error", "invalid_json", None, None, ""),
    "E12": (400, "invalid_request_error", "duplicate_parameter", None, None, ""),
    "E13": (400, "invalid_request_error", "invalid_value", None, None, ""),
    "E14": (400, "invalid_request_error", "unsupported_parameter", None, None, ""),
    "E15": (413, "invalid_request_error", "request_too_large", None, None, "connection"),
    "E16": (415, "invalid_request_error", "unsupported_media_type", None, None, "accept"),
    "E17": (431, "invalid_request_error", "header_too_large", None, None, "connection"),
    "E18": (408, "invalid_request_error", "request_timeout", None, None, "connection"),
    "E19": (429, "insufficient_quota", "credit_balance_exhausted", None, False, ""),
    "E20": (429, "insufficient_quota", "project_spend_limit_exceeded", None, False, ""),
    "E21": (429, "insufficient_quota", "organization_spend_limit_exceeded", None, False, ""),
    "E22": (429, "requests", "rate_limit_exceeded", 1, None, ""),
    "E23": (429, "tokens", "rate_limit_exceeded", 1, None, ""),
    "E24": (429, "rate_limit_error", "slow_down", 1, None, ""),
    "E25": (403, "invalid_request_error", "request_blocked", None, None, ""),
    "E26": (400, "invalid_request_error", "content_policy_violation", None, None, ""),
    "E27": (409, "idempotency_error", "idempotency_in_progress", 1, None, ""),
    "E28": (422, "idempotency_error", "idempotency_key_reused", None, None, ""),
    "E29": (400, "idempotency_error", "invalid_idempotency_key", None, None, ""),
    "E31": (409, "idempotency_error", "idempotent_result_unavailable", None, False, ""),
    "E32": (503, "server_error", "model_not_available", None, False, ""),
    "E33": (503, "service_unavailable_error", "server_is_overloaded", 5, None, ""),
    "E34": (503, "server_error", "service_unavailable", 2, None, ""),
    "E35": (503, "server_error", "service_unavailable", 5, None, ""),
    "E36": (503, "server_error", "service_restarting", 1, None, "connection"),
    "E37": (503, "service_unavailable_error", "server_is_overloaded", 1, None, ""),
    "E40": (400, "invalid_request_error", "invalid_request", None, None, ""),
    "E41": (502, "server_error", "upstream_auth_error", 5, None, ""),
    "E42": (503, "server_error", "upstream_unavailable", 5, None, ""),
    "E43": (429, "rate_limit_error", "upstream_rate_limited", 1, None, ""),
    "E44": (503, "server_error", "model_not_available", 5, None, ""),
    "E45": (413, "invalid_request_error", "request_too_large", None, None, ""),
    "E46": (502, "server_error", "upstream_error", 1, None, ""),
    "E47": (502, "server_error", "upstream_unreachable", 1, None, ""),
    "E48": (504, "server_error", "upstream_timeout", 1, None, ""),
    "E49": (502, "server_error", "upstream_invalid_response", 1, None, ""),
    "E51": (502, "server_error", "upstream_invalid_response", 1, None, ""),
    "E52": (502, "server_error", "upstream_response_too_large", None, False, ""),
    "E53": (503, "server_error", "upstream_error", 1, None, ""),
    "E54": (404, "invalid_request_error", "model_not_supported", None, None, ""),
    "E60": (200, "server_error", "upstream_interrupted", None, None, ""),
    "E61": (200, "server_error", "stream_limit_exceeded", None, None, ""),
    "E62": (499, "invalid_request_error", "client_disconnected", None, None, ""),
    "E64": (200, "server_error", "gateway_crashed", None, None, ""),
    "E66": (200, "server_error", "service_restarting", None, None, ""),
    "E70": (500, "server_error", "internal_error", None, None, ""),
    "E71": (500, "server_error", "internal_error", None, False, ""),
}


def test_the_table_has_exactly_the_rows_of_the_specification() -> None:
    assert list(ROWS) == list(EXPECTED)


@for_all("row", EXPECTED)
def test_a_row_answers_as_specified(row: str) -> None:
    error = GatewayError(row)

    extra = ",".join(name.decode() for name, _ in error.headers)
    assert (
        error.status,
        error.type,
        error.code,
        error.retry_after,
        error.should_retry,
        extra,
    ) == EXPECTED[row]
    assert error.row == row
    assert error.param is None


@pytest.mark.parametrize(
    ("row", "is_refusal"), [("E01", True), ("E37", True), ("E40", False), ("E71", False)]
)
def test_what_is_answered_before_a_provider_was_asked_is_a_refusal(
    row: str, is_refusal: bool
) -> None:
    assert GatewayError(row).is_refusal is is_refusal


def test_the_body_has_the_shape_of_openai() -> None:
    error = GatewayError("E07", param="model")

    assert json.loads(openai_body(error)) == {
        "error": {
            "message": "The model does not exist or you do not have access to it.",
            "type": "invalid_request_error",
            "param": "model",
            "code": "model_not_found",
        }
    }


def test_the_headers_identify_the_request_and_forbid_storing_and_sniffing() -> None:
    assert openai_headers(GatewayError("E02"), "req_1") == [
        (b"content-type", b"application/json; charset=utf-8"),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
        (b"x-request-id", b"req_1"),
        (b"request-id", b"req_1"),
        (b"www-authenticate", b"Bearer"),
    ]


def test_an_empty_balance_stops_the_sdks_from_retrying() -> None:
    headers = dict(openai_headers(GatewayError("E19"), "req_1"))

    assert headers[b"x-should-retry"] == b"false"
    assert b"retry-after" not in headers


@pytest.mark.parametrize(("asked", "sent"), [(-5, 1), (0, 1), (7, 7), (60, 60), (86_400, 60)])
def test_retry_after_stays_between_1_and_60(asked: int, sent: int) -> None:
    headers = dict(openai_headers(GatewayError("E22", retry_after=asked), "req_1"))

    assert headers[b"retry-after"] == b"%d" % sent


def test_retry_after_is_not_sent_where_waiting_does_not_help() -> None:
    assert GatewayError("E19", retry_after=30).retry_after is None


def test_a_header_of_the_row_can_be_replaced() -> None:
    assert GatewayError("E10", headers=[("Allow", "GET, HEAD")]).headers == (
        (b"allow", b"GET, HEAD"),
    )


def test_a_header_cannot_be_split() -> None:
    with pytest.raises(ValueError, match="control characters"):
        GatewayError("E22", headers=[("x-ratelimit-reset-requests", "1s\r\nset-cookie: a=b")])


def test_only_codes_and_statuses_of_the_row_can_be_chosen() -> None:
    assert GatewayError("E04", code="api_key_expired").code == "api_key_expired"
    assert GatewayError("E17", status=414).status == 414
    with pytest.raises(ValueError, match="E04"):
        GatewayError("E04", code="invalid_api_key")
    with pytest.raises(ValueError, match="E04"):
        GatewayError("E04", status=403)


@pytest.mark.parametrize(
    "text", ["\x00" * 9_000, '"' * 9_000, "\\" * 9_000, "日" * 9_000, "\ud800" * 9_000]
)
def test_no_body_is_larger_than_4_kb(text: str) -> None:
    body = openai_body(GatewayError("E13", message=text, param=text))

    assert len(body) <= 4_096
    assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}


def test_the_in_band_event_is_one_complete_event() -> None:
    event = in_band_event(GatewayError("E60", message="cut\r\n\r\ndata: [DONE]"))

    assert event.startswith(b'data: {"error":{"message":"cut')
    assert event.endswith(b'"code":"upstream_interrupted"}}\n\n')
    assert event.count(b"\n") == 2
    assert b"\r" not in event


def test_a_status_the_sdks_retry_never_asks_for_more_than_a_minute() -> None:
    seconds = [row.retry_after for row in ROWS.values() if row.retry_after is not None]

    assert min(seconds) >= 1
    assert max(seconds) <= 60


def test_a_row_that_forbids_retrying_names_no_time_to_wait() -> None:
    assert [
        name for name, row in ROWS.items() if row.should_retry is False and row.retry_after
    ] == []
