"""Whole answers from one dialect into another, cell by cell of the compatibility matrix."""

from typing import Any

import orjson
import pytest

from apps.core.errors import GatewayError
from apps.core.usage import Usage
from apps.proxy.dialects.conversion import DIALECTS
from apps.proxy.dialects.neutral import Answer, Text, Thinking, ToolUse
from apps.proxy.tests.dialects.golden_cells import REPLY, Cell, golden_cells
from tests.support.cases import for_all


@for_all("cell", golden_cells("answer"))
def test_an_answer_is_written_as_the_golden_file_says(cell: Cell) -> None:
    answer = DIALECTS[cell.provider].read_answer(cell.given)

    written = DIALECTS[cell.client].write_answer(answer, cell.reply)

    assert orjson.loads(orjson.dumps(written)) == cell.written


@for_all("cell", golden_cells("answer", "exact"))
def test_what_is_exact_is_read_as_what_was_said(cell: Cell) -> None:
    assert DIALECTS[cell.client].read_answer(cell.written) == DIALECTS[cell.provider].read_answer(
        cell.given
    )


@for_all("cell", golden_cells("answer"))
def test_the_tokens_of_an_answer_sum_to_the_same(cell: Cell) -> None:
    told = DIALECTS[cell.provider].read_answer(cell.given).usage
    seen = DIALECTS[cell.client].read_answer(cell.written).usage

    assert (seen.input_tokens, seen.output_tokens) == (told.input_tokens, told.output_tokens)
    assert told.total_tokens > 0


def said(*parts: Any) -> dict[str, Any]:
    return {"candidates": [{"content": {"parts": list(parts), "role": "model"}}]}


def message(**changed: Any) -> dict[str, Any]:
    return {"id": "msg_1", "type": "message", "model": "claude", "content": [], **changed}


@for_all(
    ("provider", "given"),
    [
        ("openai", {}),
        ("openai", {"choices": []}),
        ("openai", {"choices": [{"message": None}]}),
        ("openai", {"choices": [{"message": {"content": 1}}]}),
        ("openai", {"choices": [{"message": {"content": [{"type": "image_url"}]}}]}),
        ("openai", {"choices": [{"message": {"audio": {"data": "UklGRg=="}}}]}),
        ("openai", {"choices": [{"message": {"images": [{"image_url": {"url": "x"}}]}}]}),
        ("openai", {"choices": [{"message": {"tool_calls": [{"id": "call_1"}]}}]}),
        ("openai", {"choices": [{"message": {"tool_calls": [{"function": {"arguments": 1}}]}}]}),
        ("openai", {"choices": [{"message": {"tool_calls": 1}}]}),
        ("openai", {"choices": [{"message": {"thinking_blocks": [{"type": "other"}]}}]}),
        ("anthropic", {}),
        ("anthropic", message(type="error")),
        ("anthropic", message(content=None)),
        ("anthropic", message(content=["Hi"])),
        ("anthropic", message(content=[{"type": "text"}])),
        ("anthropic", message(content=[{"type": "tool_use", "id": "t", "name": "n"}])),
        ("anthropic", message(content=[{"type": "server_tool_use", "id": "s", "name": "n"}])),
        ("anthropic", message(id=None)),
        ("gemini", {}),
        ("gemini", {"candidates": []}),
        ("gemini", {"promptFeedback": {}}),
        ("gemini", said(1)),
        ("gemini", said({"text": 1})),
        ("gemini", said({"inlineData": {"mimeType": "image/png", "data": "AA=="}})),
        ("gemini", said({"executableCode": {"code": "1"}})),
        ("gemini", said({"text": "a", "toolCall": {"id": "1"}})),
        ("gemini", said({"functionCall": {"args": {}}})),
        ("gemini", said({"functionCall": {"name": "a", "args": []}})),
        ("gemini", said({"functionCall": {"name": "a", "willContinue": True}})),
        ("gemini", {"candidates": [{"content": {"parts": 1}}]}),
        ("gemini", {"candidates": [{"content": []}]}),
        ("gemini", {"candidates": [{"finishReason": "MALFORMED_FUNCTION_CALL"}]}),
    ],
)
def test_what_is_no_answer_or_has_no_equal_is_the_providers_fault(
    provider: str, given: dict[str, Any]
) -> None:
    with pytest.raises(GatewayError) as refusal:
        DIALECTS[provider].read_answer(given)

    assert (refusal.value.row, refusal.value.param) == ("E49", None)


def test_numbers_in_arguments_keep_their_digits_up_to_64_bits() -> None:
    arguments = '{"id":9007199254740993,"ratio":0.1}'
    call = {"id": "call_1", "function": {"name": "find", "arguments": arguments}}
    given = {"choices": [{"message": {"tool_calls": [call]}}]}

    written = DIALECTS["anthropic"].write_answer(DIALECTS["openai"].read_answer(given), REPLY)

    assert written["content"][0]["input"] == {"id": 9007199254740993, "ratio": 0.1}


def test_an_answer_of_which_google_kept_everything_is_one() -> None:
    blocked = {"candidates": [{"finishReason": "SAFETY", "index": 0}], "responseId": "r"}

    answer = DIALECTS["gemini"].read_answer(blocked)

    assert (answer.id, answer.parts, answer.stop) == ("r", (), "refusal")


def test_an_answer_in_snake_case_is_read_alike() -> None:
    call = {"function_call": {"id": "1", "name": "now"}, "thought_signature": "c2ln"}
    given = {**said(call), "usage_metadata": {"prompt_token_count": 3, "candidates_token_count": 2}}
    given["candidates"][0]["finish_reason"] = "MAX_TOKENS"

    answer = DIALECTS["gemini"].read_answer(given)

    assert answer.parts == (Thinking(signature="google.c2ln"), ToolUse("1", "now", "{}"))
    assert (answer.stop, answer.usage.input, answer.usage.output) == ("length", 3, 2)


def test_another_providers_hidden_thought_survives_a_gemini_client() -> None:
    hidden = Answer("a", "m", (Thinking(redacted="aGlk"), Text("Hi")), "end", Usage())

    written = DIALECTS["gemini"].write_answer(hidden, REPLY)

    content = written["candidates"][0]["content"]
    asked = {"model": "m", "contents": [{"role": "user", "parts": [{"text": "a"}]}, content]}
    thought, _ = DIALECTS["gemini"].read_request(asked).turns[1].parts
    assert isinstance(thought, Thinking)
    assert (thought.redacted, thought.signature) == ("aGlk", "")
