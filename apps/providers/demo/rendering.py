"""Whole responses as they stand on the wire, kept for the next call that is answered alike."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from apps.providers.demo.answers import Answer
from apps.providers.demo.dialects.dialect import DemoDialect, Headers
from apps.providers.demo.wire import LAST_CHUNK, TYPE_JSON, render_chunk, render_head

# Renderings of more than this are made anew for each call instead of being kept.
_KEPT_TOKENS_MAX = 2000
_KEPT_BYTES_MAX = 4096


@dataclass(frozen=True, slots=True)
class Rendering:
    """A whole response, with `ID_MARK` for the call's id."""

    wire: bytes
    events: int
    has_usage: bool


def render_response(answer: Answer) -> Rendering:
    """Return the undisturbed response to a call, kept for the next call like it."""
    if len(answer.data) > _KEPT_BYTES_MAX or answer.output_tokens > _KEPT_TOKENS_MAX:
        return _render_response(answer)
    return _render_kept_response(answer)


def _render_response(answer: Answer) -> Rendering:
    dialect = answer.dialect
    if not answer.is_stream:
        body = dialect.render_body(answer)
        head = render_response_head(dialect, TYPE_JSON, length=len(body))
        return Rendering(head + body, 0, answer.usage is not None)
    events = dialect.render_events(answer)
    chunks = b"".join(render_chunk(event.data) for event in events)
    head = render_response_head(dialect, dialect.stream_type, length=None)
    return Rendering(
        head + chunks + LAST_CHUNK, len(events), any(event.has_usage for event in events)
    )


_render_kept_response = lru_cache(maxsize=256)(_render_response)


def render_response_head(
    dialect: DemoDialect,
    content_type: str,
    *,
    length: int | None,
    status: int = 200,
    extra: Headers = (),
) -> bytes:
    """Return the head of an API response; without a length its body is chunked."""
    framing = (
        ("transfer-encoding", "chunked") if length is None else ("content-length", str(length))
    )
    return render_head(status, (("content-type", content_type), *dialect.head, *extra, framing))
