"""A log line is one line, bounded, and holds no credential."""

from __future__ import annotations

import json
import logging
import sys

from apps.core.logs import LINE_CHARACTERS_MAX, LineFormatter


def _record(message: str, **extra: object) -> logging.LogRecord:
    record = logging.LogRecord("apps.test", logging.WARNING, __file__, 1, message, (), None)
    record.__dict__.update(extra)
    return record


def test_a_message_cannot_forge_a_second_line() -> None:
    line = LineFormatter().format(_record('one\ntwo\r\n{"level": "info"}\x1b[31m'))

    assert "\n" not in line
    assert "\x1b" not in line
    assert json.loads(line)["message"] == 'one\ntwo\r\n{"level": "info"}\x1b[31m'


def test_credentials_are_masked_also_in_tracebacks() -> None:
    record = _record("failed")
    try:
        raise ValueError("Bearer abcdefghijkl refused")
    except ValueError:
        record.exc_info = sys.exc_info()

    line = LineFormatter().format(record)

    assert "abcdefghijkl" not in line
    assert "[redacted]" in line


def test_a_line_is_bounded_and_carries_the_request_id() -> None:
    line = LineFormatter().format(_record("x" * 1_000_000, request_id="0190"))

    assert len(json.loads(line)["message"]) == LINE_CHARACTERS_MAX
    assert json.loads(line)["request_id"] == "0190"
