"""What calls of Responses can cost, and what they did: requests, whole answers and streams.

Over 400 lines because requests, streams and whole answers share what is said in them.
"""

from typing import Any, Final

import orjson
import pytest

from apps.core.errors import GatewayError
from apps.core.usage import Usage
from apps.proxy.dialects.parsed_request import ParsedRequest
from apps.proxy.dialects.providers import PROVIDERS, Sending
from apps.proxy.dialects.responses_metering import read_metered_answer
from apps.proxy.dialects.responses_stream import ResponsesStreamMeter
from apps.proxy.dialects.surfaces import input_tokens_bound, parse_request
from apps.proxy.json_body import serialise
from apps.proxy.sse import EventBuffer
from apps.proxy.tests.dialects.events import named_event
from tests.support.cases import for_all

HI: Final = [{"role": "user", "content": "Hi"}]
CONTEXT: Final = 100_000
IMAGE_TOKENS: Final = 1_000
USAGE: Final = {
    "input_tokens": 10,
    "input_tokens_details": {"cached_tokens": 4},
    "output_tokens": 5,
    "output_tokens_details": {"reasoning_tokens": 2},
    "total_tokens": 15,
}
USED: Final = Usage(input=6, cache_read=4, output=3, reasoning=2, source="reported")
SEARCH: Final = {"type": "web_search_call", "status": "completed", "action": {"type": "search"}}
OPENED: Final = {"type": "web_search_call", "status": "completed", "action": {"type": "open_page"}}


# ---- requests


def parsed(**members: Any) -> ParsedRequest:
    return parse_request("responses", "openai-responses", {"model": "m", "input": HI, **members})


def bound(**members: Any) -> int:
    request = parsed(**members)
    return input_tokens_bound(request, serialise(request.body), CONTEXT, IMAGE_TOKENS)


def refusal(**members: Any) -> tuple[str, str | None]:
    with pytest.raises(GatewayError) as error:
        parsed(**members)
    return error.value.row, error.value.param


def test_a_request_tells_what_it_can_cost() -> None:
    request = parsed(max_output_tokens=50, stream=True, service_tier="flex", store=True)

    assert (request.model, request.is_stream, request.choices) == ("m", True, 1)
    assert (request.output_tokens_asked, request.output_parameter) == (50, "max_output_tokens")
    assert (request.service_tier, request.search_parameter) == ("flex", "")
    assert (request.has_images, request.has_audio) == (False, False)
    assert (request.dialect, request.include_usage) == ("openai-responses", True)
    assert request.body["store"] is True
    assert parsed().output_parameter is None
    assert parsed(service_tier="auto").service_tier == ""


@pytest.mark.parametrize(
    "members",
    [
        {"input": "Hi"},
        {"tools": [{"type": "function", "name": "a"}, {"type": "custom", "name": "b"}]},
        {"tools": [{"type": "local_shell"}, {"type": "apply_patch"}, {"type": "tool_search"}]},
        {"tools": [{"type": "shell", "environment": {"type": "local"}}]},
        {"tools": [{"type": "namespace", "name": "a", "tools": [{"type": "function"}]}]},
        {"reasoning": {"effort": "high", "summary": "auto", "mode": "standard"}},
        {"background": False, "context_management": None, "truncation": "auto"},
        {"input": None, "previous_response_id": "resp_1"},
        {"include": ["reasoning.encrypted_content"], "prompt_cache_key": "k", "frobnicate": 1},
        {"input": [{"type": "future_item", "x": 1}]},
    ],
)
def test_what_costs_nothing_but_tokens_passes_as_it_is(members: dict[str, Any]) -> None:
    body = {"model": "m", "input": HI, **members}

    assert parsed(**members).body == body


@for_all(
    ("members", "row", "param"),
    [
        ({"background": True}, "E14", "background"),
        ({"conversation": {"id": "conv_1"}}, "E14", "conversation"),
        ({"background": 1}, "E13", "background"),
        ({"context_management": [{"type": "compaction"}]}, "E14", "context_management"),
        ({"moderation": {"model": "x"}}, "E14", "moderation"),
        ({"reasoning": {"mode": "pro"}}, "E14", "reasoning.mode"),
        ({"max_output_tokens": 0}, "E13", "max_output_tokens"),
        ({"max_output_tokens": True}, "E13", "max_output_tokens"),
        ({"maxOutputTokens": 9}, "E14", "maxOutputTokens"),
        ({"max_tokens": 9}, "E14", "max_tokens"),
        ({"n": 2}, "E14", "n"),
        ({"messages": HI}, "E14", "messages"),
        ({"service_tier": 1}, "E14", "service_tier"),
        ({"input": None}, "E13", "input"),
        ({"input": 1}, "E13", "input"),
        ({"input": [1]}, "E13", "input[0]"),
        ({"tools": {}}, "E13", "tools"),
        ({"tools": [1]}, "E13", "tools[0]"),
        ({"tools": [{"name": "a"}]}, "E13", "tools[0].type"),
        ({"tools": [{"type": "function", "Type": "mcp"}]}, "E14", "tools[0].Type"),
        ({"tools": [{"type": "file_search"}]}, "E14", "tools[0].type"),
        ({"tools": [{"type": "code_interpreter"}]}, "E14", "tools[0].type"),
        ({"tools": [{"type": "image_generation"}]}, "E14", "tools[0].type"),
        ({"tools": [{"type": "mcp"}]}, "E14", "tools[0].type"),
        ({"tools": [{"type": "programmatic_tool_calling"}]}, "E14", "tools[0].type"),
        ({"input": [*HI, {"type": "compaction_trigger"}]}, "E14", "input[1].type"),
        ({"multi_agent": {"enabled": True}}, "E14", "multi_agent"),
        ({"access_programs": {"cyber": "daybreak_red"}}, "E14", "access_programs"),
        ({"caching": {"type": "enabled"}, "expire_at": 9}, "E14", "caching"),
        ({"tools": [{"type": "web_search_image"}]}, "E14", "tools[0].type"),
        ({"tools": [{"type": "web_search_2025_08_26_x"}]}, "E14", "tools[0].type"),
        ({"tools": [{"type": "shell"}]}, "E14", "tools[0].environment"),
        (
            {"tools": [{"type": "shell", "environment": {"type": "container_auto"}}]},
            "E14",
            "tools[0].environment",
        ),
        (
            {"tools": [{"type": "namespace", "name": "a", "tools": [{"type": "mcp"}]}]},
            "E14",
            "tools[0].tools[0].type",
        ),
        (
            {"input": [{"type": "additional_tools", "tools": [{"type": "code_interpreter"}]}]},
            "E14",
            "input[0].tools[0].type",
        ),
    ],
)
def test_what_cannot_be_metered_is_refused_by_its_place(
    members: dict[str, Any], row: str, param: str
) -> None:
    assert refusal(**members) == (row, param)


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"type": "web_search_2025_08_26"}]}, "tools[0].type"),
        ({"tools": [{"type": "web_search_preview"}]}, "tools[0].type"),
        ({"tools": [{"type": "web_search_preview_2025_03_11"}]}, "tools[0].type"),
        (
            {"tools": [{"type": "namespace", "name": "a", "tools": [{"type": "web_search"}]}]},
            "tools[0].tools[0].type",
        ),
        (
            {"input": [{"type": "additional_tools", "tools": [{"type": "web_search"}]}]},
            "input[0].tools[0].type",
        ),
    ],
)
def test_a_search_is_known_by_its_place(members: dict[str, Any], param: str) -> None:
    request = parsed(**members)

    assert (request.search_parameter, request.searches_max) == (param, None)
    assert parsed(**members, max_tool_calls=3).searches_max == 3


def test_text_is_bounded_by_its_bytes() -> None:
    body = {"model": "m", "input": HI}

    assert bound() == len(serialise(body)) + 64
    tools = [{"type": "function", "name": "a"}]
    assert bound(tools=tools) == len(serialise({**body, "tools": tools})) + 64 + 1024


def test_an_image_is_bounded_as_one() -> None:
    url = "data:image/png;base64," + "A" * 5000
    image = {"type": "input_image", "image_url": url}
    items = [{"role": "user", "content": [image]}]
    result = [{"type": "function_call_output", "call_id": "a", "output": [image]}]

    plain = len(serialise({"model": "m", "input": items}))
    assert bound(input=items) == plain + 64 + IMAGE_TOKENS - len(url)
    assert parsed(input=items).has_images
    assert bound(input=result) < 2_000
    hidden = [{"role": "user", "content": [{**image, "image_url": url + '"' * 5000}]}]
    assert bound(input=hidden) > 10_000


@pytest.mark.parametrize(
    "members",
    [
        {"previous_response_id": "resp_1"},
        {"prompt": {"id": "pmpt_1"}},
        {"input": [{"type": "item_reference", "id": "msg_1"}]},
        {"input": [{"id": "msg_1"}]},
        {"input": [{"type": "reasoning", "id": "rs_1", "summary": []}]},
        {"input": [{"type": "compaction", "encrypted_content": "x"}]},
        {"input": [{"type": "web_search_call", "id": "ws_1"}]},
        {"input": [{"type": ["message"]}]},
        {
            "input": [
                {
                    "role": "user",
                    "content": [{"type": "input_file", "file_url": "https://example.com/x"}],
                }
            ]
        },
        {"input": [{"role": "user", "content": [{"type": "input_file", "file_data": "x"}]}]},
        {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "x"}]}]},
        {"input": [{"role": "user", "content": [1]}]},
        {"input": [{"type": "computer_call_output", "output": {"type": "computer_screenshot"}}]},
    ],
)
def test_what_lies_elsewhere_is_bounded_by_the_context(members: dict[str, Any]) -> None:
    assert bound(**members) == CONTEXT
    assert parsed(**members).has_images


def test_a_sound_at_an_address_is_bounded_by_the_context() -> None:
    def said(data: str) -> list[dict[str, Any]]:
        sound = {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}
        return [{"role": "user", "content": [sound]}]

    held = "UklGRgAAAABXQVZFZm10IAAA"  # the first bytes of a WAV
    assert bound(input=said(held)) == len(serialise({"model": "m", "input": said(held)})) + 64
    assert bound(input=said("https://example.com/a.wav")) == CONTEXT


def test_a_sealed_thought_is_bounded_by_its_bytes() -> None:
    thought = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "A" * 400}

    assert 400 < bound(input=[thought, *HI]) < 700
    unsealed = {"type": "reasoning", "id": "rs_msg_1_0", "summary": []}  # which is left out
    assert bound(input=[unsealed, *HI]) < 300


def test_a_cap_takes_the_place_of_the_clients_own() -> None:
    sending = Sending("sent", is_stream=False, output_cap=300, cap_parameter="max_tokens")
    body = {"model": "m", "input": "Hi", "max_output_tokens": 900, "store": True}

    written = PROVIDERS["openai-responses"].body(body, sending)
    untouched = PROVIDERS["openai-responses"].body(body, sending._replace(output_cap=None))

    assert orjson.loads(written) == {**body, "model": "sent", "max_output_tokens": 300}
    assert orjson.loads(untouched) == {**body, "model": "sent"}
    assert body["model"] == "m"


# ---- whole answers


def message(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"type": "message", "content": list(parts)}


def text(said: str) -> dict[str, Any]:
    return {"type": "output_text", "text": said}


def answer(output: Any, **members: Any) -> bytes:
    document = {"id": "resp_1", "object": "response", "status": "completed", "error": None}
    return orjson.dumps({**document, "output": output, "usage": USAGE, **members})


def test_an_answer_tells_what_it_cost() -> None:
    body = answer([message(text("Hello!"))], service_tier="priority")

    found = read_metered_answer("responses", body)

    assert found.final_usage(estimated_input_tokens=99) == USED
    assert (found.finish_reason, found.service_tier) == ("completed", "priority")
    assert (found.has_content, found.choices, found.characters) == (True, 1, 6)


def test_searches_are_counted_and_unknown_items_pass() -> None:
    body = answer([SEARCH, OPENED, SEARCH, {"type": "future_item"}, message(text("Sunny."))])

    found = read_metered_answer("responses", body)

    assert found.final_usage(estimated_input_tokens=99) == USED._replace(web_search=2)
    assert [item["type"] for item in found.document["output"]][3] == "future_item"


def test_without_usage_all_that_was_said_is_estimated() -> None:
    output = [
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}]},
        message(text("Hello!"), {"type": "refusal", "refusal": "No."}),
        {"type": "function_call", "name": "find", "arguments": '{"a":1}'},
        {"type": "custom_tool_call", "name": "run", "input": "print(1)"},
    ]

    found = read_metered_answer("responses", answer(output, usage=None))

    # In the order of the members that are looked at: names come with what is called.
    assert [part.text for part in found.excerpts()] == [
        "Hm.", "Hello!", "No.", '{"a":1}', "find", "print(1)", "run",
    ]  # fmt: skip
    usage = found.final_usage(estimated_input_tokens=99)
    assert (usage.source, usage.input, usage.is_suspect) == ("estimated", 99, False)
    assert usage.output > 5


def test_an_answer_that_was_cut_tells_why() -> None:
    cut = answer([], status="incomplete", incomplete_details={"reason": "max_output_tokens"})

    found = read_metered_answer("responses", cut)

    assert (found.finish_reason, found.has_content) == ("max_output_tokens", False)


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b'{"object":"chat.completion","choices":[]}',
        answer(None),
        answer([1]),
        answer([], status="failed"),
        answer([], status="in_progress"),
        answer([], error={"code": "server_error"}),
    ],
)
def test_what_is_no_answer_is_the_providers_fault(body: bytes) -> None:
    with pytest.raises(GatewayError) as error:
        read_metered_answer("responses", body)

    assert error.value.row == "E49"


# ---- streams


def delta(said: str, kind: str = "response.output_text.delta") -> bytes:
    return named_event(kind, item_id="msg_1", output_index=0, delta=said)


def response(**told: Any) -> dict[str, Any]:
    return {"id": "resp_1", "model": "gpt-5", "error": None, "usage": None, **told}


CREATED: Final = named_event("response.created", response=response(status="in_progress"))
COMPLETED: Final = named_event(
    "response.completed",
    response=response(status="completed", output=[], usage=USAGE, service_tier="default"),
)


def metered(*events: bytes) -> tuple[ResponsesStreamMeter, bytes]:
    meter = ResponsesStreamMeter()
    return meter, b"".join(meter.observe(block) for block in events)


def test_a_stream_passes_but_for_its_last_event() -> None:
    meter, passed = metered(CREATED, delta("Hel"), delta("lo!"), COMPLETED, delta("late"))

    assert passed == CREATED + delta("Hel") + delta("lo!")
    assert meter.last_frame == COMPLETED
    assert (meter.done_seen, meter.error, meter.is_whole(1)) == (True, None, True)
    assert meter.final_usage(estimated_input_tokens=99) == USED
    assert (meter.finish_reason, meter.service_tier) == ("completed", "default")
    assert (meter.upstream_id, meter.upstream_model) == ("resp_1", "gpt-5")


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
def test_a_stream_is_metered_alike_at_every_split(line_end: bytes) -> None:
    quoted = delta('{"type":"response.completed","error":{"code":"x"}}')
    raw = (CREATED + quoted + COMPLETED).replace(b"\n", line_end)
    for cut in range(1, len(raw)):
        buffer, meter = EventBuffer(), ResponsesStreamMeter()
        passed = meter.observe(buffer.feed(raw[:cut])) + meter.observe(buffer.feed(raw[cut:]))

        assert meter.done_seen
        assert meter.error is None
        assert meter.final_usage(estimated_input_tokens=99) == USED
        end = raw.index(b"event: response.completed")
        assert passed.rstrip(b"\r\n") == raw[:end].rstrip(b"\r\n")


def test_most_events_are_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed_events: list[bytes] = []
    observe = ResponsesStreamMeter._observe_event

    def note(self: ResponsesStreamMeter, told: bytes) -> bool:
        parsed_events.append(told)
        return observe(self, told)

    monkeypatch.setattr(ResponsesStreamMeter, "_observe_event", note)
    item = named_event("response.output_item.done", item=message(text('an "error" is no error')))
    metered(CREATED, *[delta("Hello")] * 50, item, COMPLETED)

    assert parsed_events == [COMPLETED]


def test_an_answer_that_was_cut_is_complete_all_the_same() -> None:
    last = named_event(
        "response.incomplete",
        response=response(
            status="incomplete", incomplete_details={"reason": "content_filter"}, usage=USAGE
        ),
    )

    meter, _ = metered(CREATED, delta("Hi"), last)

    assert (meter.done_seen, meter.last_frame) == (True, last)
    assert meter.finish_reason == "content_filter"
    assert meter.final_usage(estimated_input_tokens=99) == USED


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (named_event("error", code="rate_limit_exceeded", message="x"), "rate_limit_exceeded"),
        (named_event("error", error={"code": "server_error"}), "server_error"),
        (
            named_event("response.failed", response=response(error={"code": "server_error"})),
            "server_error",
        ),
        (named_event("response.cancelled", response=response()), None),
        (b'data: {"error":{"message":"x","code":"sk-secret"}}\n\n', None),
        (b"event: error\ndata: {oops\n\n", None),
    ],
)
def test_a_stream_that_fails_is_charged_for_what_was_delivered(
    failure: bytes, code: str | None
) -> None:
    meter, passed = metered(CREATED, delta("Hello there, how are you?"), failure, COMPLETED)

    assert passed == CREATED + delta("Hello there, how are you?")
    assert (meter.done_seen, meter.is_whole(1)) == (False, False)
    assert meter.error is not None
    assert (meter.error.row, meter.upstream_error_code) == ("E60", code)
    usage = meter.final_usage(estimated_input_tokens=99)
    assert (usage.source, usage.input) == ("estimated", 99)
    assert 3 <= usage.output <= 12


def test_a_failure_may_tell_what_was_used() -> None:
    failed = named_event(
        "response.failed", response=response(error={"code": "server_error"}, usage=USAGE)
    )

    meter, _ = metered(CREATED, delta("Hi"), failed)

    assert meter.error is not None
    assert meter.final_usage(estimated_input_tokens=99) == USED


def test_all_kinds_of_pieces_are_counted_and_no_repetition_of_them() -> None:
    said = "one two three four five six seven eight"
    kinds = (
        "response.output_text.delta",
        "response.refusal.delta",
        "response.function_call_arguments.delta",
        "response.custom_tool_call_input.delta",
        "response.reasoning_summary_text.delta",
        "response.reasoning_text.delta",
    )

    each = [metered(CREATED, delta(said, kind))[0] for kind in kinds]
    repeated, _ = metered(
        CREATED,
        delta(said),
        named_event("response.output_text.done", text=said),
        named_event("response.output_item.done", item=message(text(said))),
    )

    assert {meter.estimated_output_tokens() for meter in (*each, repeated)} == {
        each[0].estimated_output_tokens()
    }
    assert each[0].estimated_output_tokens() >= 8
    assert [part.text for part in repeated.excerpts()] == [said]


def test_a_call_without_arguments_is_something() -> None:
    item = {"type": "function_call", "name": "now", "arguments": ""}

    meter, _ = metered(CREATED, named_event("response.output_item.added", item=item))

    assert meter.saw_content
    assert meter.final_usage(estimated_input_tokens=9).output == 1


def test_nothing_is_charged_where_nothing_was_produced() -> None:
    meter, _ = metered(CREATED)

    assert meter.final_usage(estimated_input_tokens=99) == Usage()


def test_an_answer_that_is_told_all_at_once_is_counted() -> None:
    said = "one two three four five six seven eight"
    whole = response(status="completed", output=[message(text(said))])

    meter, passed = metered(CREATED, named_event("response.completed", response=whole))

    assert passed == CREATED
    assert [part.text for part in meter.excerpts()] == [said]
    usage = meter.final_usage(estimated_input_tokens=9)
    assert (usage.source, usage.input) == ("estimated", 9)
    assert usage.output >= 8


def test_searches_count_even_where_the_stream_breaks_off() -> None:
    def done(item: dict[str, Any]) -> bytes:
        return named_event("response.output_item.done", output_index=0, item=item)

    added = named_event(
        "response.output_item.added", item={"type": "web_search_call", "id": "ws_1"}
    )
    searched = (CREATED, added, done(SEARCH), done(OPENED), delta("It is sunny today."))
    last = named_event(
        "response.completed",
        response=response(status="completed", output=[SEARCH, OPENED], usage=USAGE),
    )

    broken, passed = metered(*searched)
    whole, _ = metered(*searched, last)

    assert passed == b"".join(searched)
    assert broken.final_usage(estimated_input_tokens=9).web_search == 1
    assert whole.final_usage(estimated_input_tokens=9) == USED._replace(web_search=1)


@pytest.mark.parametrize(
    ("block", "begins"),
    [
        (CREATED, True),
        (b": keepalive\n\n", None),
        (named_event("keepalive"), None),
        (named_event("keepalive") + CREATED, True),
        (named_event("response.queued", response=response()), True),
        (b'data: {"id":"c","choices":[]}\n\n', False),
        (b"data: 1\n\n", False),
        (named_event("message_start"), None),
        (b"", None),
    ],
)
def test_a_stream_begins_with_an_event_of_a_response(block: bytes, begins: bool | None) -> None:
    assert ResponsesStreamMeter().begins_an_answer(block) is begins


def test_a_stream_of_one_event_begins_with_its_end() -> None:
    meter, passed = metered(COMPLETED)

    assert passed == b""
    assert meter.begins_an_answer(passed) is True
