"""What a client sees while its provider says nothing, or nothing that the client has a word for."""

import json
from typing import Final

import pytest

from apps.proxy.dialects.answer_conversion import AnswerConverter
from apps.proxy.dialects.conversion import Reply

ANTHROPIC_PING: Final = b'event: ping\ndata: {"type": "ping"}\n\n'
COMMENT: Final = b": OPENROUTER PROCESSING\n\n"
BEGIN: Final = (
    b'event: message_start\ndata: {"type":"message_start","message":{"id":"msg_1","type":"message",'
    b'"role":"assistant","model":"claude","content":[],"usage":{"input_tokens":3,'
    b'"output_tokens":1}}}\n\n'
)
CHUNK: Final = (
    b'data: {"id":"c","object":"chat.completion.chunk","model":"m","choices":[{"index":0,'
    b'"delta":{"role":"assistant","content":"Hi"},"finish_reason":null}]}\n\n'
)
END: Final = (
    b'data: {"id":"c","object":"chat.completion.chunk","model":"m","choices":[{"index":0,'
    b'"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
)


@pytest.mark.parametrize(
    ("client", "ping"),
    [
        ("anthropic", b'event: ping\ndata: {"type":"ping"}\n\n'),
        ("openai", b": ping\n\n"),
        ("openai-responses", b": ping\n\n"),
        ("gemini", b"\n\n"),
    ],
)
@pytest.mark.parametrize(
    ("provider", "silence", "begin"),
    [("anthropic", ANTHROPIC_PING, BEGIN), ("openai", COMMENT, CHUNK)],
)
def test_a_ping_of_the_provider_becomes_one_of_the_client(
    provider: str, silence: bytes, begin: bytes, client: str, ping: bytes
) -> None:
    converter = AnswerConverter(provider, client, Reply("req_1", 1))

    assert converter.convert(silence) == b""  # Nothing has begun: another route may answer.
    assert converter.convert(begin) not in (b"", silence)
    assert [converter.convert(silence) for _ in range(2)] == [ping, ping]


def test_a_client_of_googles_gets_its_head_when_the_answer_begins() -> None:
    converter = AnswerConverter("anthropic", "gemini", Reply("req_1", 1))

    assert converter.convert(BEGIN) == b"\n\n"


def test_an_array_of_googles_stays_one_with_pings_in_it() -> None:
    converter = AnswerConverter("openai", "gemini", Reply("req_1", 1, is_array=True))

    told = [converter.convert(block) for block in (CHUNK, COMMENT, CHUNK, COMMENT)]
    told.append(converter.finish(END))

    parts = [said["candidates"][0]["content"]["parts"] for said in json.loads(b"".join(told))]
    assert parts == [[{"text": "Hi"}], [{"text": "Hi"}], [{"text": ""}]]


def test_nothing_follows_a_failure() -> None:
    converter = AnswerConverter("anthropic", "openai", Reply("req_1", 1))
    failure = b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error"}}\n\n'
    converter.convert(BEGIN)

    assert converter.convert(failure) == b""
    assert converter.is_cut
    assert converter.convert(ANTHROPIC_PING) == b""
