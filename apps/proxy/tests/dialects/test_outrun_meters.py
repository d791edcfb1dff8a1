"""What a stream has brought when its client leaves, before its provider tells what it used."""

from typing import Any, Final

import orjson
import pytest

from apps.core.usage import Usage, UsageSource
from apps.proxy.dialects.anthropic_metering import read_metered_answer
from apps.proxy.dialects.anthropic_stream import AnthropicStreamMeter
from apps.proxy.dialects.openai_stream import OpenAIStreamMeter
from apps.proxy.dialects.responses_stream import ResponsesStreamMeter
from apps.proxy.dialects.stream_meter import StreamMeter
from apps.proxy.tests.dialects.events import named_event
from tests.support.cases import for_all

# A seal of 256 characters, and base64 of 3000 bytes: 750 tokens.
SEALED: Final = "A" * (256 + 4_000)


def block(content: dict[str, Any], index: int = 0) -> bytes:
    return named_event("content_block_start", index=index, content_block=content)


def delta(said: dict[str, Any], index: int = 0) -> bytes:
    return named_event("content_block_delta", index=index, delta=said)


START: Final = named_event(
    "message_start",
    message={
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude",
        "content": [],
        "stop_reason": None,
        "usage": {"input_tokens": 40, "output_tokens": 1},
    },
)
OPEN: Final = block({"type": "thinking", "thinking": "", "signature": ""})
SIGNED: Final = delta({"type": "signature_delta", "signature": SEALED})
SHOWN: Final = delta({"type": "thinking_delta", "thinking": "word" * 250})
REDACTED: Final = block({"type": "redacted_thinking", "data": SEALED})
CREATED: Final = named_event("response.created", response={"id": "resp_1", "output": []})


def left(meter: StreamMeter, *events: bytes) -> Usage:
    """Return the usage of a stream whose client has left after these events."""
    for told in events:
        assert meter.observe(told) == told
    return meter.final_usage(estimated_input_tokens=99)


@pytest.mark.parametrize(
    "events",
    [
        (START, OPEN, SIGNED),
        (START, REDACTED),
        # What was shown is within the seal.
        (START, OPEN, SHOWN, SIGNED),
    ],
)
def test_thoughts_that_anthropic_seals_are_paid_for(events: tuple[bytes, ...]) -> None:
    usage = left(AnthropicStreamMeter(), *events)

    assert usage == Usage(input=40, reasoning=750, source="estimated")


def test_a_thought_that_has_only_begun_costs_nothing() -> None:
    # What was reported is on record all the same.
    assert left(AnthropicStreamMeter(), START, OPEN) == Usage(input=40, output=1)


def refused(category: str | None, output_tokens: int = 0) -> bytes:
    details = {"type": "refusal", "category": category, "explanation": None}
    return named_event(
        "message_delta",
        delta={"stop_reason": "refusal", "stop_details": details},
        usage={"output_tokens": output_tokens},
    )


@for_all(
    ("category", "source"),
    [
        ("bio", "reported"),
        ("frontier_llm", "reported"),
        ("reasoning_extraction", "reported"),
        ("cyber", "none"),
        ("general_harms", "none"),
        (None, "none"),
        ([], "none"),
    ],
)
def test_a_refusal_is_charged_where_anthropic_bills_what_it_read(
    category: Any, source: UsageSource
) -> None:
    answer = {
        "type": "message",
        "content": [],
        "stop_reason": "refusal",
        "stop_details": {"type": "refusal", "category": category},
        "usage": {"input_tokens": 40, "output_tokens": 0},
    }
    whole = read_metered_answer("messages", orjson.dumps(answer))

    assert left(AnthropicStreamMeter(), START, refused(category)) == Usage(input=40, source=source)
    assert whole.final_usage(estimated_input_tokens=99) == Usage(input=40, source=source)


def test_what_was_written_before_a_refusal_is_charged_whatever_its_category() -> None:
    spoken = delta({"type": "text_delta", "text": "word"})

    usage = left(AnthropicStreamMeter(), START, spoken, refused("cyber", output_tokens=3))

    assert usage == Usage(input=40, output=3, source="reported")


def test_searches_of_anthropic_are_paid_for_and_failed_ones_are_not() -> None:
    asked = block({"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {}})
    page = {"type": "web_search_result", "url": "https://example.com", "encrypted_content": "x"}
    found = block({"type": "web_search_tool_result", "tool_use_id": "s1", "content": [page]}, 1)
    error = {"type": "web_search_tool_result_error", "error_code": "max_uses_exceeded"}
    failed = block({"type": "web_search_tool_result", "tool_use_id": "s2", "content": error}, 2)

    usage = left(AnthropicStreamMeter(), START, asked, found, found, failed)

    assert (usage.web_search, usage.input, usage.source) == (2, 41, "estimated")


def test_pages_that_anthropic_found_are_paid_for_by_who_leaves() -> None:
    # Base64 of 3000 bytes: 750 tokens, which only the usage at the end counts to the input.
    page = {"type": "web_search_result", "title": "a", "encrypted_content": "A" * 4_000}
    found = block({"type": "web_search_tool_result", "tool_use_id": "s1", "content": [page]}, 1)
    end = named_event(
        "message_delta",
        delta={"stop_reason": "end_turn"},
        usage={"input_tokens": 900, "output_tokens": 5},
    )
    spoken = delta({"type": "text_delta", "text": "word"})
    gone, whole = AnthropicStreamMeter(), AnthropicStreamMeter()

    usage = left(gone, START, found, found, spoken)
    told = left(whole, START, found, found, spoken, end)

    assert usage == Usage(input=40 + 2 * 750, output=1, web_search=2, source="estimated")
    assert told == Usage(input=900, output=5, web_search=2, source="reported")


def chunk(said: dict[str, Any], **members: Any) -> bytes:
    choice = {"index": 0, "delta": said, "finish_reason": None}
    return b"data: %b\n\n" % orjson.dumps({"id": "gen-1", "choices": [choice], **members})


@pytest.mark.parametrize("shown", [{}, {"reasoning": "word" * 250}])
def test_thoughts_that_openrouter_passes_on_sealed_are_paid_for(shown: dict[str, Any]) -> None:
    sealed = {"format": "x", "index": 0, "type": "reasoning.encrypted", "data": SEALED}
    meter = OpenAIStreamMeter(strip_usage=False)

    usage = left(meter, chunk({"reasoning_details": [sealed], **shown}))

    assert usage == Usage(input=99, reasoning=750, source="estimated")


def test_a_usage_of_openrouters_takes_the_place_of_the_estimate() -> None:
    sealed = {"type": "reasoning.encrypted", "data": SEALED}
    used = {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30}
    meter = OpenAIStreamMeter(strip_usage=False)

    usage = left(meter, chunk({"reasoning_details": [sealed]}), chunk({}, usage=used))

    assert usage == Usage(input=10, output=20, source="reported")


def test_thoughts_that_openai_seals_are_paid_for() -> None:
    item = {"type": "reasoning", "id": "rs_1", "summary": []}
    added = named_event(
        "response.output_item.added", item=item | {"encrypted_content": SEALED[:300]}
    )
    done = named_event("response.output_item.done", item=item | {"encrypted_content": SEALED})

    assert left(ResponsesStreamMeter(), CREATED, added) == Usage()
    assert left(ResponsesStreamMeter(), CREATED, added, done) == Usage(
        input=99, reasoning=750, source="estimated"
    )


def test_a_usage_that_comes_takes_the_place_of_all_estimates() -> None:
    item = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": SEALED}
    meter = ResponsesStreamMeter()
    left(meter, CREATED, named_event("response.output_item.done", item=item))
    used = {
        "input_tokens": 10,
        "output_tokens": 20,
        "output_tokens_details": {"reasoning_tokens": 15},
        "total_tokens": 30,
    }
    answer = {"id": "resp_1", "status": "completed", "output": [item], "usage": used}
    meter.observe(named_event("response.completed", response=answer))

    assert meter.final_usage(estimated_input_tokens=99) == Usage(
        input=10, output=5, reasoning=15, source="reported"
    )
