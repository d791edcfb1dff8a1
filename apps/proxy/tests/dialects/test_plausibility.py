import json
from typing import Any

import pytest

from apps.core.usage import Usage
from apps.proxy.dialects.metered_answer import MeteredAnswer
from apps.proxy.dialects.openai_answer import read_chat_answer
from apps.proxy.dialects.openai_stream import OpenAIStreamMeter
from apps.proxy.dialects.plausibility import Asked, fits, is_plausible, needs_no_look, tells_enough
from tests.support.cases import for_all


def reported(output: int, **counts: int) -> Usage:
    return Usage.from_dict({"input": 10, "output": output, "source": "reported"} | counts)


@for_all(
    ("usage", "delivered", "choices", "expected"),
    [
        (reported(64), 0, 1, True),
        (reported(65), 0, 1, False),
        (reported(80), 1, 1, True),
        (reported(81), 1, 1, False),
        (reported(1664), 100, 1, True),
        (reported(1665), 100, 1, False),
        (reported(1728), 100, 2, True),
        (reported(1729), 100, 2, False),
        (reported(65), 0, 0, False),
        # A word of what is not seen excuses no more than one that is.
        (reported(80, reasoning=1), 0, 1, True),
        (reported(81, reasoning=1), 0, 1, False),
        (reported(9_000_000, reasoning=1), 0, 1, False),
        (reported(9_000_000, audio_out=1), 0, 1, False),
        (reported(9_000_000, image_out=1), 0, 1, False),
        # Of what was thought only the half is told apart.
        (reported(5_000, reasoning=5_000), 3, 1, True),
    ],
)
def test_a_token_takes_some_text(
    usage: Usage, delivered: int, choices: int, expected: bool
) -> None:
    assert is_plausible(usage, delivered_tokens=delivered, choices=choices) is expected


SMALL = Asked(input_bound=200, output_bound=5, context_length=8_000)


@for_all(
    ("usage", "asked", "expected"),
    [
        (reported(5), SMALL, True),
        # Vendors that leave reasoning out of the cap think up to the context.
        (reported(5, reasoning=7_995), SMALL, True),
        (reported(9_044), SMALL, True),
        (reported(9_045), SMALL, False),
        (reported(44, reasoning=9_001), SMALL, False),
        (reported(0, audio_out=9_045), SMALL, False),
        (reported(0, image_out=9_045), SMALL, False),
        (reported(17_044), SMALL._replace(choices=2), True),
        (reported(17_045), SMALL._replace(choices=2), False),
        # A cap above the context: of a model whose context is told wrongly.
        (reported(89_024), SMALL._replace(output_bound=20_000), True),
        (reported(89_025), SMALL._replace(output_bound=20_000), False),
        # Instructions and tools of the provider's own are read beside what was sent.
        (reported(5, input=9_024), SMALL, True),
        (reported(5, input=9_025), SMALL, False),
        (reported(5, input=24, cache_read=9_001), SMALL, False),
        (reported(5, input=9_999_000), SMALL, False),
        (reported(5, input=41_024), SMALL._replace(input_bound=10_000), True),
        (reported(5, input=41_025), SMALL._replace(input_bound=10_000), False),
        (reported(0, input=17_024), SMALL._replace(texts=2), True),
        (reported(0, input=17_025), SMALL._replace(texts=2), False),
        (reported(5, input=89_024), SMALL._replace(searches=10), True),
        (reported(5, input=89_025), SMALL._replace(searches=10), False),
    ],
)
def test_what_was_asked_bounds_what_can_be_used(usage: Usage, asked: Asked, expected: bool) -> None:
    assert fits(usage, asked) is expected


@pytest.mark.parametrize(
    ("output", "streamed", "expected"),
    [(64, 0, True), (65, 0, False), (1000, 64_000, True), (1000, 63_999, False)],
)
def test_an_event_for_a_token_needs_no_look(output: int, streamed: int, expected: bool) -> None:
    assert needs_no_look(reported(output), streamed_bytes=streamed) is expected


def answer(message: dict[str, Any], completion: int, **details: object) -> MeteredAnswer:
    usage = {"prompt_tokens": 10, "completion_tokens": completion, "total_tokens": 10 + completion}
    document = {
        "object": "chat.completion",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": usage | details,
    }
    return read_chat_answer(json.dumps(document).encode())


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (answer({"content": "four" * 100}, 100), reported(100)),
        (answer({"content": "four" * 100}, 1664), reported(1664)),
        (
            answer({"content": "four" * 100}, 1665),
            reported(1665)._replace(is_suspect=True),
        ),
        (answer({"content": ""}, 5000), reported(5000)._replace(is_suspect=True)),
        (
            answer({"content": "four"}, 5000, completion_tokens_details={"reasoning_tokens": 4990}),
            reported(10, reasoning=4990),
        ),
        (
            answer({"content": "hi"}, 9_000_000, completion_tokens_details={"reasoning_tokens": 1}),
            reported(8_999_999, reasoning=1)._replace(is_suspect=True),
        ),
        (answer({"content": "", "reasoning_content": "four" * 400}, 5000), reported(5000)),
        (
            answer({"tool_calls": [{"function": {"name": "f", "arguments": "x" * 1000}}]}, 4000),
            reported(4000),
        ),
        (answer({"content": "", "audio": {"data": "AAAA"}}, 5000), reported(5000)),
        (answer({"content": "", "images": [IMAGE, IMAGE]}, 5000), reported(5000, image=2)),
        (
            answer(
                {"content": "", "images": [IMAGE]},
                1290,
                completion_tokens_details={"image_tokens": 1290},
            ),
            reported(0, image_out=1290, image=1),
        ),
    ],
)
def test_an_answer_with_many_times_the_tokens_of_its_text_is_suspect(
    found: MeteredAnswer, expected: Usage
) -> None:
    assert found.final_usage(estimated_input_tokens=99) == expected


def event(delta: dict[str, Any] | None = None, **members: object) -> bytes:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": None}]
    document = {"object": "chat.completion.chunk", "choices": choices} | members
    return b"data: " + json.dumps(document).encode() + b"\n\n"


def usage_event(completion: int, **details: object) -> bytes:
    usage = {"prompt_tokens": 10, "completion_tokens": completion, "total_tokens": 10 + completion}
    return event(usage=usage | details)


@pytest.mark.parametrize(
    ("blocks", "expected"),
    [
        ([event({"content": "four" * 100}), usage_event(100)], reported(100)),
        ([event({"content": "four" * 100}), usage_event(1664)], reported(1664)),
        (
            [event({"content": "four" * 100}), usage_event(1665)],
            reported(1665)._replace(is_suspect=True),
        ),
        ([usage_event(5000)], reported(5000)._replace(is_suspect=True)),
        (
            [
                event({"content": "Hi"}),
                usage_event(5000, completion_tokens_details={"reasoning_tokens": 4990}),
            ],
            reported(10, reasoning=4990),
        ),
        (
            [
                event({"content": "hi"}),
                usage_event(9_000_000, completion_tokens_details={"reasoning_tokens": 1}),
            ],
            reported(8_999_999, reasoning=1)._replace(is_suspect=True),
        ),
        ([event({"reasoning_content": "four" * 400}), usage_event(5000)], reported(5000)),
        (
            [
                event({"tool_calls": [{"index": 0, "function": {"arguments": "x" * 1000}}]}),
                usage_event(4000),
            ],
            reported(4000),
        ),
        ([event({"audio": {"data": "AAAA"}}), usage_event(5000)], reported(5000)),
        (
            [event({"images": [IMAGE]}), event({"images": [IMAGE]}), usage_event(5000)],
            reported(5000, image=2),
        ),
        # A token an event, as most servers stream.
        ([event({"content": "a"}) * 1000, usage_event(1000)], reported(1000)),
    ],
)
def test_a_stream_with_many_times_the_tokens_of_its_text_is_suspect(
    blocks: list[bytes], expected: Usage
) -> None:
    meter = OpenAIStreamMeter(strip_usage=True)
    for block in blocks:
        meter.observe(block)

    assert meter.final_usage(estimated_input_tokens=99) == expected


FINISH = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"
TEXT = [event({"content": "four" * 100})] * 10  # a thousand tokens
MORE = Usage(input=10, output=1_000, source="estimated")
AUDIO = event({"audio": {"data": "A" * 64_000}})  # a second, twenty tokens
PARTS: dict[str, Any] = {"completion_tokens_details": {"reasoning_tokens": 8}}


@for_all(
    ("blocks", "expected"),
    [
        ([usage_event(0), *TEXT], MORE),
        ([usage_event(1), *TEXT], MORE),
        ([usage_event(242), *TEXT], reported(242)),
        ([usage_event(241), *TEXT], MORE),
        ([*TEXT, usage_event(241)], MORE),
        ([usage_event(9, **PARTS), *TEXT], MORE),
        # Whatever was read is known, and stays told apart.
        (
            [usage_event(1, prompt_tokens_details={"cached_tokens": 4}), *TEXT],
            MORE._replace(input=6, cache_read=4),
        ),
        ([usage_event(0), event({"content": "Hi"})], MORE._replace(output=1)),
        ([usage_event(1), event({"content": "four" * 36})], reported(1)),
        ([usage_event(1), event({"content": "four" * 37})], MORE._replace(output=37)),
        ([usage_event(0)], Usage(input=10)),
        ([usage_event(1)], reported(1)),
        ([usage_event(1), *[AUDIO] * 2], MORE._replace(output=1, audio_out=40)),
        # The usage of the end would follow the finish reason, and did not come.
        ([usage_event(1), *TEXT, FINISH], MORE),
        # The stream went on to its end: the provider's word counts.
        ([usage_event(1), *TEXT, DONE], reported(1)._replace(is_suspect=True)),
        ([usage_event(1), *TEXT, FINISH, usage_event(900)], reported(900)),
        ([*TEXT, FINISH, usage_event(0)], reported(0)._replace(is_suspect=True)),
        ([*TEXT, FINISH, usage_event(1), DONE], reported(1)._replace(is_suspect=True)),
        ([*TEXT, FINISH, usage_event(241)], reported(241)._replace(is_suspect=True)),
        ([*TEXT, FINISH, usage_event(242)], reported(242)),
        ([*TEXT * 5, FINISH, usage_event(1_241)], reported(1_241)._replace(is_suspect=True)),
    ],
)
def test_usage_that_came_early_is_no_report_of_the_answer(
    blocks: list[bytes], expected: Usage
) -> None:
    meter = OpenAIStreamMeter(strip_usage=True)
    for block in blocks:
        meter.observe(block)

    assert meter.final_usage(estimated_input_tokens=99) == expected


@pytest.mark.parametrize(
    ("message", "told", "is_suspect"),
    [
        ({"content": "four" * 1_000}, 0, True),
        ({"content": "four" * 1_000}, 1, True),
        ({"content": "four" * 1_000}, 241, True),
        ({"content": "four" * 1_000}, 242, False),
        ({"content": "four" * 36}, 1, False),
        ({"content": "four" * 37}, 1, True),
        ({"tool_calls": [{"function": {"name": "f", "arguments": "x" * 4_000}}]}, 1, True),
    ],
)
def test_an_answer_far_above_its_usage_is_suspect_and_costs_what_was_reported(
    message: dict[str, Any], told: int, is_suspect: bool
) -> None:
    found = answer(message, told).final_usage(estimated_input_tokens=99)

    assert found == reported(told)._replace(is_suspect=is_suspect)


@pytest.mark.parametrize(
    ("told", "streamed", "characters", "expected"),
    [
        (0, 1_024, 0, True),
        (0, 1_025, 0, False),
        (10, 6_144, 80, True),
        (10, 6_145, 0, False),
        (10, 0, 81, False),
    ],
)
def test_what_accounts_for_all_that_was_sent_needs_no_look(
    told: int, streamed: int, characters: int, expected: bool
) -> None:
    usage = reported(told)

    assert tells_enough(usage, streamed_bytes=streamed, characters=characters) is expected


def test_an_image_is_content_though_nothing_is_reported() -> None:
    meter = OpenAIStreamMeter(strip_usage=True)
    meter.observe(event({"images": [IMAGE]}))

    assert meter.saw_content
    assert meter.final_usage(estimated_input_tokens=99) == Usage(
        input=99, output=1, source="estimated", image=1
    )


def test_a_text_about_images_is_no_image() -> None:
    meter = OpenAIStreamMeter(strip_usage=True)
    meter.observe(event({"content": '{"images":[{"image_url":"x"}]}'}))
    meter.observe(usage_event(12))

    assert meter.final_usage(estimated_input_tokens=99) == reported(12)
