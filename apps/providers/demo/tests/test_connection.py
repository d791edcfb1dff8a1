"""HTTP as the demo provider speaks it."""

from __future__ import annotations

import hashlib
import json

import openai
import pytest
from openai import AsyncOpenAI

from apps.providers.demo import DemoProvider
from apps.providers.demo.tests.peer import (
    MESSAGES,
    connect,
    write_request,
)


async def test_pipelined_requests_are_answered_in_order(provider: DemoProvider) -> None:
    slow = write_request({"model": "m:tokens=1,latency=0.05", "messages": MESSAGES})
    fast = write_request({"model": "m:tokens=2", "messages": MESSAGES})

    async with connect(provider) as peer:
        peer.writer.write(slow + fast + slow)
        answers = [json.loads(await peer.read_response()) for _ in range(3)]

    tokens = [answer["usage"]["completion_tokens"] for answer in answers]
    assert tokens == [1, 2, 1]
    assert [answer["id"][9:] for answer in answers] == [c["response_id"] for c in provider.calls]


async def test_the_connection_outlives_a_stream_and_an_error(provider: DemoProvider) -> None:
    async with connect(provider) as peer:
        peer.ask("m:tokens=1", stream=True)
        await peer.read_until(b"0\r\n\r\n")
        peer.ask("m:fault=status(503)")
        await peer.read_response()
        peer.ask("m:tokens=3,pace=0.001", stream=True)
        await peer.read_until(b"0\r\n\r\n")

    assert [call["status"] for call in provider.calls] == [200, 503, 200]
    assert [call["ended"] for call in provider.calls] == ["done", "fault", "done"]


async def test_connection_close_is_honoured(provider: DemoProvider) -> None:
    async with connect(provider) as peer:
        peer.writer.write(write_request({"model": "m", "messages": MESSAGES}, "connection: close"))
        response = await peer.read_all()

    assert response.startswith(b"HTTP/1.1 200 OK\r\n")


async def test_a_chunked_body_after_100_continue(provider: DemoProvider) -> None:
    body = json.dumps({"model": "m", "messages": MESSAGES}).encode()
    head = (
        b"POST /chat/completions HTTP/1.1\r\nhost: demo\r\n"
        b"transfer-encoding: chunked\r\nexpect: 100-continue\r\n\r\n"
    )

    async with connect(provider) as peer:
        peer.writer.write(head)
        interim = await peer.read_until(b"\r\n\r\n")
        peer.writer.write(b"5;x=y\r\n" + body[:5] + b"\r\n")
        peer.writer.write(b"%x\r\n%b\r\n0\r\ntrailer: yes\r\n\r\n" % (len(body) - 5, body[5:]))
        answer = json.loads(await peer.read_response())

    assert interim == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert answer["model"] == "m"
    assert provider.calls[0]["body_sha256"] == hashlib.sha256(body).hexdigest()


async def test_a_wrong_key_is_refused_with_a_piece_of_it() -> None:
    demo = DemoProvider(api_key="sk-right")
    await demo.start()

    async with AsyncOpenAI(api_key="sk-wrong-0123456789", base_url=demo.base_url) as wrong:
        with pytest.raises(openai.AuthenticationError) as caught:
            await wrong.chat.completions.create(
                model="m", messages=[{"role": "user", "content": "x"}]
            )
    async with AsyncOpenAI(api_key="sk-right", base_url=demo.base_url) as right:
        await right.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}])
    await demo.stop()

    assert caught.value.code == "invalid_api_key"
    assert "Incorrect API key provided: sk-wrong************6789." in str(caught.value)
    assert [call["status"] for call in demo.calls] == [401, 200]
