"""Azure's deployments as nothing but data: the model in the path, a version in the query, a header.

Source: https://learn.microsoft.com/en-us/azure/ai-foundry/openai/reference
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Final

import orjson
import pytest

from apps.providers.asking import ask_for_one_token
from apps.providers.models import Provider
from tests.e2e.raw_upstream import Heard, RawUpstream, chunk, completion, respond, usage_chunk
from tests.support.bench import INPUT_NANOS, OUTPUT_NANOS, PROVIDER_SECRET, Bench, Stage
from tests.support.people import make_admin, rest_client

# What comes over the wire is judged before any database is asked.
pytestmark = pytest.mark.sqlite

CHAT_NANOS: Final = 10 * INPUT_NANOS + 16 * OUTPUT_NANOS
STREAM: Final = chunk("Over", "stop") + usage_chunk() + b"data: [DONE]\n\n"
VECTOR: Final = {
    "object": "list",
    "model": "raw",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}],
    "usage": {"prompt_tokens": 10, "total_tokens": 10},
}
_numbers = itertools.count(1)
# A name as it is given, and as it stands in a path.
NAMES: Final = {
    "gpt-4o": "gpt-4o",
    "Mein Modell/ä?x=1#%2F{model}&": "Mein%20Modell%2F%C3%A4%3Fx%3D1%23%252F%7Bmodel%7D%26",
    "../admin": "..%2Fadmin",
}


def _say(heard: Heard) -> list[bytes]:
    if "/embeddings?" in heard.lines[0]:
        return [respond(orjson.dumps(VECTOR))]
    if heard.json.get("stream"):
        return [respond(STREAM, kind="text/event-stream")]
    return [respond(completion("text"))]


@pytest.fixture
def azure() -> Iterator[RawUpstream]:
    """Run a provider that keeps what it hears."""
    with RawUpstream(_say) as upstream:
        yield upstream


def _provide(azure: RawUpstream) -> Provider:
    origin = azure.base_url.removesuffix("/v1")
    body = {
        "name": f"azure {next(_numbers)}",
        "base_url": f"{origin}/openai/deployments/{{model}}?api-version=2024-10-21",
        "key_header": "api-key",
        "api_key": PROVIDER_SECRET,
    }
    made = rest_client(make_admin()).post("/api/admin/providers/", body)
    assert made.status_code == 201, made.json()
    return Provider.objects.get(pk=made.json()["id"])


def _ask_all(stage: Stage) -> None:
    client = stage.client(max_retries=0)
    client.chat.completions.create(**stage.body())
    assert [c.id for c in client.chat.completions.create(**stage.body(stream=True))]
    client.embeddings.create(model=stage.model.name, input="a text", encoding_format="float")


@pytest.mark.parametrize("name", NAMES)
def test_a_deployment_is_asked_for_by_the_path_and_the_key_stands_in_its_own_header_only(
    bench: Bench, azure: RawUpstream, name: str
) -> None:
    stage = bench.stage(name, provider=_provide(azure))
    number = stage.upstream_name.removeprefix(name)

    _ask_all(stage)

    base = f"/openai/deployments/{NAMES[name]}{number}"
    assert [heard.lines[0] for heard in azure.heard] == [
        f"POST {base}/chat/completions?api-version=2024-10-21 HTTP/1.1",
        f"POST {base}/chat/completions?api-version=2024-10-21 HTTP/1.1",
        f"POST {base}/embeddings?api-version=2024-10-21 HTTP/1.1",
    ]
    for heard in azure.heard:
        assert heard.names == [
            "host", "api-key", "content-type", "accept", "accept-encoding", "x-request-id",
            "content-length",
        ]  # fmt: skip
        assert heard.lines[2] == f"api-key: {PROVIDER_SECRET}"
        assert heard.head.count(PROVIDER_SECRET.encode()) == 1
        assert PROVIDER_SECRET.encode() not in heard.body
        assert stage.caller.raw.encode() not in heard.head + heard.body
        assert heard.json["model"] == stage.upstream_name
    assert stage.settled(3).charges == (CHAT_NANOS, CHAT_NANOS, 10 * INPUT_NANOS)


@pytest.mark.parametrize("name", NAMES)
def test_the_control_plane_asks_for_one_token_where_calls_go(
    bench: Bench, azure: RawUpstream, name: str
) -> None:
    provider = _provide(azure)
    stage = bench.stage(name, provider=provider)

    stage.client().chat.completions.create(**stage.body())
    ask_for_one_token(
        provider, upstream_name=stage.upstream_name, max_tokens_parameter="max_tokens"
    )

    called, asked = azure.heard
    assert asked.lines[0] == called.lines[0]
    assert f"api-key: {PROVIDER_SECRET}" in asked.lines
    assert asked.head.count(PROVIDER_SECRET.encode()) == 1


def test_two_deployments_of_one_provider_are_never_taken_for_each_other(
    bench: Bench, azure: RawUpstream
) -> None:
    provider = _provide(azure)
    stages = bench.stages("one", "two", provider=provider)

    for stage in (*stages, *reversed(stages)):
        stage.client().chat.completions.create(**stage.body())

    one, two = (stage.upstream_name for stage in stages)
    assert [heard.lines[0].split("/")[3] for heard in azure.heard] == [one, two, two, one]
    assert [heard.json["model"] for heard in azure.heard] == [one, two, two, one]
