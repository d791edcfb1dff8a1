"""Usage that comes before the answer, as where Anthropic's beginning of a message is translated."""

from __future__ import annotations

from collections.abc import Iterator

import orjson
import pytest

from tests.e2e.raw_upstream import Heard, RawUpstream, chunk, completion, respond
from tests.e2e.wire import open_stream
from tests.support.bench import INPUT_NANOS, OUTPUT_NANOS, PRICES, Bench, Stage

# What comes over the wire, and what it costs, is judged before any database is asked.
pytestmark = [pytest.mark.usefixtures("counting"), pytest.mark.sqlite]

WORDS = " one two three four" * 20  # eighty tokens
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def usage(told: int) -> dict[str, int]:
    """Return a usage of twelve tokens that were read, and so many that were written."""
    return {"prompt_tokens": 12, "completion_tokens": told, "total_tokens": 12 + told}


def beginning(told: int) -> bytes:
    """Return the first event of a stream, with a usage."""
    event = orjson.loads(chunk("")[len(b"data: ") :])
    return b"data: %b\n\n" % orjson.dumps(event | {"usage": usage(told)})


def say(heard: Heard) -> list[bytes]:
    """Tell in an early usage what the prompt says, then eight hundred words.

    A stream goes on no further, unless its prompt says so.
    """
    told, _, end = heard.prompt.partition(" ")
    if heard.json.get("stream") is not True:
        return [respond(completion(WORDS * 10, usage(int(told))))]
    events = beginning(int(told)) + chunk(WORDS) * 10
    if end:
        events += chunk("", "length") + b"data: [DONE]\n\n"
        return [respond(events, kind="text/event-stream")]
    return [HEAD, b"%x\r\n%b\r\n" % (len(events), events)]


@pytest.fixture(scope="module")
def stage(module_bench: Bench) -> Iterator[Stage]:
    """Run the provider, and make a model of it."""
    with RawUpstream(say) as upstream:
        provider = module_bench.make_provider(upstream.base_url)
        yield module_bench.stage("raw", provider=provider, prices=PRICES)


def ask_for(told: str) -> list[dict[str, str]]:
    """Return the messages to which that usage is told."""
    return [{"role": "user", "content": told}]


@pytest.mark.parametrize("told", ["0", "1", "150"])
def test_leaving_after_an_early_usage_costs_what_was_delivered(
    bench: Bench, stage: Stage, told: str
) -> None:
    count = len(bench.statement(stage.caller).rows) + 1
    connection = open_stream(stage, messages=ask_for(told))
    connection.read_until(WORDS.encode())
    connection.close()

    statement = stage.settled(count)
    row = statement.rows[-1]
    assert (row.state, row.usage_source) == ("client_disconnected", "estimated")
    assert (row.input_tokens, row.output_tokens, row.is_usage_suspect) == (12, 800, False)
    assert row.charge_nanos == 12 * INPUT_NANOS + 800 * OUTPUT_NANOS
    assert (statement.held_nanos, statement.owed_nanos) == (0, 0)


def test_what_was_delivered_after_an_early_usage_never_costs_more_than_the_hold(
    bench: Bench, stage: Stage
) -> None:
    count = len(bench.statement(stage.caller).rows) + 1
    connection = open_stream(stage, messages=ask_for("1"), max_tokens=16)
    connection.read_until(WORDS.encode())
    connection.close()

    statement = stage.settled(count)
    row = statement.rows[-1]
    assert row.output_tokens == 800
    assert row.charge_nanos == row.hold_nanos < 800 * OUTPUT_NANOS
    assert (statement.held_nanos, statement.owed_nanos) == (0, 0)


@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_that_ended_costs_what_was_reported_and_is_suspect(
    bench: Bench, stage: Stage, stream: bool
) -> None:
    count = len(bench.statement(stage.caller).rows) + 1
    body = stage.body(messages=ask_for("1 end"), stream=stream)
    list(stage.client(max_retries=0).chat.completions.create(**body))

    row = stage.settled(count).rows[-1]
    assert (row.state, row.usage_source) == ("completed", "reported")
    assert (row.input_tokens, row.output_tokens, row.is_usage_suspect) == (12, 1, True)
    assert row.charge_nanos == 12 * INPUT_NANOS + OUTPUT_NANOS
