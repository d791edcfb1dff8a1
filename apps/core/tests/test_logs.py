"""A log line is one line, bounded, and holds no credential."""

from __future__ import annotations

import json
import logging
import sys
from contextvars import copy_context
from uuid import UUID

import pytest

from apps.core.logs import LINE_CHARACTERS_MAX, LineFormatter, Origin, origin


def _record(message: str, **extra: object) -> logging.LogRecord:
    record = logging.LogRecord("apps.test", logging.WARNING, __file__, 1, message, (), None)
    record.__dict__.update(extra)
    return record


def test_a_message_cannot_forge_a_second_line() -> None:
    line = LineFormatter().format(_record('one\ntwo\r\n{"level": "info"}\x1b[31m'))

    assert "\n" not in line
    assert "\x1b" not in line
    assert json.loads(line)["message"] == 'one\ntwo\r\n{"level": "info"}\x1b[31m'


@pytest.mark.parametrize(
    "text",
    ["\x1b", "\x9b", "\u2028", "\u2029", "\x85", "\x7f", '"', "\\", "ä", "😀", "\udc80", "x"],
)
def test_a_line_is_one_line_of_eight_kilobytes_whatever_it_holds(text: str) -> None:
    line = LineFormatter().format(_record(text * 10_000, request_id="0190"))

    raw = line.encode(errors="backslashreplace")
    assert 8_000 < len(raw) <= 8_192
    assert len(line.splitlines()) == 1
    assert all(character.isprintable() or character == "\udc80" for character in line)
    assert set(json.loads(raw)["message"]) == {text}


def test_credentials_are_masked_also_in_tracebacks() -> None:
    record = _record("failed")
    try:
        raise ValueError("Bearer abcdefghijkl refused")
    except ValueError:
        record.exc_info = sys.exc_info()

    line = LineFormatter().format(record)

    assert "abcdefghijkl" not in line
    assert "[redacted]" in line


def test_what_a_client_sent_brings_no_traceback() -> None:
    record = _record("Invalid HTTP_HOST header: '&R'.")
    record.name = "django.security.DisallowedHost"
    try:
        raise ValueError("no host")
    except ValueError:
        record.exc_info = sys.exc_info()

    line = LineFormatter().format(record)

    assert json.loads(line)["message"] == "Invalid HTTP_HOST header: '&R'."


def test_a_line_is_bounded_and_carries_the_request_id() -> None:
    line = LineFormatter().format(_record("x" * 1_000_000, request_id="0190"))

    assert len(json.loads(line)["message"]) == LINE_CHARACTERS_MAX
    assert json.loads(line)["request_id"] == "0190"


def _line_about(headers: list[tuple[bytes, bytes]], **extra: object) -> dict[str, str]:
    def write() -> str:
        origin.set(Origin(UUID("01900000-0000-7000-8000-000000000001"), headers))
        return LineFormatter().format(_record("failed", **extra))

    found: dict[str, str] = json.loads(copy_context().run(write))
    return found


def test_a_line_written_while_a_request_is_answered_carries_its_ids() -> None:
    line = _line_about([(b"host", b"x"), (b"x-request-id", b"client-17.a_b")])

    assert line["request_id"] == "01900000-0000-7000-8000-000000000001"
    assert line["client_request_id"] == "client-17.a_b"


def test_a_line_about_another_call_carries_the_id_of_that_one() -> None:
    assert _line_about([], request_id="0190")["request_id"] == "0190"


@pytest.mark.parametrize(
    "value", [b"", b"two words", b"a\xff", b"x" * 129, b'{"level":"critical"}', "ä".encode()]
)
def test_an_id_of_a_client_that_is_not_well_formed_is_left_out(value: bytes) -> None:
    assert "client_request_id" not in _line_about([(b"x-request-id", value)])


def test_a_key_that_a_client_sends_as_its_id_is_masked() -> None:
    line = _line_about([(b"x-request-id", b"sk-abcdefghijklmnopqrstuvwxyz")])

    assert "abcdefgh" not in line["client_request_id"]
