"""What requests in OpenAI's dialect may hold: what passes, what is refused and under which name.

Over 400 lines because it is one table of cases after another over one parser.
"""

import json
from typing import Any, get_args

import pytest

from apps.core.errors import GatewayError
from apps.proxy.dialects.openai_request import parse_request
from apps.proxy.dialects.parsed_request import Endpoint, ParsedRequest
from tests.support.cases import for_all

CHAT: dict[str, Any] = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}]}
COMPLETION: dict[str, Any] = {"model": "davinci", "prompt": "Once"}
EMBEDDING: dict[str, Any] = {"model": "ada", "input": "text"}
RANKING: dict[str, Any] = {"model": "ranker", "query": "a", "documents": ["a", "b"]}


def refusal(endpoint: Endpoint, body: dict[str, Any]) -> tuple[str, str, str | None]:
    with pytest.raises(GatewayError) as caught:
        parse_request(endpoint, body)
    error = caught.value
    assert error.status == 400
    return error.row, error.code, error.param


def test_a_minimal_chat_request_is_one_unbounded_answer_at_once() -> None:
    assert parse_request("chat/completions", CHAT) == ParsedRequest(
        endpoint="chat/completions",
        model="gpt-4o",
        is_stream=False,
        include_usage=False,
        choices=1,
        output_tokens_asked=None,
        output_parameter=None,
        has_images=False,
        has_audio=False,
        body=CHAT,
    )


def test_what_concerns_money_is_read() -> None:
    body = CHAT | {
        "stream": True,
        "stream_options": {"include_usage": True},
        "n": 4,
        "max_completion_tokens": 500,
    }

    request = parse_request("chat/completions", body)

    assert request.is_stream
    assert request.include_usage
    assert request.choices == 4
    assert (request.output_parameter, request.output_tokens_asked) == ("max_completion_tokens", 500)


def test_the_larger_of_two_maxima_counts() -> None:
    body = CHAT | {"max_completion_tokens": 5, "max_tokens": 7}

    request = parse_request("chat/completions", body)

    assert (request.output_parameter, request.output_tokens_asked) == ("max_tokens", 7)


@pytest.mark.parametrize(
    ("value", "tier"),
    [(None, ""), ("auto", ""), ("default", ""), ("flex", "flex"), ("priority", "priority")],
)
def test_a_service_tier_is_read_and_left_in_the_body(value: str | None, tier: str) -> None:
    request = parse_request("chat/completions", CHAT | {"service_tier": value})

    assert (request.service_tier, request.body["service_tier"]) == (tier, value)


def test_a_search_is_noted_and_its_options_are_left_in_the_body() -> None:
    options = {"search_context_size": "low"}
    request = parse_request("chat/completions", CHAT | {"web_search_options": options})

    assert (request.has_web_search, request.body["web_search_options"]) == (True, options)
    assert not parse_request("chat/completions", CHAT).has_web_search


@pytest.mark.parametrize(
    ("content", "bound"),
    [("ab", 33), ("é", 33), ([{"type": "text", "text": "ab"}], 58)],
)
def test_a_prediction_is_bounded_by_its_bytes(content: object, bound: int) -> None:
    prediction = {"type": "content", "content": content}

    request = parse_request("chat/completions", CHAT | {"prediction": prediction})

    assert request.beside_bound == bound


@pytest.mark.parametrize("name", ["prediction", "web_search_options"])
def test_what_only_chats_have_is_refused_elsewhere(name: str) -> None:
    assert refusal("completions", COMPLETION | {name: {}}) == ("E14", "unsupported_parameter", name)


def test_null_is_absent() -> None:
    names = ("stream", "stream_options", "n", "max_tokens", "tools", "modalities", "service_tier")

    request = parse_request("chat/completions", CHAT | dict.fromkeys(names, None))

    assert request.choices == 1
    assert request.output_tokens_asked is None
    assert not request.is_stream


@pytest.mark.parametrize(
    "options",
    [None, {}, {"include_usage": False}, {"include_usage": "yes"}, {"include_usage": 1}, 5, []],
)
def test_only_a_clear_yes_asks_for_the_usage_event(options: object) -> None:
    body = CHAT | {"stream": True, "stream_options": options}

    assert not parse_request("chat/completions", body).include_usage


MISSING, TYPE, VALUE = "missing_required_parameter", "invalid_type", "invalid_value"
BELOW, ABOVE = "integer_below_min_value", "integer_above_max_value"


@for_all(
    ("change", "code", "param"),
    [
        ({"model": None}, MISSING, "model"),
        ({"model": 5}, TYPE, "model"),
        ({"model": ["gpt-4o"]}, TYPE, "model"),
        ({"model": ""}, VALUE, "model"),
        ({"model": "a" * 257}, VALUE, "model"),
        ({"model": "gpt\r\nx-header: 1"}, VALUE, "model"),
        ({"messages": None}, MISSING, "messages"),
        ({"messages": "Hi"}, TYPE, "messages"),
        ({"messages": {}}, TYPE, "messages"),
        ({"messages": []}, VALUE, "messages"),
        ({"messages": ["Hi"]}, TYPE, "messages[0]"),
        ({"messages": [{"content": "Hi"}]}, MISSING, "messages[0].role"),
        ({"messages": [{"role": 1}]}, TYPE, "messages[0].role"),
        ({"messages": [{"role": "root"}]}, VALUE, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 5}]}, TYPE, "messages[0].content"),
        ({"messages": [{"role": "user", "content": ["a"]}]}, TYPE, "messages[0].content[0]"),
        ({"stream": "true"}, TYPE, "stream"),
        ({"stream": 1}, TYPE, "stream"),
        ({"n": 0}, BELOW, "n"),
        ({"n": -1}, BELOW, "n"),
        ({"n": 129}, ABOVE, "n"),
        ({"n": True}, TYPE, "n"),
        ({"n": 1.0}, TYPE, "n"),
        ({"n": "1"}, TYPE, "n"),
        ({"max_tokens": 0}, BELOW, "max_tokens"),
        ({"max_tokens": -1}, BELOW, "max_tokens"),
        ({"max_tokens": True}, TYPE, "max_tokens"),
        ({"max_tokens": "5"}, TYPE, "max_tokens"),
        ({"max_tokens": 1.5}, TYPE, "max_tokens"),
        ({"max_tokens": 2**63}, ABOVE, "max_tokens"),
        ({"max_completion_tokens": 0}, BELOW, "max_completion_tokens"),
        ({"max_completion_tokens": []}, TYPE, "max_completion_tokens"),
        ({"tools": {}}, TYPE, "tools"),
        ({"tools": ["web"]}, TYPE, "tools[0]"),
        ({"tools": [{"function": {}}]}, MISSING, "tools[0].type"),
        ({"modalities": "audio"}, TYPE, "modalities"),
        ({"audio": "alloy"}, TYPE, "audio"),
        ({"audio": True}, TYPE, "audio"),
    ],
)
def test_a_parameter_that_cannot_be_priced_as_it_stands_is_refused(
    change: dict[str, Any], code: str, param: str
) -> None:
    assert refusal("chat/completions", CHAT | change) == ("E13", code, param)


@for_all(
    ("change", "param"),
    [
        ({"service_tier": "x" * 33}, "service_tier"),
        ({"service_tier": ["auto"]}, "service_tier"),
        ({"service_tier": 1}, "service_tier"),
        ({"web_search_options": True}, "web_search_options"),
        ({"web_search_options": []}, "web_search_options"),
        ({"Web_Search_Options": {}}, "Web_Search_Options"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"type": {}}]}, "tools[0].type"),
        (
            {"tools": [{"type": "function", "function": {}}, {"type": "code_interpreter"}]},
            "tools[1].type",
        ),
        ({"modalities": ["text", "audio", "video"]}, "modalities"),
        ({"Audio": {"voice": "alloy"}}, "Audio"),
        ({"modalities": ["image"]}, "modalities"),
        ({"modalities": [[]]}, "modalities"),
        ({"prediction": "a"}, "prediction"),
        ({"prediction": {"type": "file", "content": "a"}}, "prediction"),
        ({"prediction": {"type": "content", "content": 5}}, "prediction"),
        ({"prediction": {"type": "content", "content": [{"type": "file"}]}}, "prediction"),
        ({"plugins": [{"id": "web"}]}, "plugins"),
        ({"search_parameters": {"mode": "on"}}, "search_parameters"),
        ({"enable_search": True}, "enable_search"),
        ({"models": ["cheap", "dear"]}, "models"),
        ({"fallbacks": ["dear"]}, "fallbacks"),
        ({"N": 5}, "N"),
        ({"Max_Tokens": 5}, "Max_Tokens"),
        ({"Service_Tier": "priority"}, "Service_Tier"),
        ({"Prediction": {}}, "Prediction"),
        ({"\u017ftream": True}, "\u017ftream"),
        ({"preset": "dear"}, "preset"),
        ({"max_new_tokens": 100_000}, "max_new_tokens"),
        ({"Max_Output_Tokens": 100_000}, "Max_Output_Tokens"),
        ({"num_return_sequences": 9}, "num_return_sequences"),
        ({"maxTokens": 100_000}, "maxTokens"),
        ({"maxTokens": None}, "maxTokens"),
        ({"serviceTier": "priority"}, "serviceTier"),
        ({"web-search-options": {}}, "web-search-options"),
        ({"options": {"num_predict": 100_000}}, "options"),
        ({"generationConfig": {"maxOutputTokens": 100_000}}, "generationConfig"),
        ({"compound_custom": {"tools": {"enabled_tools": ["web_search"]}}}, "compound_custom"),
        ({"connectors": [{"id": "web-search"}]}, "connectors"),
        ({"data_sources": [{"type": "azure_search"}]}, "data_sources"),
        ({"speed": "fast"}, "speed"),
        ({"vl_high_resolution_images": True}, "vl_high_resolution_images"),
        ({"tools": [{"type": "function", "Type": "web_search"}]}, "tools[0].Type"),
        (
            {"tools": [{"type": "function", "function": {"name": "f"}, "google_search": {}}]},
            "tools[0].google_search",
        ),
        (
            {"tools": [{"type": "custom"}, {"type": "function", "web_search": "on"}]},
            "tools[1].web_search",
        ),
        ({"messages": [{"role": "user", "Role": "system"}]}, "messages[0].Role"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "TYPE": "image_url"}]}]},
            "messages[0].content[0].TYPE",
        ),
    ],
)
def test_what_cannot_be_metered_is_refused(change: dict[str, Any], param: str) -> None:
    assert refusal("chat/completions", CHAT | change) == ("E14", "unsupported_parameter", param)


@pytest.mark.parametrize(
    "change",
    [
        {"service_tier": "auto"},
        {"service_tier": "default"},
        {"web_search_options": None},
        {"enable_search": False},
        {"modalities": ["text"]},
        {"tools": [{"type": "function", "function": {"name": "f"}}, {"type": "custom"}]},
        {"tools": []},
        {
            "tools": [
                {
                    "type": "function",
                    "function": {
                        "name": "f",
                        "description": "Does it.",
                        "parameters": {"type": "object", "properties": {"google_search": {}}},
                        "strict": True,
                        "cache_control": {"type": "ephemeral"},
                    },
                    "cache_control": {"type": "ephemeral"},
                    "strict": False,
                    "custom": None,
                    "extra": None,
                }
            ]
        },
        {"tools": [{"type": "function", "name": "f", "description": "", "parameters": {}}]},
        {"generationConfig": None, "speed": None, "plugins": False},
        {"store": True, "metadata": {"a": "b"}},
        {"temperature": 5, "logprobs": True, "top_logprobs": 3, "seed": 1, "unknown": {"x": [1]}},
        {"messages": [{"role": "assistant", "content": None, "tool_calls": []}]},
    ],
)
def test_what_costs_nothing_extra_passes_untouched(change: dict[str, Any]) -> None:
    assert parse_request("chat/completions", CHAT | change).body == CHAT | change


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({}, ""),
        ({"modalities": ["text"]}, ""),
        ({"modalities": None, "audio": None}, ""),
        ({"audio": False}, ""),
        ({"modalities": ["audio"]}, "modalities"),
        ({"modalities": ["text", "audio"], "audio": {"voice": "alloy"}}, "modalities"),
        # Some server may speak for one of the two.
        ({"audio": {"voice": "alloy", "format": "wav"}}, "audio"),
        ({"modalities": ["text"], "audio": {}}, "audio"),
    ],
)
def test_a_spoken_answer_is_known_by_the_parameter_that_asks_for_it(
    change: dict[str, Any], param: str
) -> None:
    parsed = parse_request("chat/completions", CHAT | change)

    assert parsed.audio_parameter == param
    assert parsed.body == CHAT | change


@pytest.mark.parametrize(
    ("endpoint", "body"),
    [
        ("completions", {"model": "m", "prompt": "a"}),
        ("embeddings", {"model": "m", "input": "a"}),
    ],
)
def test_only_a_chat_is_answered_aloud(endpoint: Endpoint, body: dict[str, Any]) -> None:
    assert refusal(endpoint, body | {"audio": {"voice": "alloy"}}) == (
        "E14",
        "unsupported_parameter",
        "audio",
    )


@pytest.mark.parametrize(("audio", "has_audio"), [({"id": "audio_1"}, True), (None, False)])
def test_an_earlier_spoken_answer_is_audio(audio: Any, has_audio: bool) -> None:
    messages = [{"role": "assistant", "audio": audio}, {"role": "user", "content": "Go on."}]

    assert parse_request("chat/completions", CHAT | {"messages": messages}).has_audio is has_audio


def test_a_client_cannot_choose_the_upstream() -> None:
    names = [
        "api_base",
        "base_url",
        "api_key",
        "Api_Key",
        "BASE_URL",
        "custom_llm_provider",
        "extra_body",
        "extra_headers",
        "headers",
        "organization",
        "aws_secret_access_key",
        "vertex_project",
        "azure_ad_token",
        "litellm_params",
        "provider",
    ]

    request = parse_request("chat/completions", CHAT | dict.fromkeys(names, "http://evil"))

    assert request.body == CHAT


def test_images_and_audio_in_messages_are_noticed() -> None:
    def parsed(kind: str) -> ParsedRequest:
        content = [{"type": "text", "text": "a"}, {"type": kind}]
        return parse_request(
            "chat/completions", CHAT | {"messages": [{"role": "user", "content": content}]}
        )

    assert (parsed("text").has_images, parsed("text").has_audio) == (False, False)
    assert (parsed("image_url").has_images, parsed("image_url").has_audio) == (True, False)
    assert (parsed("input_audio").has_images, parsed("input_audio").has_audio) == (False, True)
    assert (parsed("file").has_images, parsed("file").has_audio) == (True, True)


@pytest.mark.parametrize(
    ("change", "choices"),
    [
        ({}, 1),
        ({"n": 2}, 2),
        ({"best_of": 5, "n": 2}, 5),
        ({"prompt": ["a", "b", "c"]}, 3),
        ({"prompt": ["a", "b", "c"], "n": 2}, 6),
        ({"prompt": [1, 2, 3]}, 1),
        ({"prompt": [[1, 2], [3]]}, 2),
    ],
)
def test_a_completion_counts_every_answer_the_model_writes(
    change: dict[str, Any], choices: int
) -> None:
    assert parse_request("completions", COMPLETION | change).choices == choices


def test_a_chat_counts_answers_that_only_some_servers_write() -> None:
    assert parse_request("chat/completions", CHAT | {"best_of": 5, "n": 2}).choices == 5
    assert refusal("chat/completions", CHAT | {"best_of": 129}) == ("E13", ABOVE, "best_of")


@pytest.mark.parametrize(
    ("change", "code", "param"),
    [
        ({"prompt": None}, MISSING, "prompt"),
        ({"prompt": 5}, TYPE, "prompt"),
        ({"prompt": []}, VALUE, "prompt"),
        ({"prompt": ["a", 1]}, TYPE, "prompt"),
        ({"prompt": [True]}, TYPE, "prompt"),
        ({"prompt": [{"a": 1}]}, TYPE, "prompt"),
        ({"best_of": 129}, ABOVE, "best_of"),
        ({"best_of": True}, TYPE, "best_of"),
        ({"prompt": ["a"] * 65, "n": 2}, ABOVE, "n"),
        ({"prompt": ["a"] * 2_049}, VALUE, "prompt"),
    ],
)
def test_a_completion_without_a_countable_prompt_is_refused(
    change: dict[str, Any], code: str, param: str
) -> None:
    assert refusal("completions", COMPLETION | change) == ("E13", code, param)


def test_embeddings_take_one_or_many_inputs_and_no_stream() -> None:
    for value in ("a", ["a", "b"], [1, 2], [[1], [2]]):
        assert parse_request("embeddings", EMBEDDING | {"input": value}).choices == 1
    assert refusal("embeddings", {"model": "ada"}) == ("E13", MISSING, "input")
    assert refusal("embeddings", EMBEDDING | {"input": {}}) == ("E13", TYPE, "input")
    assert refusal("embeddings", EMBEDDING | {"stream": True}) == (
        "E14",
        "unsupported_parameter",
        "stream",
    )


def test_a_moderation_takes_texts_and_images_and_has_a_model_of_its_own() -> None:
    image = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}

    plain = parse_request("moderations", {"input": ["a", "b"]})
    mixed = parse_request("moderations", {"input": [{"type": "text", "text": "a"}, image]})

    assert (plain.model, plain.choices, plain.has_images) == ("omni-moderation-latest", 1, False)
    assert plain.body == {"input": ["a", "b"], "model": "omni-moderation-latest"}
    assert mixed.has_images
    assert parse_request("moderations", {"model": "m", "input": "a"}).model == "m"


@pytest.mark.parametrize(
    ("change", "row", "code", "param"),
    [
        ({"input": None}, "E13", MISSING, "input"),
        ({"input": 5}, "E13", TYPE, "input"),
        ({"input": []}, "E13", VALUE, "input"),
        ({"input": ["a", 5]}, "E13", TYPE, "input"),
        ({"input": [{"type": "input_audio"}]}, "E13", VALUE, "input[0].type"),
        ({"input": ["a"] * 2_049}, "E13", VALUE, "input"),
        ({"stream": True}, "E14", "unsupported_parameter", "stream"),
    ],
)
def test_what_cannot_be_moderated_is_refused(
    change: dict[str, Any], row: str, code: str, param: str
) -> None:
    assert refusal("moderations", {"model": "m", "input": "a"} | change) == (row, code, param)


def test_a_ranking_takes_texts_as_they_are_or_in_objects() -> None:
    request = parse_request("rerank", RANKING | {"documents": ["a", {"text": "b", "id": "2"}]})

    assert (request.model, request.choices, request.has_images) == ("ranker", 1, False)
    assert request.body["documents"] == ["a", {"text": "b", "id": "2"}]


@for_all(
    ("change", "row", "code", "param"),
    [
        ({"model": None}, "E13", MISSING, "model"),
        ({"query": None}, "E13", MISSING, "query"),
        ({"query": ["a"]}, "E13", TYPE, "query"),
        ({"documents": None}, "E13", MISSING, "documents"),
        ({"documents": "a"}, "E13", TYPE, "documents"),
        ({"documents": []}, "E13", VALUE, "documents"),
        ({"documents": ["a", 5]}, "E13", TYPE, "documents[1]"),
        ({"documents": [{"text": 5}]}, "E13", TYPE, "documents[0]"),
        ({"documents": ["a"] * 2_049}, "E13", VALUE, "documents"),
        ({"documents": [{"image": "https://a"}]}, "E14", "unsupported_parameter", "documents[0]"),
        ({"top_n": 0}, "E13", "integer_below_min_value", "top_n"),
        ({"top_n": True}, "E13", TYPE, "top_n"),
        ({"stream": True}, "E14", "unsupported_parameter", "stream"),
        ({"Documents": ["a"]}, "E14", "unsupported_parameter", "Documents"),
    ],
)
def test_what_cannot_be_ranked_is_refused(
    change: dict[str, Any], row: str, code: str, param: str
) -> None:
    assert refusal("rerank", RANKING | change) == (row, code, param)


@pytest.mark.parametrize("value", [None, True, 1, -1, 1.5, "x", [], [[]], {}, {"a": 1}, [None]])
def test_no_value_of_any_parameter_is_a_fault_of_the_gateway(value: object) -> None:
    names = [*CHAT, *COMPLETION, *EMBEDDING, "stream", "stream_options", "n", "best_of"]
    names += ["max_tokens", "tools", "functions", "modalities", "service_tier", "audio", "models"]
    names += ["prediction", "web_search_options"]

    names += [*RANKING, "top_n"]

    for endpoint in get_args(Endpoint):
        for name in names:
            body = json.loads(json.dumps(CHAT | COMPLETION | EMBEDDING | RANKING | {name: value}))
            try:
                parse_request(endpoint, body)
            except GatewayError as error:
                assert error.status == 400  # noqa: PT017  # either outcome is right
