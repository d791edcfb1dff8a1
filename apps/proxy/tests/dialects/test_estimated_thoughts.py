"""Thoughts whose provider reports no usage: counted apart from what was written, everywhere."""

from collections.abc import Iterable
from typing import Any, Final

import orjson
import pytest

from apps.core.usage import Usage
from apps.proxy.dialects.anthropic_stream import AnthropicStreamMeter
from apps.proxy.dialects.gemini_stream import GeminiStreamMeter
from apps.proxy.dialects.openai_stream import OpenAIStreamMeter
from apps.proxy.dialects.parsed_request import Endpoint
from apps.proxy.dialects.providers import PROVIDERS
from apps.proxy.dialects.responses_stream import ResponsesStreamMeter
from apps.proxy.dialects.stream_meter import StreamMeter

# A token, by the cheap estimate.
WORD: Final = "four"
PAUSE: Final = 'a "thought": true of "response.reasoning_text.delta", and four'
PAUSE_TOKENS: Final = -(-(len(PAUSE) + 2 * len(WORD)) // 4)


def event(document: dict[str, Any]) -> bytes:
    return b"data: %b\n\n" % orjson.dumps(document)


def chat(said: dict[str, Any]) -> bytes:
    return event({"id": "c-1", "choices": [{"index": 0, "delta": said, "finish_reason": None}]})


def block(said: dict[str, Any]) -> bytes:
    return event({"type": "content_block_delta", "index": 0, "delta": said})


def contents(*parts: dict[str, Any]) -> bytes:
    return event({"candidates": [{"content": {"role": "model", "parts": list(parts)}}]})


def response(kind: str, said: str) -> bytes:
    return event({"type": f"response.{kind}.delta", "item_id": "x", "delta": said})


THINKING: Final = {"type": "thinking", "thinking": [{"type": "text", "text": WORD}]}
PAUSES: Final = (PAUSE, WORD, WORD)


@pytest.mark.parametrize(
    ("meter", "thought", "written"),
    [
        pytest.param(
            OpenAIStreamMeter(strip_usage=True),
            chat(dict.fromkeys(names, WORD)),
            [chat({"content": text}) for text in PAUSES],
            id=" and ".join(names),
        )
        for names in (["reasoning_content"], ["reasoning"], ["reasoning_content", "reasoning"])
    ]
    + [
        pytest.param(
            OpenAIStreamMeter(strip_usage=True),
            chat({"content": [THINKING]}),
            [chat({"content": [{"type": "text", "text": text}]}) for text in PAUSES],
            id="parts of Mistral",
        ),
        pytest.param(
            AnthropicStreamMeter(),
            block({"type": "thinking_delta", "thinking": WORD}),
            [block({"type": "text_delta", "text": text}) for text in PAUSES],
            id="anthropic",
        ),
        pytest.param(
            GeminiStreamMeter(),
            contents({"text": WORD, "thought": True}),
            [contents({"text": text, "thought": False}) for text in PAUSES],
            id="gemini",
        ),
        pytest.param(
            ResponsesStreamMeter(),
            response("reasoning_summary_text", WORD),
            [response("output_text", text) for text in PAUSES],
            id="summaries of responses",
        ),
        pytest.param(
            ResponsesStreamMeter(),
            response("reasoning_text", WORD),
            [response("output_text", text) for text in PAUSES],
            id="responses",
        ),
    ],
)
def test_the_thoughts_of_a_stream_are_counted_apart(
    meter: StreamMeter, thought: bytes, written: list[bytes]
) -> None:
    for _ in range(20):
        meter.observe(thought)
    before = meter.final_usage(estimated_input_tokens=9)
    for told in written:
        meter.observe(told)

    after = meter.final_usage(estimated_input_tokens=9)

    # Not a single token of output yet: that is for calls of tools without arguments.
    assert before == Usage(input=9, reasoning=20, source="estimated")
    assert after == before._replace(output=PAUSE_TOKENS)
    told_apart = {part.is_thought: part.text for part in meter.excerpts()}
    assert told_apart == {True: WORD * 20, False: "".join(PAUSES)}


def test_a_thought_and_a_text_in_one_event_are_told_apart() -> None:
    gemini, mistral = GeminiStreamMeter(), OpenAIStreamMeter(strip_usage=True)
    gemini.observe(contents({"text": WORD, "thought": True}, {"text": WORD * 3}))
    mistral.observe(chat({"content": [THINKING, {"type": "text", "text": WORD * 3}]}))

    for meter in (gemini, mistral):
        assert meter.final_usage(estimated_input_tokens=9) == Usage(
            input=9, output=3, reasoning=1, source="estimated"
        )


def test_a_response_that_comes_whole_at_the_end_tells_its_thoughts_apart() -> None:
    meter = ResponsesStreamMeter()
    meter.observe(
        event({"type": "response.completed", "response": {"output": _items(WORD, WORD * 3)}})
    )

    assert meter.final_usage(estimated_input_tokens=9) == Usage(
        input=9, output=3, reasoning=1, source="estimated"
    )


def _items(thought: str, said: str) -> list[dict[str, Any]]:
    return [
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": thought}]},
        {"type": "message", "content": [{"type": "output_text", "text": said}]},
    ]


def _whole(thought: str, said: str) -> Iterable[tuple[str, Endpoint, dict[str, Any]]]:
    """Yield whole answers that say the same."""
    for names in (["reasoning_content"], ["reasoning"], ["reasoning_content", "reasoning"]):
        message = {"role": "assistant", "content": said, **dict.fromkeys(names, thought)}
        yield "openai", "chat/completions", {"choices": [{"message": message}]}
    parts = [
        {"type": "thinking", "thinking": [{"type": "text", "text": thought}]},
        {"type": "text", "text": said},
    ]
    yield "openai", "chat/completions", {"choices": [{"message": {"content": parts}}]}
    blocks = [{"type": "thinking", "thinking": thought}, {"type": "text", "text": said}]
    yield "anthropic", "messages", {"type": "message", "content": blocks}
    texts = [{"text": thought, "thought": True}, {"text": said}]
    yield "gemini", "generateContent", {"candidates": [{"content": {"parts": texts}}]}
    yield "openai-responses", "responses", {"output": _items(thought, said)}


def test_the_thoughts_of_whole_answers_are_counted_apart() -> None:
    for dialect, endpoint, document in _whole(WORD * 20, WORD * 3):
        answer = PROVIDERS[dialect].read_answer(endpoint, orjson.dumps(document))

        usage = answer.final_usage(estimated_input_tokens=9)

        assert usage == Usage(input=9, output=3, reasoning=20, source="estimated"), dialect
        assert answer.estimated_output_tokens == 23
    for dialect, endpoint, document in _whole(WORD * 20, ""):
        answer = PROVIDERS[dialect].read_answer(endpoint, orjson.dumps(document))

        usage = answer.final_usage(estimated_input_tokens=9)

        assert usage == Usage(input=9, reasoning=20, source="estimated"), dialect
