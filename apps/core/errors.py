"""Every error a client of the gateway can meet: one row each, numbered E01 to E71.

A row fixes status, type, code and headers, because the official SDKs retry by themselves on 408,
409, 429 and 5xx unless told otherwise. A row with such a status and no `x-should-retry: false`
promises that nothing was charged. `docs/errors.md` is generated from ROWS, which also has what is
on record where there was nobody to tell.

Messages are for humans: no secret, no upstream text, nothing of another customer.
"""

from collections.abc import Iterable
from typing import Final

import orjson

from apps.core.error_rows import REFUSALS, ROWS, ErrorRow

RETRY_AFTER_SECONDS_MAX: Final = 60
_MESSAGE_BYTES_MAX: Final = 1500
_PARAM_BYTES_MAX: Final = 200

_COMMON_HEADERS: Final = (
    (b"content-type", b"application/json; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
)


class GatewayError(Exception):
    """An answer of ROWS, with what is particular to this one occurrence."""

    def __init__(
        self,
        row: str,
        *,
        message: str | None = None,
        code: str | None = None,
        param: str | None = None,
        status: int | None = None,
        retry_after: int | None = None,
        headers: Iterable[tuple[str, str]] = (),
    ) -> None:
        """Take the row's values where none are given.

        `code` and `status` must be among those the row lists; `retry_after` (seconds) is brought
        into 1…60, since the SDKs ignore or freeze on more, and ignored where the row forbids it.
        """
        template = ROWS[row]
        if code is not None and code not in template.codes:
            raise ValueError(f"{row} does not list the code {code!r}.")
        if status is not None and status not in template.statuses:
            raise ValueError(f"{row} does not list the status {status}.")
        self.row: Final = row
        self.status: Final = status or template.statuses[0]
        self.type: Final = template.type
        self.code: Final = code or template.codes[0]
        self.param: Final = None if param is None else _clean(param, _PARAM_BYTES_MAX)
        self.message: Final = _clean(message or template.message, _MESSAGE_BYTES_MAX)
        self.should_retry: Final = template.should_retry
        self.retry_after: Final = _retry_after(template, retry_after)
        self.headers: Final = _headers(template, headers)
        super().__init__(f"{row} {self.status} {self.code}: {self.message}")

    @property
    def is_refusal(self) -> bool:
        """Whether the gateway refused, before any provider was asked."""
        return self.row in REFUSALS


def _clean(text: str, bytes_max: int) -> str:
    """Return text that is valid UTF-8, on one line and at most `bytes_max` long."""
    encoded = text.encode("utf-8", "replace")[:bytes_max]
    printable = encoded.decode("utf-8", "ignore")
    return "".join(character if character.isprintable() else " " for character in printable)


def _retry_after(template: ErrorRow, asked: int | None) -> int | None:
    if template.retry_after is None:
        return None
    seconds = template.retry_after if asked is None else asked
    return min(max(seconds, 1), RETRY_AFTER_SECONDS_MAX)


def _headers(
    template: ErrorRow, extra: Iterable[tuple[str, str]]
) -> tuple[tuple[bytes, bytes], ...]:
    """Return the row's headers and the extra ones, which replace those of the same name."""
    merged = {name.lower(): value for name, value in template.headers}
    merged.update((name.lower(), value) for name, value in extra)
    for name, value in merged.items():
        if not (name.isascii() and name.isprintable() and value.isprintable()):
            raise ValueError("A header must not hold control characters.")
    return tuple((name.encode("ascii"), value.encode("latin-1")) for name, value in merged.items())


def openai_body(error: GatewayError) -> bytes:
    """Return the error in the JSON shape of OpenAI's routes, at most 4 KB."""
    return orjson.dumps(
        {
            "error": {
                "message": error.message,
                "type": error.type,
                "param": error.param,
                "code": error.code,
            }
        }
    )


def openai_headers(error: GatewayError, request_id: str) -> list[tuple[bytes, bytes]]:
    """Return all headers of the error's answer except its length."""
    identifier = request_id.encode("ascii")
    headers = [
        *_COMMON_HEADERS,
        (b"x-request-id", identifier),
        (b"request-id", identifier),
        *error.headers,
    ]
    if error.retry_after is not None:
        headers.append((b"retry-after", b"%d" % error.retry_after))
    if error.should_retry is not None:
        headers.append((b"x-should-retry", b"true" if error.should_retry else b"false"))
    return headers


def in_band_event(error: GatewayError) -> bytes:
    """Return the error as the last event of a stream that has already begun.

    It must be followed by an abort, not by [DONE] nor by a clean end.
    """
    return b"data: " + openai_body(error) + b"\n\n"
