"""P17: the gateway fetches nothing that a request names, and asks for no name in it.

Pictures and documents go to the provider as addresses, or are refused. Each address is tried as one
that the policy allows (by an address and by a name) and as ones that it does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final

import orjson
import pytest

from tests.e2e.answers import HttpAnswer, ask
from tests.e2e.conftest import check_books
from tests.e2e.dialects import PROVIDER_DIALECTS, Stages
from tests.e2e.raw_upstream import RawUpstream, completion, respond
from tests.e2e.rows import chat
from tests.support.bench import Bench, Stage, open_bench
from tests.support.databases import Database
from tests.support.dns import NameServer, name_server
from tests.support.gateway import DemoThread
from tests.support.processes import free_port

# What is asked of whom depends on no engine.
pytestmark = pytest.mark.sqlite

LISTED: Final = "listed.example.com"
INSIDE: Final = "inside.example.com"
UNKNOWN: Final = "unknown.example.com"
PICTURES: Final = [
    "http://127.0.0.1:PORT/a.png", "http://127.0.0.2:PORT/b.png", f"http://{LISTED}:PORT/c.png",
    f"https://{LISTED}:PORT/d.png", f"http://{INSIDE}:PORT/e.png", f"https://{UNKNOWN}/f.png",
    "http://169.254.169.254/latest/g.png", "http://[::1]:PORT/h.png",
]  # fmt: skip
DOCUMENTS: Final = [url.replace(".png", ".pdf") for url in PICTURES]
_TEXT: Final = {"type": "text", "text": "What is this?"}
Parts = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """A gateway, the name server that it asks, and everybody that a request may name."""

    bench: Bench
    names: NameServer
    listeners: tuple[RawUpstream, ...]
    port: int

    def urls(self, urls: list[str]) -> list[str]:
        """Return addresses with the port that all listen at."""
        return [url.replace("PORT", str(self.port)) for url in urls]

    @property
    def noticed(self) -> tuple[int, list[str]]:
        """How many connections came, and which names were asked for."""
        return sum(listener.connections for listener in self.listeners), list(self.names.asked)


@pytest.fixture(scope="module")
def around(
    module_db: Database, demo: DemoThread, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Surroundings]:
    """Run everything; the policy allows the demo provider and 127.0.0.2."""
    directory = tmp_path_factory.mktemp("fetching")
    answer = respond(completion("text"), "Connection: close")
    with ExitStack() as stack:
        names, prefix = stack.enter_context(name_server(directory))
        names.answers = {LISTED: [["127.0.0.2"]], INSIDE: [["127.0.0.1"]]}
        port = free_port()
        listeners = tuple(
            stack.enter_context(RawUpstream(lambda _: [answer], host=host, port=port))
            for host in ("127.0.0.1", "127.0.0.2", "::1")
        )
        demo_port = demo.base_url.removesuffix("/v1").rpartition(":")[2]
        bench = open_bench(
            directory, module_db, demo, prefix=prefix,
            environment={"PRIVATE_UPSTREAMS": f"127.0.0.1:{demo_port},127.0.0.2:{port}"},
        )  # fmt: skip
        yield Surroundings(bench, names, listeners, port)
        bench.gateway.stop()
        check_books()


def _openai(urls: list[str]) -> tuple[str, dict[str, Any]]:
    parts: Parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return "/v1/chat/completions", {"messages": [{"role": "user", "content": [_TEXT, *parts]}]}


def _responses(urls: list[str]) -> tuple[str, dict[str, Any]]:
    parts: Parts = [
        {"type": "input_file", "file_url": url}
        if url.endswith(".pdf")
        else {"type": "input_image", "image_url": url, "detail": "auto"}
        for url in urls
    ]
    return "/v1/responses", {"input": [{"role": "user", "content": parts}]}


def _anthropic(urls: list[str]) -> tuple[str, dict[str, Any]]:
    parts: Parts = [
        {
            "type": "document" if url.endswith(".pdf") else "image",
            "source": {"type": "url", "url": url},
        }
        for url in urls
    ]
    messages = [{"role": "user", "content": [_TEXT, *parts]}]
    return "/v1/messages", {"max_tokens": 200, "messages": messages}


def _gemini(urls: list[str]) -> tuple[str, dict[str, Any]]:
    parts: Parts = [
        {
            "fileData": {
                "mimeType": "application/pdf" if url.endswith(".pdf") else "image/png",
                "fileUri": url,
            }
        }
        for url in urls
    ]
    return "/v1beta/models/{model}:generateContent", {"contents": [{"parts": parts}]}


CLIENTS: Final[dict[str, Callable[[list[str]], tuple[str, dict[str, Any]]]]] = {
    "anthropic": _anthropic,
    "gemini": _gemini,
    "openai": _openai,
    "openai-responses": _responses,
}
# Clients and providers between which a document cannot be an address.
REFUSED: Final = {("anthropic", "openai"), ("gemini", "openai"), ("openai-responses", "openai")}


def _send(stage: Stage, client: str, urls: list[str]) -> HttpAnswer:
    path, body = CLIENTS[client](urls)
    if client != "gemini":
        body["model"] = stage.model.name
    return ask(
        stage.bench.gateway, "POST", path.format(model=stage.model.name),
        headers=stage.caller.headers, body=orjson.dumps(body),
    )  # fmt: skip


def _strings(value: Any) -> list[str]:
    """Return all texts in a body, in their order."""
    if isinstance(value, dict | list):
        inside = value.values() if isinstance(value, dict) else value
        return [text for one in inside for text in _strings(one)]
    return [value] if isinstance(value, str) else []


@pytest.mark.parametrize("dialect", PROVIDER_DIALECTS)
@pytest.mark.parametrize("client", CLIENTS)
def test_pictures_are_passed_on_as_the_addresses_that_they_are(
    around: Surroundings, client: str, dialect: str
) -> None:
    stage = Stages(around.bench, dialect).make()
    urls, before = around.urls(PICTURES), around.noticed

    answer = _send(stage, client, urls)

    assert answer.status == 200, answer.body
    assert stage.settled().states == ("completed",)
    (call,) = stage.upstream_calls
    assert [text for text in _strings(call["body"]) if "://" in text] == urls
    assert around.noticed == before


@pytest.mark.parametrize("dialect", PROVIDER_DIALECTS)
@pytest.mark.parametrize("client", ["anthropic", "gemini", "openai-responses"])
def test_documents_are_passed_on_as_the_addresses_that_they_are_or_refused(
    around: Surroundings, client: str, dialect: str
) -> None:
    stage = Stages(around.bench, dialect).make()
    urls, before = around.urls(DOCUMENTS), around.noticed

    answer = _send(stage, client, urls)

    is_refused = (client, dialect) in REFUSED
    assert answer.status == (400 if is_refused else 200), answer.body
    passed_on = [text for call in stage.upstream_calls for text in _strings(call["body"])]
    assert [text for text in passed_on if "://" in text] == ([] if is_refused else urls)
    assert around.noticed == before


def test_pictures_to_be_moderated_are_not_fetched_either(around: Surroundings) -> None:
    stage = around.bench.stage("demo-moderation")
    urls, before = around.urls(PICTURES), around.noticed
    parts: Parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]

    answer = ask(
        around.bench.gateway, "POST", "/v1/moderations", headers=stage.caller.headers,
        body=orjson.dumps({"model": stage.model.name, "input": parts}),
    )  # fmt: skip

    assert answer.status == 200, answer.body
    (call,) = stage.upstream_calls
    assert [text for text in _strings(call["body"]) if "://" in text] == urls
    assert around.noticed == before


def test_who_is_reached_and_which_name_is_asked_for_would_be_noticed(around: Surroundings) -> None:
    connections, names = around.noticed
    provider = around.bench.make_provider(f"http://{LISTED}:{around.port}/v1")
    stage = around.bench.stage("raw", provider=provider)

    answer = chat(stage)

    assert answer.status == 200
    assert around.noticed == (connections + 1, [*names, LISTED])
