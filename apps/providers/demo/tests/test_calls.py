"""The log of calls, and what is noticed about the client."""

from __future__ import annotations

import asyncio
import hashlib
import json
import stat
from pathlib import Path

import aiohttp
import pytest

from apps.providers.demo import DemoProvider
from apps.providers.demo.tests.peer import (
    MESSAGES,
    WAIT_SECONDS_MAX,
    connect,
    ended,
    post,
    read_events,
)


async def test_a_call_leaves_one_record_in_memory_and_in_the_file(tmp_path: Path) -> None:
    log = tmp_path / "calls.jsonl"
    demo = DemoProvider(log_path=log)
    await demo.start()
    body = {"model": "m:tokens=2", "messages": MESSAGES, "stream": True}
    raw = json.dumps(body).encode()
    headers = {"authorization": "Bearer sk-secret", "x-test": "yes"}

    async with (
        aiohttp.ClientSession() as session,
        session.post(demo.base_url + "/chat/completions", data=raw, headers=headers) as response,
    ):
        received = await response.read()
    await demo.stop()

    (record,) = demo.calls
    assert record["model"] == "m:tokens=2"
    assert record["stream"] is True
    assert record["path"] == "/v1/chat/completions"
    assert record["authorization_sha256"] == hashlib.sha256(b"Bearer sk-secret").hexdigest()
    assert "authorization" not in record["request_headers"]
    assert record["request_headers"]["x-test"] == "yes"
    assert record["body_sha256"] == hashlib.sha256(raw).hexdigest()
    assert record["body"] == body
    assert record["events_sent"] == len(read_events(received)) == 5
    assert record["bytes_sent"] > len(received)
    assert (record["input_tokens"], record["output_tokens"]) == (4, 2)
    assert record["usage_sent"] is False
    assert record["ended"] == "done"
    assert record["client_closed_at"] is None
    assert [json.loads(line) for line in log.read_text().splitlines()] == [record]
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


async def test_the_records_are_read_and_cleared_over_http(provider: DemoProvider) -> None:
    url = f"http://127.0.0.1:{provider.port}/__calls"
    for _ in range(3):
        await post(provider, "m")

    async with aiohttp.ClientSession() as session:
        async with session.get(url) as response:
            everything = await response.json()
        async with session.get(url, params={"since": "2"}) as response:
            newer = await response.json()
        async with session.delete(url) as response:
            assert response.status == 200
        async with session.get(url) as response:
            nothing = await response.json()

    assert [record["call"] for record in everything] == [1, 2, 3]
    assert [record["call"] for record in newer] == [3]
    assert nothing == []


@pytest.mark.parametrize(
    "model",
    ["m:latency=60", "m:tokens=9,pace=60", "m:fault=slow_first(60)", "m:fault=stall_after(2)"],
)
async def test_a_client_that_leaves_while_it_waits_is_noticed(
    provider: DemoProvider, model: str
) -> None:
    async with connect(provider) as peer:
        peer.ask(model, stream=True)
        async with asyncio.timeout(WAIT_SECONDS_MAX):
            while not provider.calls:  # noqa: ASYNC110 - the record is no event
                await asyncio.sleep(0.001)
        assert provider.calls[0]["ended"] is None

    record = await ended(provider)
    assert record["ended"] == "client_closed"
    assert record["client_closed_at"] is not None


async def test_only_what_was_delivered_counts_when_the_client_leaves(
    provider: DemoProvider,
) -> None:
    async with connect(provider) as peer:
        peer.ask("m:fault=stall_after(3),prompt=7,tokens=50", stream=True)
        await peer.read_until(b" answer")

    record = await ended(provider)
    assert (record["input_tokens"], record["output_tokens"]) == (7, 2)
    assert (record["events_sent"], record["usage_sent"]) == (3, False)


async def test_a_reader_that_stops_reading_stops_an_endless_stream(provider: DemoProvider) -> None:
    async with connect(provider) as peer:
        transport = peer.writer.transport
        assert isinstance(transport, asyncio.Transport)
        peer.ask("m:fault=never_end", stream=True)
        await peer.read_until(b" more")
        transport.pause_reading()
        before = -1
        async with asyncio.timeout(WAIT_SECONDS_MAX):
            while provider.calls[0]["bytes_sent"] != before:
                before = provider.calls[0]["bytes_sent"]
                await asyncio.sleep(0.1)

    record = await ended(provider)
    assert record["bytes_sent"] == before
    assert record["ended"] == "client_closed"


async def test_a_call_that_runs_when_the_provider_stops_is_on_record(tmp_path: Path) -> None:
    log = tmp_path / "calls.jsonl"
    demo = DemoProvider(log_path=log)
    await demo.start()

    async with connect(demo) as peer:
        peer.ask("m:fault=stall_after(1)", stream=True)
        await peer.read_until(b"data: ")
        await demo.stop()

    assert [json.loads(line)["ended"] for line in log.read_text().splitlines()] == ["fault"]
    assert demo.calls[0]["ended"] == "fault"
