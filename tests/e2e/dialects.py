"""Stages whose provider speaks a dialect of choice."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from django.db import transaction

from apps.providers.models import Provider
from tests.e2e.wire import post
from tests.support.bench import Bench, Stage

PROVIDER_DIALECTS: Final = ("anthropic", "gemini", "openai", "openai-responses")


class Stages:
    """Makes stages whose provider speaks one dialect."""

    def __init__(self, bench: Bench, dialect: str) -> None:
        self.dialect: Final = dialect
        self.bench: Final = bench

    def make(self, wishes: str = "prompt=10,tokens=12", **values: Any) -> Stage:
        """Return a caller and a model of their own."""
        (stage,) = self.make_all(wishes, **values)
        return stage

    def make_provider(self, **values: Any) -> Provider:
        """Return a demo provider that speaks the dialect."""
        base_url = self.bench.demo.base_url
        if self.dialect == "gemini":
            base_url = base_url.removesuffix("/v1") + "/v1beta"
        return self.bench.make_provider(base_url, dialect=self.dialect, **values)

    def make_all(self, *wishes: str, **values: Any) -> list[Stage]:
        """Return several after one wait, each with a provider of its own."""
        made: list[Stage] = []
        with transaction.atomic():
            for wish in wishes:
                provider = self.make_provider()
                made += self.bench.stages(
                    f"demo-chat:{wish}", provider=provider, waits=False, **values
                )
        self.bench.wait_for_stage(made[-1])
        return made


class Surface(NamedTuple):
    """How a client of a dialect asks for something, on the wire."""

    path: str  # `{model}` stands for the model, `{method}` for what is asked of it
    asked: dict[str, Any]
    end: bytes  # in what is last of a stream
    has_model_in_path: bool = False

    def request(self, stage: Stage, *, is_stream: bool = True) -> bytes:
        """Return a request as it goes over the wire."""
        body = dict(self.asked)
        if not self.has_model_in_path:
            body |= {"model": stage.model.name, "stream": is_stream}
        method = "streamGenerateContent?alt=sse" if is_stream else "generateContent"
        path = self.path.format(model=stage.model.name, method=method)
        return post(stage.caller, body, path)


_SAID: Final = "Say something."
SURFACES: Final = {
    "anthropic": Surface(
        "/v1/messages",
        {"max_tokens": 200, "messages": [{"role": "user", "content": _SAID}]},
        b"event: message_stop",
    ),
    "openai": Surface(
        "/v1/chat/completions",
        {"messages": [{"role": "user", "content": _SAID}]},
        b"data: [DONE]",
    ),
    "openai-responses": Surface("/v1/responses", {"input": _SAID}, b"event: response.completed"),
    "gemini": Surface(
        "/v1beta/models/{model}:{method}",
        {"contents": [{"role": "user", "parts": [{"text": _SAID}]}]},
        b'"finishReason":"STOP"',
        has_model_in_path=True,
    ),
}
"""The clients of all dialects."""
