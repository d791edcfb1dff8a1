"""Faults of the connection."""

from __future__ import annotations

import contextlib
import json
import zlib
from typing import Any

import aiohttp
import pytest

from apps.providers.demo import DemoProvider
from apps.providers.demo.tests.peer import (
    MESSAGES,
    connect,
    dechunk,
    ended,
    post,
    read_events,
    stream,
    words,
    write_request,
)


@pytest.mark.parametrize(
    ("fault", "events", "is_clean"),
    [
        ("cut_after(0)", 0, False),
        ("cut_after(3)", 3, False),
        ("half_close(2)", 2, False),
        ("no_finish(2)", 2, True),
    ],
)
async def test_streams_stop_after_so_many_events(
    provider: DemoProvider, fault: str, events: int, is_clean: bool
) -> None:
    async with connect(provider) as peer:
        peer.ask(f"m:fault={fault}", stream=True)
        head = await peer.read_until(b"\r\n\r\n")
        if is_clean:
            payload, was_clean = dechunk(await peer.read_until(b"\r\n0\r\n\r\n"))
        else:
            payload, was_clean = dechunk(await peer.read_all())

    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert was_clean is is_clean
    assert payload.count(b"data: ") == events
    assert b'"finish_reason":"stop"' not in payload
    record = await ended(provider)
    assert (record["ended"], record["events_sent"]) == ("fault", events)


@pytest.mark.parametrize("fault", ["cut_after(-1)", "rst_after(-1)"])
async def test_a_cut_before_the_head_sends_nothing(provider: DemoProvider, fault: str) -> None:
    async with connect(provider) as peer:
        peer.ask(f"m:fault={fault}")
        received = b""
        with contextlib.suppress(ConnectionResetError):
            received = await peer.read_all()

    assert received == b""
    record = await ended(provider)
    assert (record["ended"], record["bytes_sent"], record["status"]) == ("fault", 0, None)


async def test_a_reset_comes_after_its_events(provider: DemoProvider) -> None:
    async with connect(provider) as peer:
        peer.ask("m:fault=rst_after(2)", stream=True)
        await peer.read_until(b'"content":"This"')
        with pytest.raises(ConnectionResetError):
            await peer.read_all()

    assert (await ended(provider))["events_sent"] == 2


async def test_half_close_still_notices_the_client_leaving(provider: DemoProvider) -> None:
    async with connect(provider) as peer:
        peer.ask("m:fault=half_close(1)", stream=True)
        await peer.read_all()
        assert provider.calls[0]["ended"] is None

    record = await ended(provider)
    assert record["ended"] == "fault"
    assert record["client_closed_at"] is not None


@pytest.mark.parametrize("is_clean", [False, True])
@pytest.mark.parametrize(
    ("fault", "tail"),
    [("cut_in_char", b" caf\xc3"), ("cut_in_usage", b'"prompt_tokens":4,')],
)
async def test_streams_are_cut_inside(
    provider: DemoProvider, fault: str, tail: bytes, is_clean: bool
) -> None:
    ending = "(clean)" if is_clean else ""

    async with connect(provider) as peer:
        peer.ask(f"m:fault={fault}{ending}", stream=True)
        await peer.read_until(b"\r\n\r\n")
        if is_clean:
            payload, was_clean = dechunk(await peer.read_until(b"\r\n0\r\n\r\n"))
        else:
            payload, was_clean = dechunk(await peer.read_all())

    assert was_clean is is_clean
    assert payload.endswith(tail)
    assert (await ended(provider))["ended"] == "fault"


@pytest.mark.parametrize(
    "fault", ["cut_after(1)", "cut_in_char", "cut_in_line", "cut_in_usage", "rst_after(1)"]
)
@pytest.mark.parametrize("is_stream", [False, True])
async def test_a_cut_answer_is_an_error_to_a_client(
    provider: DemoProvider, fault: str, is_stream: bool
) -> None:
    fields: dict[str, Any] = {"stream": True} if is_stream else {}

    with pytest.raises(aiohttp.ClientError):
        await post(provider, f"m:fault={fault}", **fields)


async def test_a_line_is_cut_in_its_middle(provider: DemoProvider) -> None:
    async with connect(provider) as peer:
        peer.ask("m:fault=cut_in_line", stream=True)
        await peer.read_until(b"\r\n\r\n")
        payload, was_clean = dechunk(await peer.read_all())

    assert payload.count(b"data: ") == 3
    assert payload.count(b"\n\n") == 2
    assert not was_clean


async def test_a_drip_delivers_everything(provider: DemoProvider) -> None:
    events = await stream(provider, "m:tokens=1,fault=drip(20000)")

    assert words(events) == "This"
    assert (await ended(provider))["ended"] == "done"


@pytest.mark.parametrize("size", [200_000, 1_000_000])
async def test_big_answers_have_the_size_asked_for(provider: DemoProvider, size: int) -> None:
    async with connect(provider) as peer:
        peer.ask(f"m:fault=big_body({size})")
        body = await peer.read_response()
    events = await stream(provider, f"m:fault=huge_line({size})")

    assert len(body) == size
    assert json.loads(body)["choices"][0]["message"]["content"].isspace()
    assert len(b"data: " + json.dumps(events[1]).encode()) > size
    assert events[-1] == "[DONE]"


async def test_tiny_chunks_hold_one_byte_each(provider: DemoProvider) -> None:
    async with connect(provider) as peer:
        peer.ask("m:tokens=1,fault=tiny_chunks", stream=True)
        await peer.read_until(b"\r\n\r\n")
        body = await peer.read_until(b"\r\n0\r\n\r\n")

    payload, was_clean = dechunk(body)
    assert was_clean
    assert read_events(payload)[-1] == "[DONE]"
    assert len(body) == len(payload) * 6 + 5


@pytest.mark.parametrize("is_stream", [False, True])
async def test_a_gzip_bomb_unpacks_to_its_size(provider: DemoProvider, is_stream: bool) -> None:
    size = 8 * 1024 * 1024

    async with connect(provider) as peer:
        peer.ask(f"m:fault=gzip_bomb({size})", **({"stream": True} if is_stream else {}))
        head = await peer.read_until(b"\r\n\r\n")
        packed, was_clean = dechunk(await peer.read_until(b"\r\n0\r\n\r\n"))

    unpacked = zlib.decompress(packed, 31)
    assert b"content-encoding: gzip" in head
    assert was_clean
    assert len(unpacked.removesuffix(b"data: [DONE]\n\n")) == size
    assert len(packed) < size // 500


@pytest.mark.parametrize("is_stream", [False, True])
async def test_gzip_comes_unasked(provider: DemoProvider, is_stream: bool) -> None:
    async with connect(provider) as peer:
        fields: dict[str, Any] = {"stream": True} if is_stream else {}
        body = {"model": "m:tokens=1,fault=gzip_unasked", "messages": MESSAGES, **fields}
        peer.writer.write(write_request(body, "accept-encoding: identity", "connection: close"))
        await peer.read_until(b"\r\n\r\n")
        received = await peer.read_all()

    packed = dechunk(received)[0] if is_stream else received
    assert b"This" in zlib.decompress(packed, 31)


async def test_interim_responses_come_before_the_answer(provider: DemoProvider) -> None:
    async with connect(provider) as peer:
        peer.ask("m:fault=100_continue")
        heads = [await peer.read_until(b"\r\n\r\n") for _ in range(3)]

    assert [head.split(b"\r\n")[0] for head in heads] == [
        b"HTTP/1.1 100 Continue",
        b"HTTP/1.1 103 Early Hints",
        b"HTTP/1.1 200 OK",
    ]


@pytest.mark.parametrize("is_stream", [False, True])
async def test_transfer_encoding_and_content_length_conflict(
    provider: DemoProvider, is_stream: bool
) -> None:
    async with connect(provider) as peer:
        peer.ask("m:fault=te_cl_conflict", **({"stream": True} if is_stream else {}))
        head = await peer.read_until(b"\r\n\r\n")

    assert b"content-length: 10\r\n" in head
    assert b"transfer-encoding: chunked\r\n" in head


async def test_more_comes_after_done(provider: DemoProvider) -> None:
    events = await stream(provider, "m:tokens=1,fault=late_after_done(20)")

    assert events[-2] == "[DONE]"
    assert words(events[-1:]) == " late"
