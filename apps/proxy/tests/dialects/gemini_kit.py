"""A stream of Google's dialect, event by event."""

from typing import Any, Final

from apps.proxy.tests.dialects.events import event


def response(*parts: Any, reason: str | None = None, **changed: Any) -> dict[str, Any]:
    """Return a response whose candidate says these parts."""
    told = {} if reason is None else {"finishReason": reason}
    candidate = {"content": {"parts": list(parts), "role": "model"}, **told, "index": 0}
    document = {"candidates": [candidate], "modelVersion": "gemini-1", "responseId": "resp-1"}
    return {**document, **changed}


def usage(prompt: int, candidates: int, **more: int) -> dict[str, int]:
    """Return the usage that a response tells."""
    return {"promptTokenCount": prompt, "candidatesTokenCount": candidates, **more}


TEXT: Final = event(response({"text": "Hello, "}, usageMetadata=usage(10, 2)))
MORE: Final = event(response({"text": "world!"}, usageMetadata=usage(10, 4)))
LAST: Final = event(
    response(
        {"text": ""}, reason="STOP", usageMetadata=usage(10, 5, totalTokenCount=15)
    )
)  # fmt: skip
