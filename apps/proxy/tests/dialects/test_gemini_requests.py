"""What a request of Google's dialect may hold that no golden file shows, and what it must not.

Over 400 lines because it is one table of what a request may hold.
"""

import base64
from typing import Any, Final

import pytest

from apps.core.errors import GatewayError
from apps.proxy.dialects.conversion import DIALECTS
from apps.proxy.dialects.gemini_request_reader import read_request, with_path
from apps.proxy.dialects.gemini_request_writer import without_path, write_request
from apps.proxy.dialects.gemini_schema import json_schema
from apps.proxy.dialects.neutral import (
    Document,
    Image,
    Reasoning,
    Request,
    Target,
    Text,
    Thinking,
    ToolResult,
    ToolUse,
    Turn,
)
from tests.support.cases import for_all

HI: Final = {"role": "user", "parts": [{"text": "Hi"}]}
TARGET: Final = Target(model="sent")


def asked(**members: Any) -> dict[str, Any]:
    return {"model": "m", "contents": [HI], **members}


def turns(*contents: dict[str, Any]) -> tuple[Turn, ...]:
    return read_request({"model": "m", "contents": list(contents)}).turns


def call(name: str, **told: Any) -> dict[str, Any]:
    return {"functionCall": {"name": name, **told}}


def answer(name: str, said: str, **told: Any) -> dict[str, Any]:
    return {"functionResponse": {"name": name, "response": {"output": said}, **told}}


def content(role: str, *parts: dict[str, Any]) -> dict[str, Any]:
    return {"role": role, "parts": list(parts)}


def refusal_of(body: dict[str, Any]) -> tuple[str, str | None]:
    with pytest.raises(GatewayError) as refusal:
        read_request(body)
    return refusal.value.row, refusal.value.param


@for_all(
    ("changed", "row", "param"),
    [
        ({"contents": None}, "E13", "contents"),
        ({"contents": []}, "E13", "contents"),
        ({"contents": [content("system")]}, "E13", "contents[0].role"),
        ({"contents": [content("user", {})]}, "E13", "contents[0].parts[0].text"),
        ({"contents": [content("user", {"text": 1})]}, "E13", "contents[0].parts[0].text"),
        (
            {"contents": [content("user", {"text": "a", **call("now")})]},
            "E13",
            "contents[0].parts[0]",
        ),
        ({"contents": [content("user", call("now"))]}, "E13", "contents[0].parts[0].functionCall"),
        (
            {"contents": [content("model", answer("now", "1"))]},
            "E13",
            "contents[0].parts[0].functionResponse",
        ),
        (
            {"contents": [content("user", answer("now", "1"))]},
            "E13",
            "contents[0].parts[0].functionResponse.name",
        ),
        ({"contents": [content("model", call("a", args=[]))]}, "E13",
         "contents[0].parts[0].functionCall.args"),
        ({"generationConfig": {"maxOutputTokens": 0}}, "E13", "generationConfig.maxOutputTokens"),
        ({"generation_config": {"max_output_tokens": "x"}}, "E13",
         "generation_config.max_output_tokens"),
        ({"generationConfig": {"temperature": 2.5}}, "E13", "generationConfig.temperature"),
        ({"generationConfig": {"topK": 1.5}}, "E13", "generationConfig.topK"),
        ({"generationConfig": {"candidateCount": 0}}, "E13", "generationConfig.candidateCount"),
        ({"generationConfig": {"thinkingConfig": {"thinkingBudget": -2}}}, "E13",
         "generationConfig.thinkingConfig.thinkingBudget"),
        ({"generationConfig": {"thinkingConfig": {"thinkingLevel": "DEEP"}}}, "E13",
         "generationConfig.thinkingConfig.thinkingLevel"),
        ({"generationConfig": {"responseSchema": {"type": "STRING"}}}, "E13",
         "generationConfig.responseMimeType"),
        (
            {"generationConfig": {"responseSchema": {}, "responseJsonSchema": {}}},
            "E13",
            "generationConfig.responseSchema",
        ),
        ({"tools": [{"functionDeclarations": [{"description": "x"}]}]}, "E13",
         "tools[0].functionDeclarations[0].name"),
        (
            {"tools": [{"functionDeclarations": [
                {"name": "a", "parameters": {}, "parametersJsonSchema": {}}]}]},
            "E13",
            "tools[0].functionDeclarations[0].parameters",
        ),
        ({"toolConfig": {"functionCallingConfig": {"mode": "MAYBE"}}}, "E13",
         "toolConfig.functionCallingConfig.mode"),
        ({"systemInstruction": "Be brief."}, "E13", "systemInstruction"),
        ({"systemInstruction": content("user", call("a"))}, "E13",
         "systemInstruction.parts[0].text"),
        ({"generationConfig": {"topP": 0.5, "top_p": 0.5}}, "E12", "generationConfig.top_p"),
        ({"system_instruction": {}, "systemInstruction": {}}, "E12", "system_instruction"),
    ],
)  # fmt: skip
def test_a_request_that_cannot_be_is_refused_by_the_parameter_at_fault(
    changed: dict[str, Any], row: str, param: str
) -> None:
    assert refusal_of(asked(**changed)) == (row, param)


@pytest.mark.parametrize(
    "tool",
    [
        "googleSearchRetrieval", "codeExecution", "code_execution", "urlContext", "url_context",
        "fileSearch", "googleMaps", "computerUse", "retrieval", "enterpriseWebSearch", "mcpServers",
        "aToolOfTomorrow",
    ],
)  # fmt: skip
@pytest.mark.parametrize("told", [{}, {"x": 1}, []])
def test_a_tool_that_google_runs_is_refused_even_where_it_is_told_by_nothing(
    tool: str, told: Any
) -> None:
    declared = {"functionDeclarations": [{"name": "a"}], tool: told}

    assert refusal_of(asked(tools=[declared])) == ("E14", f"tools[0].{tool}")


def test_an_answer_without_an_id_belongs_to_the_first_open_call_of_its_name() -> None:
    found = turns(
        HI,
        content("model", call("a"), call("b"), call("a")),
        content("function", answer("b", "1"), answer("a", "2"), answer("a", "3")),
    )

    first, second, third = found[1].parts
    results = [part for part in found[2].parts if isinstance(part, ToolResult)]
    assert [result.id for result in results] == [
        part.id for part in (second, first, third) if isinstance(part, ToolUse)
    ]


def test_answers_with_ids_may_come_in_any_order_and_lose_ids_on_one_side() -> None:
    both = turns(
        content("model", call("a", id="1"), call("a", id="2")),
        content("user", answer("a", "x", id="2"), answer("a", "y", id="1")),
    )
    lost = turns(
        content("model", call("a", id="1")),
        content("user", answer("a", "x")),
    )
    made = turns(
        content("model", call("a")),
        content("user", answer("a", "x", id="of-the-clients")),
    )

    assert [part.id for part in both[1].parts if isinstance(part, ToolResult)] == ["2", "1"]
    assert [part.id for part in lost[1].parts if isinstance(part, ToolResult)] == ["1"]
    assert isinstance(made[0].parts[0], ToolUse)
    assert isinstance(made[1].parts[0], ToolResult)
    assert made[0].parts[0].id == made[1].parts[0].id


def test_a_call_of_an_earlier_turn_is_not_answered_any_more() -> None:
    late = {
        "model": "m",
        "contents": [
            content("model", call("a")),
            HI,
            content("model", {"text": "Never mind."}),
            content("user", answer("a", "x")),
        ],
    }

    assert refusal_of(late) == ("E13", "contents[3].parts[0].functionResponse.name")


def test_ids_that_are_made_differ_and_stay_the_same() -> None:
    contents = (HI, content("model", call("a"), call("a")), HI, content("model", call("a")))

    ids = [part.id for turn in turns(*contents) for part in turn.parts if isinstance(part, ToolUse)]
    again = [
        part.id for turn in turns(*contents) for part in turn.parts if isinstance(part, ToolUse)
    ]

    assert len(set(ids)) == 3
    assert ids == again
    assert all(len(identifier) <= 40 for identifier in ids)


def test_contents_of_a_stream_are_one_turn() -> None:
    found = turns(
        HI,
        content("model", {"text": "I ", "thought": True}),
        content("model", {"text": "think.", "thought": True}),
        content("model", {**call("a", id="1"), "thoughtSignature": "c2ln"}),
        content("model", {"text": "", "thoughtSignature": "bW9yZQ=="}),
    )

    assert found[1].parts == (
        Thinking("I think.", "google.c2ln", at="contents[1].parts[0]"),
        ToolUse("1", "a", "{}", at="contents[3].parts[0].functionCall"),
        Thinking("", "google.bW9yZQ==", at="contents[4].parts[0]"),
    )


def test_base64_of_googles_sdks_becomes_that_of_everybody() -> None:
    data = base64.urlsafe_b64encode(b"\xfb\xff\xfe").decode()
    found = turns(
        content("user", {"inlineData": {"mimeType": "image/png", "data": data}}),
        content("model", {"text": "a", "thoughtSignature": data}),
    )

    assert data == "-__-"
    image, thought = found[0].parts[0], found[1].parts[0]
    assert isinstance(image, Image)
    assert isinstance(thought, Thinking)
    assert (image.data, thought.signature) == ("+//+", "google.+//+")


def test_numbers_come_in_the_forms_of_protocol_buffers() -> None:
    request = read_request(
        asked(generation_config={"topK": 40.0, "max_output_tokens": "500", "seed": -3})
    )

    assert (request.top_k, request.output_limit, request.seed) == (40, 500, -3)


def test_a_text_in_base64_that_is_none_is_refused() -> None:
    broken = {"inlineData": {"mimeType": "text/plain", "data": "/w=="}}

    refusal = refusal_of(asked(contents=[content("user", broken)]))

    assert refusal == ("E13", "contents[0].parts[0].inlineData.data")


def test_an_image_that_lies_elsewhere_is_of_the_kind_that_everybody_knows() -> None:
    file = {"fileUri": "https://images.test/a", "mimeType": "image/jpg"}

    (turn,) = turns(content("user", {"fileData": file}))

    assert turn.parts == (
        Image("https://images.test/a", "image/jpeg", at="contents[0].parts[0].fileData"),
    )


def test_a_text_of_any_kind_is_a_text() -> None:
    table = {"inlineData": {"mimeType": "text/csv; charset=utf-8", "data": "YSxi"}}

    (turn,) = turns(content("user", table))

    assert turn.parts == (Document(text="a,b", at="contents[0].parts[0].inlineData"),)


@pytest.mark.parametrize(
    ("told", "found"),
    [
        ({"thinkingBudget": 0}, Reasoning(is_on=False)),
        ({"thinkingBudget": -1}, Reasoning(is_on=True, is_hidden=True, is_optional=True)),
        ({"thinkingBudget": 512, "includeThoughts": True}, Reasoning(True, None, 512)),
        ({"thinkingLevel": "low"}, Reasoning(True, "low", is_hidden=True)),
        ({"thinkingLevel": "THINKING_LEVEL_UNSPECIFIED"}, Reasoning(None, is_hidden=True)),
        ({"includeThoughts": False}, Reasoning(None, is_hidden=True)),
        ({"includeThoughts": True}, Reasoning(True, is_optional=True)),
    ],
)
def test_how_to_think_is_read(told: dict[str, Any], found: Reasoning) -> None:
    request = read_request(asked(generationConfig={"thinkingConfig": told}))

    assert request.reasoning == found


def test_the_path_tells_the_model_and_whether_it_is_a_stream() -> None:
    body = {"contents": [HI]}

    whole = with_path(body, model="gemini", is_stream=False)
    stream = with_path({**body, "model": "models/gemini"}, model="gemini", is_stream=True)

    assert (read_request(whole).model, read_request(whole).is_stream) == ("gemini", False)
    assert (read_request(stream).model, read_request(stream).is_stream) == ("gemini", True)
    assert body == {"contents": [HI]}


def test_a_body_must_not_contradict_its_path() -> None:
    with pytest.raises(GatewayError) as other:
        with_path({"model": "models/dear"}, model="cheap", is_stream=False)
    with pytest.raises(GatewayError) as stream:
        with_path({"stream": True}, model="cheap", is_stream=False)

    assert (other.value.row, other.value.param) == ("E13", "model")
    assert (stream.value.row, stream.value.param) == ("E14", "stream")


def test_what_belongs_into_the_path_is_taken_out_again() -> None:
    written = write_request(read_request(asked(stream=True)), TARGET)

    assert (written["model"], written["stream"]) == ("sent", True)
    assert without_path(written) == {"contents": [HI]}


def said(*parts: Any, role: Any = "assistant") -> list[dict[str, Any]]:
    request = Request("m", (Turn("user", (Text("Hi"),)), Turn(role, tuple(parts))))
    body = write_request(request, TARGET._replace(reasoning="budget"))
    written: list[dict[str, Any]] = body["contents"][1]["parts"]
    return written


def test_a_signature_stands_on_the_call_that_its_thought_led_to() -> None:
    use = ToolUse("1", "a", "{}")
    told = {"functionCall": {"id": "1", "name": "a", "args": {}}}

    assert said(Thinking("T", "google.S"), Text("I look."), use, use) == [
        {"text": "T", "thought": True},
        {"text": "I look."},
        {**told, "thoughtSignature": "S"},
        told,
    ]
    assert said(Thinking("T", "google.S"), Text("Yes.")) == [
        {"text": "T", "thought": True},
        {"text": "Yes.", "thoughtSignature": "S"},
    ]
    assert said(Thinking("", "google.S"), Thinking("", "google.R"), use) == [
        {"text": "", "thoughtSignature": "S"},
        {**told, "thoughtSignature": "R"},
    ]
    assert said(Text("Yes."), Thinking("", "google.S")) == [
        {"text": "Yes."},
        {"text": "", "thoughtSignature": "S"},
    ]
    assert said(Thinking(redacted="hidden"), Text("Yes.")) == [{"text": "Yes."}]


def test_a_result_of_a_call_that_nobody_knows_is_refused() -> None:
    result = ToolResult("1", (Text("x"),), at="messages[1]")

    with pytest.raises(GatewayError) as refusal:
        write_request(Request("m", (Turn("user", (result,)),)), TARGET)

    assert (refusal.value.row, refusal.value.param) == ("E14", "messages[1]")


def test_results_come_first_and_their_images_after_all_of_them() -> None:
    image = Image("", "image/png", "AA==")
    uses = (ToolUse("1", "a", "{}"), ToolUse("2", "b", "{}"))
    results = (ToolResult("1", (image,)), ToolResult("2", (Text("x"), Text("y")), is_error=True))
    request = Request("m", (Turn("assistant", uses), Turn("user", (Text("Well?"), *results))))
    within = TARGET._replace(extensions=frozenset({"media_results"}))
    blob = {"inlineData": {"mimeType": "image/png", "data": "AA=="}}

    beside = write_request(request, TARGET)["contents"][1]["parts"]
    inside = write_request(request, within)["contents"][1]["parts"]

    first = {"id": "1", "name": "a", "response": {"output": ""}}
    second = {"functionResponse": {"id": "2", "name": "b", "response": {"error": ["x", "y"]}}}
    assert beside == [{"functionResponse": first}, second, blob, {"text": "Well?"}]
    assert inside == [
        {"functionResponse": {**first, "parts": [blob]}},
        second,
        {"text": "Well?"},
    ]


@pytest.mark.parametrize(
    ("effort", "limit", "told"),
    [
        ("max", None, {"thinkingBudget": 24_576, "includeThoughts": True}),
        ("low", None, {"thinkingBudget": 4_096, "includeThoughts": True}),
        ("low", 2_000, {"thinkingBudget": 1_600, "includeThoughts": True}),
        ("low", 1_000, {"thinkingBudget": 0}),
    ],
)
def test_an_effort_is_a_budget_that_every_model_takes(
    effort: Any, limit: int | None, told: dict[str, Any]
) -> None:
    request = Request("m", (Turn("user", (Text("Hi"),)),), reasoning=Reasoning(True, effort))
    target = TARGET._replace(reasoning="budget", output_cap=limit)

    config = write_request(request, target)["generationConfig"]

    assert config["thinkingConfig"] == told


def test_googles_schemas_become_json_schema_to_their_depths() -> None:
    own = {
        "type": "OBJECT",
        "properties": {
            "type": {"type": "STRING", "enum": ["a"], "nullable": True},
            "nullable": {"type": "TYPE_UNSPECIFIED", "example": 1},
            "list": {"type": "ARRAY", "items": {"any_of": [{"type": "NUMBER"}], "nullable": True},
                     "min_items": "1", "maxItems": 3},
        },
        "propertyOrdering": ["list", "type", "gone"],
    }  # fmt: skip

    assert json_schema(own) == {
        "type": "object",
        "properties": {
            "list": {
                "type": "array",
                "items": {"anyOf": [{"type": "number"}, {"type": "null"}]},
                "minItems": 1,
                "maxItems": 3,
            },
            "type": {"type": ["string", "null"], "enum": ["a", None]},
            "nullable": {"examples": [1]},
        },
    }
    assert list(json_schema(own)["properties"]) == ["list", "type", "nullable"]


def test_an_anthropic_client_keeps_its_thoughts_with_a_gemini_model() -> None:
    thought = {"type": "thinking", "thinking": "Hm.", "signature": "google.c2ln"}
    use = {"type": "tool_use", "id": "1", "name": "a", "input": {}}
    body = {
        "model": "m",
        "max_tokens": 9,
        "messages": [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": [thought, use]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1"}]},
        ],
    }

    written = write_request(DIALECTS["anthropic"].read_request(body), TARGET)

    assert written["contents"][1]["parts"] == [
        {"text": "Hm.", "thought": True},
        {"functionCall": {"id": "1", "name": "a", "args": {}}, "thoughtSignature": "c2ln"},
    ]
