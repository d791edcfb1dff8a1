"""What clients can do: the same for all of them, and each call charged to the nano."""

from __future__ import annotations

import pytest

from tests.clients.client import Client
from tests.clients.jobs import do
from tests.support.bench import INPUT_NANOS, OUTPUT_NANOS, Bench

pytestmark = pytest.mark.long

TEXT = "This answer costs nothing: it"
PRICES = {
    "input": 1_000_000_000,
    "cache_read": 100_000_000,
    "output": 4_000_000_000,
    "reasoning": 5_000_000_000,
}


@pytest.mark.parametrize("what", ["plain", "stream"])
def test_a_chat(bench: Bench, client: Client, what: str) -> None:
    stage = bench.stage("demo-chat:prompt=10,cached=4,tokens=8,reasoning=2", prices=PRICES)

    outcome = do(client, stage, what)

    assert outcome.text == TEXT
    assert outcome.usages == ((6, 4, 6, 2),)
    statement = stage.settled()
    assert statement.charges == (6 * 1_000 + 4 * 100 + 6 * 4_000 + 2 * 5_000,)
    assert statement.rows[0].is_stream is (what == "stream")
    assert statement.rows[0].usage_source == "reported"


@pytest.mark.parametrize("prefix", ["/v1/", "/api/v1", "/api/v1/"])
@pytest.mark.parametrize("name", ["python", "node", "langchain"])
def test_every_way_to_write_the_base_url(
    bench: Bench, clients: dict[str, Client], name: str, prefix: str
) -> None:
    stage = bench.stage("demo-chat:prompt=10,tokens=8")

    outcome = do(clients[name], stage, "stream", base_url=bench.gateway.url + prefix)

    assert outcome.text.startswith(TEXT)
    assert stage.settled().charges == (10 * INPUT_NANOS + 8 * OUTPUT_NANOS,)


def test_a_tool_is_called_and_its_answer_told(bench: Bench, client: Client) -> None:
    stage = bench.stage("demo-chat:tools=on,prompt=10")

    outcome = do(client, stage, "tools", turns_max=3)

    assert outcome.text == "The tool says: 21 degrees in demo"
    first, second = outcome.usages
    assert stage.settled(2).charges == tuple(
        usage[0] * INPUT_NANOS + usage[2] * OUTPUT_NANOS for usage in (first, second)
    )
    asked, told = (call["body"]["messages"] for call in stage.upstream_calls)
    assert [message["role"] for message in asked] == ["user"]
    assert [message["role"] for message in told] == ["user", "assistant", "tool"]
    assert told[1]["tool_calls"][0]["id"] == told[2]["tool_call_id"]
    assert told[2]["content"] == "21 degrees in demo"


def test_an_answer_in_a_json_schema(bench: Bench, client: Client) -> None:
    stage = bench.stage("demo-chat:prompt=10")

    outcome = do(client, stage, "structured")

    assert {name: type(value) for name, value in outcome.data.items()} == {
        "city": str,
        "degrees": int,
    }
    (usage,) = outcome.usages
    assert stage.settled().charges == (10 * INPUT_NANOS + usage[2] * OUTPUT_NANOS,)
    assert stage.upstream_calls[0]["body"]["response_format"]["type"] == "json_schema"


def test_a_picture(bench: Bench, client: Client) -> None:
    stage = bench.stage("demo-chat:tokens=8")

    outcome = do(client, stage, "vision")

    assert outcome.text.startswith(TEXT)
    (usage,) = outcome.usages
    # 85 tokens are the picture, what is left is the question.
    assert usage[0] in (85 + 4, 85 + 5)
    assert stage.settled().charges == (usage[0] * INPUT_NANOS + 8 * OUTPUT_NANOS,)
    parts = stage.upstream_calls[0]["body"]["messages"][0]["content"]
    assert [part["type"] for part in parts] == ["text", "image_url"]
    assert parts[1]["image_url"]["url"].startswith("data:image/png;base64,iVBORw0KGgo")


@pytest.mark.parametrize("name", ["python", "node", "langchain"])
def test_embeddings(bench: Bench, clients: dict[str, Client], name: str) -> None:
    stage = bench.stage("demo-embedding:prompt=7")

    outcome = do(clients[name], stage, "embeddings")

    assert outcome.data == [8, 8]
    assert stage.settled().charges == (7 * INPUT_NANOS,)


@pytest.mark.parametrize("name", ["python", "node"])
def test_moderations(bench: Bench, clients: dict[str, Client], name: str) -> None:
    stage = bench.stage("demo-moderation")

    outcome = do(clients[name], stage, "moderations")

    assert outcome.data == [False, True]
    statement = stage.settled()
    assert statement.charges[0] == statement.rows[0].input_tokens * INPUT_NANOS > 0
    assert statement.held_nanos == 0


@pytest.mark.parametrize("name", ["python", "node"])
def test_the_list_of_models(bench: Bench, clients: dict[str, Client], name: str) -> None:
    stage = bench.stage()

    outcome = do(clients[name], stage, "models")

    assert stage.model.name in outcome.data
    assert stage.bench.statement(stage.caller).rows == ()


def test_a_client_that_leaves_in_the_middle_pays_for_what_was_made(
    bench: Bench, client: Client
) -> None:
    stage = bench.stage("demo-chat:prompt=10,pace=0.02,fault=never_end")

    outcome = do(client, stage, "abort")

    assert outcome.text.startswith(" more")
    statement = stage.settled()
    assert statement.states == ("client_disconnected",)
    assert statement.rows[0].status_code == 499
    assert INPUT_NANOS < statement.charges[0] <= statement.rows[0].hold_nanos
    assert statement.entries == (("charge", -statement.charges[0]),)
    assert [call["ended"] for call in stage.upstream_calls] == ["client_closed"]
