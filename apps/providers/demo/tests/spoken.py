"""How each dialect is spoken to: addresses, headers and the smallest bodies."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import aiohttp

from apps.providers.demo import DemoProvider
from apps.providers.demo.tests.peer import MESSAGES


@dataclass(frozen=True, slots=True)
class Spoken:
    """One kind of call; `write` returns method, target and body for a model name."""

    write: Callable[[str], tuple[str, str, dict[str, Any] | None]]
    headers: tuple[tuple[str, str], ...] = ()

    def render(self, model: str) -> bytes:
        """Return a request that is the last of its connection."""
        method, target, body = self.write(model)
        content = b"" if body is None else json.dumps(body).encode()
        lines = [f"{method} {target} HTTP/1.1", "connection: close", "host: demo"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        return "\r\n".join([*lines, f"content-length: {len(content)}", "", ""]).encode() + content


VERSION = (("anthropic-version", "2023-06-01"),)


def _posted(path: str, **fields: Any) -> Callable[[str], tuple[str, str, dict[str, Any]]]:
    return lambda model: ("POST", path, {"model": model, **fields})


def _generated(method: str, query: str = "", **fields: Any) -> Spoken:
    return Spoken(lambda model: ("POST", f"/v1beta/models/{model}:{method}{query}", fields))


CONTENTS = [{"role": "user", "parts": [{"text": "0123456789abcdef"}]}]
SPOKEN = {
    "chat": Spoken(_posted("/v1/chat/completions", messages=MESSAGES)),
    "chat stream": Spoken(_posted("/v1/chat/completions", messages=MESSAGES, stream=True)),
    "completions": Spoken(_posted("/v1/completions", prompt="x")),
    "embeddings": Spoken(_posted("/v1/embeddings", input="x")),
    "models": Spoken(lambda model: ("GET", f"/v1/models/{model}", None)),
    "messages": Spoken(_posted("/v1/messages", messages=MESSAGES, max_tokens=50), VERSION),
    "messages stream": Spoken(
        _posted("/v1/messages", messages=MESSAGES, max_tokens=50, stream=True), VERSION
    ),
    "responses": Spoken(_posted("/v1/responses", input="x")),
    "responses stream": Spoken(_posted("/v1/responses", input="x", stream=True)),
    "generateContent": _generated("generateContent", contents=CONTENTS),
    "streamGenerateContent": _generated("streamGenerateContent", "?alt=sse", contents=CONTENTS),
    "streamGenerateContent array": _generated("streamGenerateContent", contents=CONTENTS),
    "embedContent": _generated("embedContent", content=CONTENTS[0]),
    "countTokens": _generated("countTokens", contents=CONTENTS),
    "count_tokens": Spoken(_posted("/v1/messages/count_tokens", messages=MESSAGES), VERSION),
}


async def call(
    provider: DemoProvider,
    path: str,
    body: dict[str, Any] | None = None,
    headers: dict[str, str] | None = None,
) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and body; a GET without a body."""
    url = f"http://127.0.0.1:{provider.port}{path}"
    method = "GET" if body is None else "POST"
    async with (
        aiohttp.ClientSession(read_bufsize=2**26) as session,
        session.request(method, url, json=body, headers=headers) as response,
    ):
        told = {name.lower(): value for name, value in response.headers.items()}
        return response.status, told, await response.read()


def read_named(content: bytes) -> list[tuple[str, Any]]:
    """Return name and data of each event of a stream; the name must be on a line of its own."""
    found = []
    for part in content.decode().removesuffix("\n\n").split("\n\n"):
        name, data = part.split("\n")
        assert name.startswith("event: ")
        assert data.startswith("data: ")
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found
