"""Rows E11, E17 and E18 of the error table: heads and bodies that are no whole HTTP.

They are answered in the dialect of the path, as far as it has come.
"""

from __future__ import annotations

import time

import pytest

from tests.e2e.answers import HttpAnswer, Told, check_told
from tests.e2e.rows import CHAT, CONSTANTS, INVALID, PLANT, check_nothing_happened, parse_answer
from tests.e2e.wire import RawConnection, head_of, post_bytes
from tests.support.bench import Bench

__all__ = ["CONSTANTS", "PLANT"]

# Decided by what the gateway has in memory, before any database is asked.
pytestmark = pytest.mark.sqlite

BROKEN = Told(400, INVALID, "invalid_json", "invalid_request_error", "INVALID_ARGUMENT")
LATE = Told(408, INVALID, "request_timeout", "timeout_error", "DEADLINE_EXCEEDED")
# Paths that tell the dialect in which they are answered.
SPOKEN = [
    (CHAT, "openai"),
    ("/v1/responses", "openai-responses"),
    ("/v1/messages", "anthropic"),
    ("/api/v1/%6Dessages/count_tokens", "anthropic"),
    ("/v1beta/models/a:generateContent", "gemini"),
    ("/v1/models/a:streamGenerateContent", "gemini"),
]


def _send(bench: Bench, request: str) -> HttpAnswer:
    """Return the only answer to what is sent, after which the gateway closes."""
    with RawConnection(bench.gateway.port) as connection:
        connection.send(request.encode("latin-1"))
        received = connection.read_all()
    assert received.count(b"HTTP/1.1 ") == 1
    return HttpAnswer(*parse_answer(received))


@pytest.mark.parametrize(("path", "dialect"), SPOKEN)
@pytest.mark.parametrize(
    "broken",
    [
        "{path} HTTP/1.1\r\nno colon: canary\r\n canary\r\n\r\n",
        "{path}?canary HTTP/1.1\r\nContent-Length: canary\r\n\r\n",
        "{path} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\ncanary\r\n",
    ],
    ids=["a name with a space", "a length that is none", "a chunk that is none"],
)
def test_e11_what_is_no_http(bench: Bench, path: str, dialect: str, broken: str) -> None:
    answer = _send(bench, "POST " + broken.format(path=path))

    check_told(answer, BROKEN, dialect, connection="close")


@pytest.mark.parametrize(
    "request_line",
    [
        "canary",
        "POST canary HTTP/1.1",
        "POST http://canary/v1/messages HTTP/1.1",
        "* /v1/messages",
        "CANARY /v1/messages HTTP/1.1",
    ],
)
def test_e11_what_tells_no_path(bench: Bench, request_line: str) -> None:
    answer = _send(bench, f"{request_line}\r\nHost: gateway\r\n\r\n")

    check_told(answer, BROKEN, "openai", connection="close")


@pytest.mark.parametrize(("path", "dialect"), SPOKEN)
@pytest.mark.parametrize(
    ("query", "lines", "status"),
    [
        ("", ["X-Long: canary" + "a" * 70_000], 431),
        ("", [f"X-{number}: canary" for number in range(120)], 431),
        ("?canary" + "a" * 9_000, [], 414),
        ("?canary" + "a" * 70_000, [], 414),
    ],
    ids=["a long header", "many headers", "a long address", "an endless address"],
)
def test_e17_a_head_that_is_too_large(
    bench: Bench,
    path: str,
    dialect: str,
    query: str,
    lines: list[str],
    status: int,
) -> None:
    head = [f"POST {path}{query} HTTP/1.1", "Host: gateway", *lines, "", ""]

    answer = _send(bench, "\r\n".join(head))

    told = Told(status, INVALID, "header_too_large", "invalid_request_error", "INVALID_ARGUMENT")
    check_told(answer, told, dialect, connection="close")


@pytest.mark.parametrize(
    ("header", "dialect"),
    [("Accept", "openai"), ("anthropic-version", "anthropic"), ("x-goog-api-key", "gemini")],
)
def test_e17_who_asks_for_models_tells_his_dialect_in_a_header(
    bench: Bench, header: str, dialect: str
) -> None:
    lines = "".join(f"X-{number}: canary\r\n" for number in range(120))

    answer = _send(bench, f"GET /v1/models HTTP/1.1\r\n{header}: canary\r\n{lines}\r\n")

    told = Told(431, INVALID, "header_too_large", "invalid_request_error", "INVALID_ARGUMENT")
    check_told(answer, told, dialect, connection="close")


def test_e17_a_head_request_has_the_headers_of_an_error_and_no_body(bench: Bench) -> None:
    lines = "".join(f"X-{number}: canary\r\n" for number in range(120))

    answer = _send(bench, f"HEAD /v1/models HTTP/1.1\r\n{lines}\r\n")

    assert (answer.status, answer.body) == (431, b"")
    assert int(answer.headers["content-length"]) > 0


def test_a_body_that_was_answered_already_is_not_read_for_ever(bench: Bench) -> None:
    head = _endless_without_a_key()
    piece = b"100000\r\n" + bytes(1 << 20) + b"\r\n"

    with RawConnection(bench.gateway.port) as connection:
        connection.send(head)
        received = connection.read_until(b"missing_api_key")
        taken = sum(connection.send_some(piece) for _ in range(200))

    assert head_of(received)[0] == 401
    # What is allowed to a body, and what the kernel keeps.
    assert 32 <= taken < 64


def test_a_body_that_was_answered_already_is_not_waited_for(bench: Bench) -> None:
    with RawConnection(bench.gateway.port) as connection:
        connection.send(_endless_without_a_key())
        connection.read_until(b"missing_api_key")
        drips = 0
        while connection.send_some(b"1\r\n \r\n") and drips < 100:
            drips += 1
            time.sleep(0.1)
        received = connection.read_all()

    assert received.count(b"HTTP/1.1 ") == 1
    assert 5 < drips < 50


def _endless_without_a_key() -> bytes:
    return (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\n"
        b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    )


@pytest.mark.parametrize(("path", "dialect"), SPOKEN)
def test_e18_a_body_that_does_not_arrive(bench: Bench, path: str, dialect: str) -> None:
    stage = bench.stage()
    request = post_bytes(stage.caller, b'{"model": "x"}', path)

    answer = _send(bench, request[:-5].decode())

    check_told(answer, LATE, dialect, retries=True, connection="close")
    check_nothing_happened(stage)


@pytest.mark.parametrize(("path", "dialect"), SPOKEN)
def test_e18_a_head_that_does_not_arrive(bench: Bench, path: str, dialect: str) -> None:
    answer = _send(bench, f"POST {path} HTTP/1.1\r\nHost: canary")

    check_told(answer, LATE, dialect, retries=True, connection="close")
