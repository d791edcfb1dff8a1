"""What a provider may do before the first event, and what a client is told of it."""

from __future__ import annotations

from dataclasses import dataclass

from tests.e2e.rows import INVALID


@dataclass(frozen=True)
class Failed:
    """A fault of the provider before the first event."""

    row: str
    fault: str
    status: int
    code: str
    type: str = "server_error"
    param: str | None = None
    retries: bool = True
    has_retry_after: bool = True
    tries: int = 1  # upstream calls for one call of ours
    stream: bool | None = None  # None: both


FAILED = [
    Failed("E40", "status(400,context_length_exceeded)", 400, "context_length_exceeded", INVALID,
           "messages", False, False),
    Failed("E40", "status(422)", 422, "invalid_value", INVALID, "messages", False, False),
    Failed("E40", "status(400,some_secret_code)", 400, "invalid_request", INVALID, "messages",
           False, False),
    Failed("E43", "status(429)", 429, "upstream_rate_limited", "rate_limit_error"),
    Failed("E44", "status(404)", 503, "model_not_available"),
    Failed("E45", "status(413)", 413, "request_too_large", INVALID, None, False, False),
    Failed("E46", "status(500)", 502, "upstream_error"),
    Failed("E46", "status(503)", 503, "upstream_error"),
    Failed("E46", "status(529)", 503, "upstream_error"),
    Failed("E46", "echo_headers", 502, "upstream_error"),
    Failed("E46", "html(502)", 502, "upstream_error"),
    Failed("E46", "cut_after(0)", 502, "upstream_error"),
    Failed("E47", "cut_after(-1)", 502, "upstream_unreachable", tries=2),
    Failed("E47", "rst_after(-1)", 502, "upstream_unreachable", tries=2),
    Failed("E48", "slow_first(30)", 504, "upstream_timeout"),
    Failed("E48", "stall_after(-1)", 504, "upstream_timeout"),
    Failed("E49", "html", 502, "upstream_invalid_response"),
    Failed("E49", "garbage", 502, "upstream_invalid_response"),
    Failed("E49", "wrong_shape", 502, "upstream_invalid_response"),
    Failed("E49", "gzip_unasked", 502, "upstream_invalid_response"),
    Failed("E49", "gzip_bomb(4000000)", 502, "upstream_invalid_response"),
    Failed("E51", "redirect", 502, "upstream_invalid_response"),
    Failed("E52", "big_body(34000000)", 502, "upstream_response_too_large", retries=False,
           has_retry_after=False, stream=False),
    Failed("E53", "err_event_first", 503, "upstream_error", stream=True),
]  # fmt: skip
