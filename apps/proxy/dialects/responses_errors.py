"""The gateway's errors within a stream of OpenAI's Responses.

A stream that fails tells it twice, as OpenAI's own does: by an event `error`, whose `error` is what
OpenAI's SDKs raise, and whose other members are what is documented; and by `response.failed`,
without which Codex only says that the stream was cut. Outside of a stream errors are those of all
of OpenAI's routes.

Sources: https://platform.openai.com/docs/api-reference/responses-streaming/error and
https://github.com/openai/codex/blob/main/codex-rs/codex-api/src/sse/responses.rs
"""

from collections.abc import Mapping
from typing import Any, Final

import orjson

from apps.core.errors import GatewayError
from apps.proxy.dialects.responses_answer import response_document

_TOO_MANY: Final = 429


def responses_event(name: str, sequence: int, told: Mapping[str, Any]) -> bytes:
    """Return an event; `sequence` is its number in the stream."""
    data = orjson.dumps({"type": name, "sequence_number": sequence, **told})
    return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"


def failure_events(
    error: GatewayError, head: Mapping[str, Any], asked: Mapping[str, Any], sequence: int
) -> bytes:
    """Return the error as the last events of a stream that has already begun.

    They must be followed by an abort, not by a clean end. `head` has the members of the response
    that are known.
    """
    told = {"code": error.code, "message": error.message, "param": error.param}
    # Of the codes that this dialect knows for an answer that failed.
    code = "rate_limit_exceeded" if error.status == _TOO_MANY else "server_error"
    failed = response_document(
        {**head, "status": "failed"}, asked, error={"code": code, "message": error.message}
    )
    return responses_event(
        "error", sequence, {**told, "error": {"type": error.type, **told}}
    ) + responses_event("response.failed", sequence + 1, {"response": failed})


def responses_in_band_events(
    error: GatewayError, *, request_id: str, created: int, asked: Mapping[str, Any]
) -> bytes:
    """Return the error as the last events of a stream of which nothing else is known."""
    head = {"id": f"resp_{request_id}", "created_at": created, "model": asked.get("model") or ""}
    return failure_events(error, head, asked, 0)
