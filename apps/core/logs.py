"""Log lines: one JSON object a line, bounded in length, credentials masked.

A line that is written while a request is being answered carries the request's id, wherever it comes
from, and the id that the client gave it where that is well-formed.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Final, NamedTuple
from uuid import UUID

from apps.core.crypto import redact

LINE_CHARACTERS_MAX = 8_000
# A character can take six bytes: `\u001b`.
LINE_BYTES_MAX: Final = 8_192
# Ends of lines for some readers, and commands for some terminals, that JSON leaves as they are.
_CONTROLS: Final = re.compile("[\x7f-\x9f\u2028\u2029]")
_CLIENT_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,128}")


class Origin(NamedTuple):
    """The request that the running task answers; its headers are read only where a line is.

    A tuple because each call makes one: a frozen dataclass takes three times as long.
    """

    request_id: UUID
    headers: Iterable[tuple[bytes, bytes]]

    @property
    def client_request_id(self) -> str:
        """The first `x-request-id` of the client, empty where it is none or not well-formed."""
        for name, value in self.headers:
            if name == b"x-request-id":
                return redact(value.decode()) if _CLIENT_ID.fullmatch(value) else ""
        return ""


origin: ContextVar[Origin | None] = ContextVar("origin", default=None)


class LineFormatter(logging.Formatter):
    """Formats a record as one line of JSON, so that no message can forge a second line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line for `record`."""
        text = record.getMessage()
        if record.exc_info and not _is_about_what_was_sent(record):
            text = f"{text}\n{self.formatException(record.exc_info)}"
        line = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": "",
        }
        found = origin.get()
        request_id = getattr(record, "request_id", None) or (found and found.request_id)
        if request_id:
            line["request_id"] = str(request_id)
        if found is not None and (client_request_id := found.client_request_id):
            line["client_request_id"] = client_request_id
        room = LINE_BYTES_MAX - len(_dump(line).encode())
        line["message"] = _cut(redact(text)[:LINE_CHARACTERS_MAX], room)
        return _dump(line)


def _is_about_what_was_sent(record: logging.LogRecord) -> bool:
    # A request that is refused has no place in the code worth showing; it would fill the log.
    return record.name.startswith("django.security.") or (
        record.name == "django.request" and record.levelno < logging.ERROR
    )


def _dump(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _cut(text: str, bytes_max: int) -> str:
    """Return the beginning of a text that takes no more bytes than this when it is written."""
    if len(_dump(text).encode(errors="backslashreplace")) - len('""') <= bytes_max:
        return text
    bytes_left = bytes_max
    for index, character in enumerate(text):
        bytes_left -= len(_dump(character).encode(errors="backslashreplace")) - len('""')
        if bytes_left < 0:
            return text[:index]
    return text
