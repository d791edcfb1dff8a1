"""What a stream may hold that no golden file shows, and what it must not.

Over 400 lines because streams of all dialects go through the same converters.
"""

import json
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.core.errors import GatewayError
from apps.core.usage import Usage
from apps.proxy.dialects.conversion import DIALECTS, Reply
from apps.proxy.dialects.neutral import (
    ArgumentsPiece,
    Delta,
    Done,
    Failure,
    PartEnd,
    Start,
    Stop,
    TextPiece,
    ThinkingPiece,
    ToolStart,
    UsageReport,
)
from apps.proxy.dialects.openai_chat_stream_reader import TOOL_CALLS_MAX
from apps.proxy.tests.dialects.events import event
from apps.proxy.tests.dialects.golden_cells import REPLY
from apps.proxy.tests.dialects.junk import EVENT_JUNK


def chunk(delta: Any = None, reason: Any = None, **changed: Any) -> bytes:
    choice = {"index": 0, "delta": delta or {}, "finish_reason": reason}
    return event({"id": "c", "model": "m", "choices": [choice], **changed})


def call(index: int, text: str, identifier: str | None = None) -> bytes:
    named = {"id": identifier, "type": "function"} if identifier else {}
    function = {"arguments": text, **({"name": "find"} if identifier else {})}
    return chunk({"tool_calls": [{"index": index, **named, "function": function}]})


def read(dialect: str, *events: bytes) -> list[Delta]:
    return DIALECTS[dialect].stream_reader().read(b"".join(events))


def read_to_the_end(*events: bytes) -> list[Delta]:
    """Return what a stream of Google's says, which ends with its body."""
    reader = DIALECTS["gemini"].stream_reader()
    return reader.read(b"".join(events)) + reader.end()


def part(*parts: Any, reason: str | None = None, **changed: Any) -> bytes:
    """Return an event of Google's."""
    told = {} if reason is None else {"finishReason": reason}
    candidate = {"content": {"parts": list(parts), "role": "model"}, **told}
    return event({"candidates": [candidate], "modelVersion": "m", "responseId": "c", **changed})


BEGINNINGS: Final = {
    "openai": chunk(),
    "anthropic": event({"type": "message_start", "message": {"id": "c", "model": "m"}}),
    "openai-responses": event({"type": "response.created", "response": {"id": "c", "model": "m"}}),
    "gemini": part(),
}


@pytest.mark.parametrize("dialect", list(DIALECTS))
@given(events=st.lists(EVENT_JUNK, max_size=6))
def test_no_event_breaks_a_reader(dialect: str, events: list[Any]) -> None:
    reader = DIALECTS[dialect].stream_reader()
    told = b"".join(event(document) for document in events)

    deltas = reader.read(BEGINNINGS[dialect] + told) + reader.end()

    assert deltas[0] == Start("c", "m")
    kinds = [type(delta) for delta in deltas]
    assert Failure not in kinds[:-1]
    for client in DIALECTS.values():
        client.stream_writer(REPLY).write(deltas)


def test_what_follows_an_error_or_the_end_is_not_read() -> None:
    failed = read("openai", chunk({"content": "a"}), b"data: {oops\n\n", chunk({"content": "b"}))
    done = read("openai", chunk(reason="stop"), b"data: [DONE]\n\n", chunk({"content": "b"}))

    assert failed[:2] == [Start("c", "m"), TextPiece("a")]
    assert [type(delta) for delta in failed[2:]] == [Failure]
    assert done == [Start("c", "m"), Stop("end"), Done()]


def test_an_end_without_a_beginning_is_a_failure() -> None:
    assert [type(delta) for delta in read("openai", b"data: [DONE]\n\n")] == [Failure]
    assert [type(delta) for delta in read("anthropic", event({"type": "message_stop"}))] == [
        Failure
    ]


def test_an_end_in_the_middle_of_a_block_is_a_failure() -> None:
    deltas = read(
        "anthropic",
        event({"type": "message_start", "message": {"id": "m", "model": "m"}}),
        event({"type": "content_block_start", "content_block": {"type": "text", "text": "a"}}),
        event({"type": "message_delta", "delta": {"stop_reason": "end_turn"}}),
        event({"type": "message_stop"}),
    )

    assert [type(delta) for delta in deltas] == [Start, TextPiece, Stop, Failure]


def test_an_event_before_the_first_choice_tells_no_start() -> None:
    deltas = read("openai", event({"id": "", "model": "", "choices": []}), chunk({"content": "a"}))

    assert deltas == [Start("c", "m"), TextPiece("a")]


def test_a_stream_whose_end_gives_no_reason_is_complete() -> None:
    deltas = read("openai", chunk({"content": "a"}), b"data: [DONE]\n\n")

    assert deltas == [Start("c", "m"), TextPiece("a"), PartEnd(), Stop("end"), Done()]


def test_text_between_calls_of_tools_keeps_its_place() -> None:
    deltas = read("openai", call(0, "{}", "a"), chunk({"content": "And"}), call(1, "{}", "b"))

    assert deltas == [
        Start("c", "m"),
        ToolStart("a", "find"),
        ArgumentsPiece("{}"),
        PartEnd(),
        TextPiece("And"),
        PartEnd(),
        ToolStart("b", "find"),
        ArgumentsPiece("{}"),
    ]


def test_calls_that_waited_are_told_before_later_ones() -> None:
    deltas = read(
        "openai",
        call(0, "", "a"),
        call(1, '{"b":', "b"),
        call(0, "{}"),
        call(1, "1}"),
        call(2, "{}", "c"),
        chunk(reason="tool_calls"),
    )

    told = [delta.id for delta in deltas if isinstance(delta, ToolStart)]
    arguments = "".join(delta.text for delta in deltas if isinstance(delta, ArgumentsPiece))
    assert told == ["a", "b", "c"]
    assert arguments == '{}{"b":1}{}'


def named_call(index: Any, identifier: str, name: str, text: str) -> dict[str, Any]:
    return {"index": index, "id": identifier, "function": {"name": name, "arguments": text}}


@pytest.mark.parametrize("places", [(0, 0), (None, None), (7, 7)])
@pytest.mark.parametrize("first", ['{"a":1}', ""])
def test_calls_at_one_position_are_told_apart(places: tuple[Any, Any], first: str) -> None:
    calls = [
        named_call(places[0], "c1", "f", first),
        named_call(places[1], "c2", "g", '{"b":2}'),
    ]

    apart = read("openai", *(chunk({"tool_calls": [one]}) for one in calls), chunk(None, "stop"))
    at_once = read("openai", chunk({"tool_calls": calls}), chunk(None, "stop"))

    assert apart == at_once == [
        Start("c", "m"), ToolStart("c1", "f"), ArgumentsPiece(first or "{}"), PartEnd(),
        ToolStart("c2", "g"), ArgumentsPiece('{"b":2}'), PartEnd(), Stop("tool_use"),
    ]  # fmt: skip


def test_the_second_call_at_a_position_may_come_in_pieces() -> None:
    found = read(
        "openai",
        call(0, '{"a":1}', "c1"),
        call(0, '{"b"', "c2"),
        call(0, ":2}"),
        call(1, "{}", "c3"),
        chunk(None, "tool_calls"),
    )

    told = [one for one in found if isinstance(one, ToolStart | ArgumentsPiece)]
    assert told == [
        ToolStart("c1", "find"), ArgumentsPiece('{"a":1}'),
        ToolStart("c2", "find"), ArgumentsPiece('{"b"'), ArgumentsPiece(":2}"),
        ToolStart("c3", "find"), ArgumentsPiece("{}"),
    ]  # fmt: skip


def test_a_new_id_with_each_piece_is_the_same_call() -> None:
    found = read("openai", call(0, '{"a"', "c1"), call(0, ":1}", "c2"), chunk(None, "tool_calls"))

    assert [one for one in found if isinstance(one, ToolStart)] == [ToolStart("c1", "find")]
    assert [one.text for one in found if isinstance(one, ArgumentsPiece)] == ['{"a"', ":1}"]


def unmarked_call(index: Any, name: str, text: str) -> dict[str, Any]:
    """Return a call as servers tell it that give no ids."""
    return {"index": index, "id": "", "function": {"name": name, "arguments": text}}


@pytest.mark.parametrize("places", [(0, 0, 0), (0, 1, 2), (None, None, None)])
def test_calls_without_ids_are_told_apart_and_get_ids_of_their_places(places: Any) -> None:
    texts = ('{"a":1}', '{"b":2}', '{"c":3}')
    calls = [unmarked_call(place, "f", text) for place, text in zip(places, texts, strict=True)]

    found = read("openai", *(chunk({"tool_calls": [one]}) for one in calls), chunk(None, "stop"))

    assert [one.text for one in found if isinstance(one, ArgumentsPiece)] == list(texts)
    assert [one.id for one in found if isinstance(one, ToolStart)] == [
        "call_b45ce653e12c394408e40ca2",
        "call_242cb3fec8252e851da30f88",
        "call_16951c040f532c41d70bb760",
    ]


def test_a_call_without_an_id_may_come_in_pieces_that_all_name_it() -> None:
    pieces = [unmarked_call(0, "f", text) for text in ('{"a"', ":1}", "", " ")]

    found = read("openai", *(chunk({"tool_calls": [one]}) for one in pieces), chunk(None, "stop"))

    assert len([one for one in found if isinstance(one, ToolStart)]) == 1
    assert "".join(one.text for one in found if isinstance(one, ArgumentsPiece)) == '{"a":1} '


def test_a_call_without_an_id_and_arguments_ends_where_another_name_comes() -> None:
    calls = [unmarked_call(0, "f", ""), unmarked_call(0, "g", "{}")]

    found = read("openai", *(chunk({"tool_calls": [one]}) for one in calls), chunk(None, "stop"))

    assert [one.name for one in found if isinstance(one, ToolStart)] == ["f", "g"]
    assert [one.text for one in found if isinstance(one, ArgumentsPiece)] == ["{}", "{}"]


def test_an_empty_reason_is_none() -> None:
    found = read(
        "openai",
        chunk({"role": "assistant", "content": ""}, ""),
        chunk({"content": "Hel"}, ""),
        chunk({"content": "lo"}, ""),
        chunk(None, "length"),
        b"data: [DONE]\n\n",
    )

    assert found == [
        Start("c", "m"), TextPiece("Hel"), TextPiece("lo"), PartEnd(), Stop("length"), Done(),
    ]  # fmt: skip


def test_arguments_for_a_call_that_was_complete_are_a_failure() -> None:
    late = read("openai", call(0, "{}", "a"), call(1, "{}", "b"), call(0, ',"x":1}'))
    blank = read("openai", call(0, "{}", "a"), call(1, "{}", "b"), call(0, " "))

    assert isinstance(late[-1], Failure)
    assert blank[-1] == ArgumentsPiece("{}")


def test_the_number_of_calls_is_bounded() -> None:
    calls = [call(index, "{}", f"c{index}") for index in range(TOOL_CALLS_MAX)]

    within = read("openai", *calls)
    beyond = read("openai", *calls, call(TOOL_CALLS_MAX, "{}", "more"))

    assert within[-1] == ArgumentsPiece("{}")
    assert isinstance(beyond[-1], Failure)


def test_a_failure_holds_nothing_of_what_the_provider_said() -> None:
    error = {"type": "error", "error": {"type": "sk-secret-123", "message": "sk-secret-123"}}
    googles = {"error": {"code": 429, "message": "sk-secret-123", "status": "sk-secret-123"}}

    failures = [read("anthropic", event(error))[-1], read("gemini", event(googles))[-1]]

    assert [type(failure) for failure in failures] == [Failure, Failure]
    assert "sk-" not in repr(failures)


def test_the_last_usage_counts_and_what_is_not_asked_for_is_not_told() -> None:
    deltas: list[Delta] = [
        Start("c", "m", Usage(input=1)),
        TextPiece("a"),
        PartEnd(),
        Stop("end"),
        UsageReport(Usage(input=3, output=2)),
        Done(),
    ]
    quiet = Reply(request_id="req_1", created=1, include_usage=False)

    asked = DIALECTS["openai"].stream_writer(REPLY).write(deltas)
    not_asked = DIALECTS["openai"].stream_writer(quiet).write(deltas)
    message = DIALECTS["anthropic"].stream_writer(REPLY).write(deltas)

    assert b'"prompt_tokens":3,"completion_tokens":2,"total_tokens":5' in asked
    assert b"usage" not in not_asked
    assert not_asked.endswith(b"data: [DONE]\n\n")
    assert message.count(b'"input_tokens":1,') == 1
    assert message.count(b'"input_tokens":3,') == 1


def test_every_event_of_anthropics_dialect_has_its_event_line() -> None:
    deltas = read("openai", chunk({"content": "a"}), event({"error": {"message": "no"}}))

    written = DIALECTS["anthropic"].stream_writer(REPLY).write(deltas)

    events = written.decode().split("\n\n")[:-1]
    named = [(told.partition("\n")[0], told.partition("\ndata: ")[2]) for told in events]
    assert [f"event: {json.loads(data)['type']}" for _, data in named] == [
        name for name, _ in named
    ]
    assert named[-1][0] == "event: error"


def test_a_stream_of_geminis_is_complete_when_its_body_ends_after_a_reason() -> None:
    reader = DIALECTS["gemini"].stream_reader()

    told = reader.read(part({"text": "a"}, reason="STOP"))

    assert told == [Start("c", "m"), TextPiece("a")]
    assert reader.end() == [PartEnd(), Stop("end"), Done()]
    assert reader.end() == []


def test_a_stream_of_geminis_without_a_reason_was_cut_off() -> None:
    assert read_to_the_end(part({"text": "a"})) == [Start("c", "m"), TextPiece("a")]
    assert read_to_the_end() == []


def test_the_end_of_the_body_says_nothing_where_the_last_event_did() -> None:
    for dialect in ("openai", "anthropic"):
        assert DIALECTS[dialect].stream_reader().end() == []


def test_of_the_usages_of_a_gemini_stream_the_last_one_counts() -> None:
    deltas = read_to_the_end(
        part({"text": "a"}, usageMetadata={"promptTokenCount": 7, "candidatesTokenCount": 1}),
        part({"text": "b"}, usageMetadata={"promptTokenCount": 7, "candidatesTokenCount": 2}),
        part(reason="STOP"),
        event({"usageMetadata": {"promptTokenCount": 7, "candidatesTokenCount": 3}}),
    )

    assert deltas[0] == Start("c", "m", Usage(input=7, output=1, source="reported"))
    assert [delta for delta in deltas if isinstance(delta, UsageReport)] == [
        UsageReport(Usage(input=7, output=3, source="reported"))
    ]


def test_a_gemini_call_stops_for_its_tools_and_names_a_place_for_an_id() -> None:
    call = {"functionCall": {"name": "now"}}

    first = read_to_the_end(part(call, call), part(reason="STOP"))
    again = read_to_the_end(part(call), part(call, reason="STOP"))

    assert first == again
    ids = [delta.id for delta in first if isinstance(delta, ToolStart)]
    assert len(set(ids)) == 2
    assert first[-2:] == [Stop("tool_use"), Done()]


def test_a_signature_closes_the_thought_it_belongs_to() -> None:
    deltas = read_to_the_end(
        part({"text": "Rain", "thought": True}),
        part({"text": "?", "thought": True}),
        part({"functionCall": {"id": "1", "name": "now"}, "thoughtSignature": "c2ln"}),
        part({"text": "And", "thought": True}, reason="STOP"),
    )

    assert deltas == [
        Start("c", "m"),
        ThinkingPiece("Rain"),
        ThinkingPiece("?"),
        ThinkingPiece(signature="google.c2ln"),
        PartEnd(),
        ToolStart("1", "now"),
        ArgumentsPiece("{}"),
        PartEnd(),
        ThinkingPiece("And"),
        PartEnd(),
        Stop("tool_use"),
        Done(),
    ]


@pytest.mark.parametrize(
    "broken",
    [
        {"inlineData": {"mimeType": "image/png", "data": "AA=="}},
        {"executableCode": {"code": "1"}},
        {"functionCall": {"name": "now", "willContinue": True}},
        {"functionCall": {"name": "now", "partialArgs": [{"jsonPath": "$.a"}]}},
        {"functionCall": {"name": ""}},
        {"functionCall": {"name": "now", "args": "x"}},
        {"functionCall": 1},
        {"text": 1},
    ],
)
def test_a_part_that_would_be_lost_is_a_failure(broken: dict[str, Any]) -> None:
    deltas = read_to_the_end(part({"text": "a"}), part(broken), part(reason="STOP"))

    assert [type(delta) for delta in deltas] == [Start, TextPiece, Failure]


def test_a_stream_of_geminis_may_be_one_array() -> None:
    deltas: list[Delta] = [
        Start("c", "m"),
        TextPiece("a"),
        ToolStart("1", "now"),
        ArgumentsPiece('{"a":'),
        ArgumentsPiece("1}"),
        PartEnd(),
        UsageReport(Usage(input=3, output=2)),
        Stop("tool_use"),
        Done(),
    ]
    reply = Reply(request_id="req_1", created=1, is_array=True)
    writer = DIALECTS["gemini"].stream_writer(reply)

    array = b"".join(writer.write([delta]) for delta in deltas)

    events = DIALECTS["gemini"].stream_writer(REPLY).write(deltas).decode().split("\n\n")[:-1]
    assert json.loads(array) == [json.loads(told.removeprefix("data: ")) for told in events]
    assert [told["candidates"][0]["content"]["parts"] for told in json.loads(array)] == [
        [{"text": "a"}],
        [
            {
                "functionCall": {"id": "1", "name": "now", "args": {"a": 1}},
                "thoughtSignature": "anothers",
            }
        ],
        [{"text": ""}],
    ]


def test_an_array_that_failed_does_not_seem_complete() -> None:
    reply = Reply(request_id="req_1", created=1, is_array=True)
    writer = DIALECTS["gemini"].stream_writer(reply)
    failure = Failure(GatewayError("E60"))

    written = writer.write([Start("c", "m"), TextPiece("a"), failure])
    at_once = DIALECTS["gemini"].stream_writer(reply).write([failure])

    assert json.loads(written + b"]")[1]["error"]["code"] == 503
    assert json.loads(at_once + b"]")[0]["error"]["status"] == "UNAVAILABLE"
