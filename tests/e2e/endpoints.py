"""The endpoints of every dialect, and what each is asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import orjson

from tests.e2e.answers import HttpAnswer, ask
from tests.support.bench import MESSAGES, Bench, Caller, Stage


class Endpoint(NamedTuple):
    """What a client can ask for."""

    path: str  # `{model}` stands for the model, where it does not stand in the body
    upstream_name: str  # of a demo model that answers
    body: Mapping[str, Any]
    needed: str  # a parameter that must not be missing
    dialect: str = "openai"


ENDPOINTS: Final = {
    "chat/completions": Endpoint(
        "/v1/chat/completions", "demo-chat", {"messages": MESSAGES, "max_tokens": 100}, "messages"
    ),
    "completions": Endpoint(
        "/v1/completions", "demo-chat", {"prompt": "Say something.", "max_tokens": 100}, "prompt"
    ),
    "embeddings": Endpoint("/v1/embeddings", "demo-embedding", {"input": "a text"}, "input"),
    "moderations": Endpoint("/v1/moderations", "demo-moderation", {"input": "a text"}, "input"),
    "rerank": Endpoint(
        "/v1/rerank", "demo-rerank", {"query": "red", "documents": ["a red car"]}, "documents"
    ),
    "messages": Endpoint(
        "/v1/messages",
        "demo-chat",
        {"messages": MESSAGES, "max_tokens": 100},
        "messages",
        "anthropic",
    ),
    "responses": Endpoint(
        "/v1/responses",
        "demo-chat",
        {"input": "Say something.", "max_output_tokens": 100},
        "input",
        "openai-responses",
    ),
    "generateContent": Endpoint(
        "/v1beta/models/{model}:generateContent",
        "demo-chat",
        {
            "contents": [{"parts": [{"text": "Say something."}]}],
            "generationConfig": {"maxOutputTokens": 100},
        },
        "contents",
        "gemini",
    ),
}
# One of each dialect.
CHATS: Final = ("chat/completions", "messages", "responses", "generateContent")


@dataclass(frozen=True, slots=True)
class Asked:
    """One endpoint and a stage for it."""

    endpoint: Endpoint
    stage: Stage

    @property
    def dialect(self) -> str:
        """The dialect in which it is answered."""
        return self.endpoint.dialect

    @property
    def has_model_in_body(self) -> bool:
        """Whether the model is a parameter."""
        return "{model}" not in self.endpoint.path

    def __call__(
        self,
        method: str = "POST",
        *,
        caller: Caller | None = None,
        raw: bytes = b"",
        headers: Mapping[str, str] | None = None,
        **values: Any,
    ) -> HttpAnswer:
        """Ask, with other values in the body; None leaves a member out."""
        return ask(
            self.stage.bench.gateway,
            method,
            self.path_of(values.get("model")),
            headers={**(caller or self.stage.caller).headers, **(headers or {})},
            body=raw or self.body(**values),
        )

    def path_of(self, model: object = None) -> str:
        """Return the path of a call."""
        return self.endpoint.path.format(model=model or self.stage.model.name)

    def body(self, **values: Any) -> bytes:
        """Return the body of a call."""
        body = {"model": self.stage.model.name, **self.endpoint.body, **values}
        if not self.has_model_in_body:
            del body["model"]
        return orjson.dumps({name: value for name, value in body.items() if value is not None})


def asked_at(bench: Bench, name: str, wishes: str = "", **values: Any) -> Asked:
    """Return an endpoint with a stage of its own; `wishes` go to the demo's model."""
    endpoint = ENDPOINTS[name]
    return Asked(endpoint, bench.stage(endpoint.upstream_name + wishes, **values))
