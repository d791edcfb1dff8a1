"""What a stream of Responses may hold that no golden file shows, and what it must not."""

from typing import Any

import pytest

from apps.core.usage import Usage
from apps.proxy.dialects.conversion import DIALECTS
from apps.proxy.dialects.neutral import (
    ArgumentsPiece,
    Delta,
    Done,
    Failure,
    PartEnd,
    RefusalPiece,
    Start,
    Stop,
    TextPiece,
    ThinkingPiece,
    ToolStart,
    UsageReport,
)
from apps.proxy.tests.dialects.events import named_event
from tests.support.cases import for_all


def read(*events: bytes) -> list[Delta]:
    return DIALECTS["openai-responses"].stream_reader().read(b"".join(events))


def said(text: str, kind: str = "output_text", member: str = "text") -> dict[str, Any]:
    return {"id": "msg_1", "type": "message", "content": [{"type": kind, member: text}]}


START = named_event("response.created", response={"id": "resp_1", "model": "gpt"})
END = named_event("response.completed", response={"id": "resp_1"})
CALL = {"type": "function_call", "call_id": "call_1", "name": "find", "arguments": '{"a":1}'}
BEGUN = Start("resp_1", "gpt")
ENDED = [Stop("end"), Done()]


def test_a_server_may_tell_an_item_only_when_it_is_complete() -> None:
    deltas = read(
        START,
        named_event("response.output_item.added", output_index=0, item={"type": "message"}),
        named_event("response.output_item.done", output_index=0, item=said("Hi")),
        named_event(
            "response.output_item.done", output_index=1, item=said("No.", "refusal", "refusal")
        ),
        named_event("response.output_item.done", output_index=2, item=CALL),
        END,
    )

    assert deltas == [
        BEGUN,
        TextPiece("Hi"),
        PartEnd(),
        RefusalPiece("No."),
        PartEnd(),
        ToolStart("call_1", "find"),
        ArgumentsPiece('{"a":1}'),
        PartEnd(),
        Stop("tool_use"),
        Done(),
    ]


def test_a_server_may_tell_all_at_once() -> None:
    usage = {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}
    response = {"status": "completed", "output": [said("Hi"), CALL], "usage": usage}

    deltas = read(START, named_event("response.completed", response=response))

    assert deltas == [
        BEGUN,
        TextPiece("Hi"),
        PartEnd(),
        ToolStart("call_1", "find"),
        ArgumentsPiece('{"a":1}'),
        PartEnd(),
        UsageReport(Usage(input=3, output=2, source="reported")),
        Stop("tool_use"),
        Done(),
    ]


def test_what_was_told_in_pieces_is_not_told_again() -> None:
    deltas = read(
        START,
        named_event("response.output_text.delta", output_index=0, content_index=0, delta="Hi"),
        named_event("response.output_item.done", output_index=0, item=said("Hi")),
        named_event("response.completed", response={"output": [said("Hi")]}),
    )

    assert deltas == [BEGUN, TextPiece("Hi"), PartEnd(), *ENDED]


def test_texts_at_other_places_are_other_parts() -> None:
    deltas = read(
        START,
        named_event("response.output_text.delta", output_index=0, content_index=0, delta="a"),
        named_event("response.output_text.delta", output_index=0, content_index=1, delta="b"),
        named_event("response.output_text.delta", output_index=1, content_index=1, delta="c"),
        END,
    )

    assert [delta for delta in deltas if isinstance(delta, TextPiece | PartEnd)] == [
        TextPiece("a"),
        PartEnd(),
        TextPiece("b"),
        PartEnd(),
        TextPiece("c"),
        PartEnd(),
    ]


def test_arguments_may_come_with_the_beginning_or_the_end_of_a_call() -> None:
    added = named_event("response.output_item.added", output_index=0, item=CALL)
    empty = named_event(
        "response.output_item.added", output_index=0, item={**CALL, "arguments": ""}
    )
    done = named_event("response.function_call_arguments.done", output_index=0, arguments='{"b":2}')
    ended = named_event(
        "response.output_item.done", output_index=0, item={**CALL, "arguments": None}
    )

    told = [
        "".join(delta.text for delta in read(START, *events, END) if type(delta) is ArgumentsPiece)
        for events in ([added, ended], [empty, done, ended], [empty, ended], [empty])
    ]

    assert told == ['{"a":1}', '{"b":2}', "{}", "{}"]


def test_a_whole_thought_is_sealed_by_what_comes_last() -> None:
    added = named_event("response.output_item.added", output_index=0, item={"type": "reasoning"})
    content = {"type": "reasoning_text", "text": "Hm."}
    told = [
        named_event("response.content_part.added", output_index=0, content_index=0, part=content),
        named_event("response.reasoning_text.delta", output_index=0, content_index=0, delta="Hm."),
        named_event("response.content_part.done", output_index=0, content_index=0, part=content),
    ]
    item = {"type": "reasoning", "content": [content], "encrypted_content": "gAAAA"}
    done = named_event("response.output_item.done", output_index=0, item=item)

    in_pieces = read(START, added, *told, done, END)
    at_once = read(START, added, done, END)
    nothing = read(
        START,
        added,
        named_event("response.output_item.done", output_index=0, item={"type": "reasoning"}),
        END,
    )

    assert in_pieces == [
        BEGUN,
        ThinkingPiece("Hm."),
        ThinkingPiece(signature="openai.gAAAA"),
        PartEnd(),
        *ENDED,
    ]
    assert at_once == [BEGUN, ThinkingPiece("Hm.", "openai.gAAAA"), PartEnd(), *ENDED]
    assert nothing == [BEGUN, *ENDED]


@for_all(
    "failure",
    [
        named_event("error", code="rate_limit_exceeded", message="sk-secret-123"),
        named_event("error", error={"code": "server_error", "message": ""}),
        named_event("error", error={"type": "server_error", "code": None}),
        named_event("response.failed", response={"error": {"code": "server_error"}}),
        named_event("response.failed", response={"error": None}),
        named_event("error", code="sk-secret-123", message=""),
        b"data: {oops\n\n",
        named_event("response.output_text.delta", output_index=0, delta=1),
        named_event("response.output_item.added", output_index=0, item={"type": "mcp_call"}),
        named_event("response.output_item.done", output_index=0, item={"type": "mcp_call"}),
        named_event("response.output_item.added", output_index=0),
        named_event("response.content_part.added", part={"type": "output_audio"}),
        named_event("response.function_call_arguments.delta", output_index=0, delta="{}"),
        named_event("response.completed", response={"output": 1}),
        START,
    ],
)
def test_what_fails_or_has_no_equal_is_a_failure(failure: bytes) -> None:
    deltas = read(START, failure, END)

    assert [type(delta) for delta in deltas] == [Start, Failure]
    assert isinstance(deltas[-1], Failure)
    assert deltas[-1].error.row == "E60"
    assert "sk-" not in f"{deltas[-1].error}"


@pytest.mark.parametrize(
    "first", [END, named_event("response.failed", response={}), b"data: 1\n\n"]
)
def test_nothing_comes_before_the_beginning_but_a_failure(first: bytes) -> None:
    assert [type(delta) for delta in read(first, START)] == [Failure]


def test_what_was_cut_for_a_reason_that_is_not_known_is_too_long() -> None:
    told = [
        read(START, named_event("response.incomplete", response={"incomplete_details": details}))[
            -2
        ]
        for details in (None, {"reason": "steered"}, {"reason": 1}, {"reason": "content_filter"})
    ]

    assert told == [Stop("length"), Stop("length"), Stop("length"), Stop("refusal")]
