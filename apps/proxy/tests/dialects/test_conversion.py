"""What must hold for any request between any two dialects."""

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Final, get_args

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.core.errors import GatewayError
from apps.proxy.dialects.conversion import DIALECTS, PIECES_MAX, read_bounded
from apps.proxy.dialects.neutral import (
    EXTENSIONS,
    USUAL_TARGET,
    OutputFormat,
    Reasoning,
    ReasoningForm,
    Request,
    SamplingForm,
    Target,
    Text,
    Tool,
    ToolChoice,
    Turn,
)
from apps.proxy.tests.dialects.body_kit import anthropic_body, gemini_body, openai_body
from apps.proxy.tests.dialects.golden_cells import golden_cells
from apps.proxy.tests.dialects.junk import REQUEST_JUNK

REQUESTS: Final = [
    (cell.client, orjson.dumps(cell.request))
    for cell in (parameter.values[0] for parameter in golden_cells("request"))
]


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every place in a document: what holds it, and its name or position there."""
    named = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in named:
        yield value, key
        if isinstance(item, dict | list):
            yield from places(item)


# What stands anywhere under the same name, or at the same position of an array.
VALUES: Final[dict[Any, list[bytes]]] = {}
for _, request in REQUESTS:
    for holder, key in places(orjson.loads(request)):
        VALUES.setdefault(key, []).append(orjson.dumps(holder[key]))


@st.composite
def broken_requests(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """Return a client's dialect and a request of the golden files, changed at some places.

    There stands junk, or what stands under that name in another request, of any dialect.
    """
    client, raw = draw(st.sampled_from(REQUESTS))
    body: dict[str, Any] = orjson.loads(raw)
    for _ in range(draw(st.integers(1, 3))):
        holder, key = draw(st.sampled_from(list(places(body))))
        holder[key] = draw(
            st.sampled_from(VALUES.get(key, [b"null"])).map(orjson.loads) | REQUEST_JUNK
        )
    return client, body


targets = st.builds(
    lambda form, extensions, sampling, efforts: Target(
        model="sent",
        output_cap=3000,
        reasoning=form,
        extensions=extensions,
        sampling=sampling,
        efforts=efforts,
    ),
    st.sampled_from(get_args(ReasoningForm)),
    st.sets(st.sampled_from(sorted(EXTENSIONS))).map(frozenset),
    st.sampled_from(get_args(SamplingForm)),
    st.sampled_from((USUAL_TARGET.efforts, (), ("high",), ("none", "low", "max"))),
)


# What may be refused of usual requests, by the dialects of client and provider: what the other one
# cannot say, and what not every model of `targets` takes. Places in lists are left out.
REFUSABLE: Final[dict[tuple[str, str], frozenset[str]]] = {
    ("openai", "anthropic"): frozenset(
        {
            *("frequency_penalty", "presence_penalty", "seed", "metadata", "verbosity", "n"),
            *("temperature", "top_p", "top_k", "response_format.type", "reasoning_effort"),
            *("messages", "messages.content.input_audio", "stop"),
        }
    ),
    ("anthropic", "openai"): frozenset(
        {
            *("temperature", "top_k", "top_p", "stop_sequences", "output_config.effort"),
            *("messages.content.source", "messages.content.context"),
        }
    ),
    ("gemini", "openai"): frozenset(
        {
            *(f"generationConfig.{name}" for name in ("topK", "topP", "temperature")),
            *(f"generationConfig.{name}" for name in ("stopSequences", "thinkingConfig")),
            "contents.parts.fileData",
        }
    ),
    ("gemini", "anthropic"): frozenset(
        {
            *(f"generationConfig.{name}" for name in ("topK", "topP", "temperature", "seed")),
            *(f"generationConfig.{name}" for name in ("frequencyPenalty", "presencePenalty")),
            *(f"generationConfig.{name}" for name in ("stopSequences", "thinkingConfig")),
            *("contents", "contents.parts.inlineData"),
        }
    ),
    ("openai", "gemini"): frozenset(
        {
            *("metadata", "verbosity", "n", "parallel_tool_calls", "reasoning_effort"),
            *("temperature", "top_p", "top_k", "messages"),
        }
    ),
    ("anthropic", "gemini"): frozenset(
        {
            *("temperature", "top_p", "top_k", "stop_sequences", "output_config.effort"),
            *("tool_choice.disable_parallel_tool_use", "messages.content"),
        }
    ),
}
WORDS_ALONE: Final[dict[str, dict[str, Any]]] = {
    "openai": {"messages": [{"role": "user", "content": "Hi"}]},
    "anthropic": {"messages": [{"role": "user", "content": "Hi"}]},
    "gemini": {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]},
}


def convert(
    client: str, provider: str, body: Any, target: Target
) -> tuple[dict[str, Any] | None, str]:
    """Return what is sent and "", or None and the parameter for which the request is refused."""
    refusal = None
    written: dict[str, Any] = {}
    try:
        request = DIALECTS[client].read_request(body)
        written = DIALECTS[provider].write_request(request, target)
    except GatewayError as error:
        refusal = error
    if refusal is not None:
        assert refusal.row in ("E13", "E14")
        assert refusal.param
        return None, refusal.param
    return orjson.loads(orjson.dumps(written)), ""


def convert_usual(
    client: str, provider: str, body: dict[str, Any], target: Target
) -> dict[str, Any] | None:
    """Return what is sent, None where the request is refused for what may be refused.

    Without that, and with one text for all that is said, it is sent.
    """
    names = REFUSABLE[client, provider]
    written, param = convert(client, provider, body, target)
    if written is None:
        assert re.sub(r"\[\d+\]", "", param) in names
        members = {name.partition(".")[0] for name in names}
        left = {name: value for name, value in body.items() if name not in members}
        assert convert(client, provider, left | WORDS_ALONE[client], target)[1] == ""
    return written


# What changes an answer, each with a value that says something. `top_k` is a wish.
CHANGES: Final[dict[str, Any]] = {
    "system": (Text("Be brief."),),
    "tools": (Tool("find", None, {"type": "object"}),),
    "tool_choice": ToolChoice("any"),
    "reasoning": Reasoning(is_on=True, effort="high"),
    "format": OutputFormat({"type": "object"}),
    "verbosity": "low",
    "output_limit": 77,
    "temperature": 0.7,
    "top_p": 0.7,
    "frequency_penalty": 0.7,
    "presence_penalty": 0.7,
    "stop": ("END",),
    "choices": 2,
    "seed": 7,
}


@pytest.mark.parametrize("provider", list(DIALECTS))
@pytest.mark.parametrize("field", list(CHANGES))
def test_what_changes_an_answer_is_written_or_refused(provider: str, field: str) -> None:
    asked = Request("m", (Turn("user", (Text("Hi"),), "messages[0]"),), output_limit=100)
    write = DIALECTS[provider].write_request
    refused = ""
    written: dict[str, Any] = {}
    try:
        written = write(asked._replace(**{field: CHANGES[field]}), Target("m"))
    except GatewayError as error:
        refused = error.row

    assert refused == "E14" or written not in ({}, write(asked, Target("m")))


@pytest.mark.parametrize("provider", list(DIALECTS))
@given(broken=broken_requests(), target=targets)
def test_any_request_is_converted_or_refused_by_name(
    provider: str, broken: tuple[str, dict[str, Any]], target: Target
) -> None:
    client, body = broken

    written, _ = convert(client, provider, body, target)

    if written is not None:
        assert written["model"] == "sent"
        # What is sent is a request of that dialect, by the rules of our own reader.
        DIALECTS[provider].read_request(written)


@given(body=openai_body, target=targets)
def test_what_openais_clients_usually_send_stays_one_of_anthropics_requests(
    body: dict[str, Any], target: Target
) -> None:
    written = convert_usual("openai", "anthropic", body, target)

    if written is not None:
        roles = [message["role"] for message in written["messages"]]
        assert all(role != after for role, after in pairwise(roles))
        assert written["max_tokens"] == 3000
        assert 0 <= written.get("temperature", 0) <= 1
        DIALECTS["anthropic"].read_request(written)


@given(body=anthropic_body, target=targets)
def test_what_anthropics_clients_usually_send_stays_one_of_openais_requests(
    body: dict[str, Any], target: Target
) -> None:
    written = convert_usual("anthropic", "openai", body, target)

    if written is not None:
        assert written["max_completion_tokens"] == 3000
        assert len(written.get("stop", ())) <= 4
        DIALECTS["openai"].read_request(written)


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
@given(body=gemini_body, target=targets)
def test_what_geminis_clients_usually_send_is_a_request_of_every_dialect(
    provider: str, body: dict[str, Any], target: Target
) -> None:
    written = convert_usual("gemini", provider, body, target)

    if written is not None:
        assert 3000 in (written.get("max_tokens"), written.get("max_completion_tokens"))
        DIALECTS[provider].read_request(written)


@pytest.mark.parametrize("client", ["openai", "anthropic"])
@given(body=st.data(), target=targets)
def test_what_all_clients_usually_send_stays_one_of_geminis_requests(
    client: str, body: st.DataObject, target: Target
) -> None:
    asked = body.draw(openai_body if client == "openai" else anthropic_body)

    written = convert_usual(client, "gemini", asked, target)

    if written is not None:
        roles = [content["role"] for content in written["contents"]]
        assert all(role != after for role, after in pairwise(roles))
        assert all(content["parts"] for content in written["contents"])
        assert written["generationConfig"]["maxOutputTokens"] == 3000
        assert all("id" not in declared for declared in written.get("tools", ()))


@pytest.mark.parametrize(
    ("dialect", "asked", "param"),
    [
        ("openai", {"messages": [{"role": "user", "content": "a"}] * (PIECES_MAX + 1)}, "messages"),
        (
            "anthropic",
            {
                "max_tokens": 9,
                "messages": [
                    {"role": "user", "content": [{"type": "text", "text": "a"}] * PIECES_MAX}
                ],
            },
            "messages",
        ),
        (
            "gemini",
            {"contents": [{"role": "model", "parts": [{"text": "a"}]}] * 200_001},
            "contents",
        ),
        (
            "openai-responses",
            {"input": "a", "tools": [{"type": "function", "name": "a"}] * (PIECES_MAX + 1)},
            "tools",
        ),
        (
            "gemini",
            {
                "contents": [
                    {
                        "parts": [
                            {
                                "functionResponse": {
                                    "name": "a",
                                    "response": {},
                                    "parts": [{"inlineData": {}}] * PIECES_MAX,
                                }
                            }
                        ]
                    }
                ]
            },
            "contents",
        ),
    ],
)
def test_more_pieces_than_can_be_converted_are_refused_by_what_holds_them(
    dialect: str, asked: dict[str, Any], param: str
) -> None:
    with pytest.raises(GatewayError) as refusal:
        read_bounded(dialect, {"model": "m", **asked})

    assert (refusal.value.row, refusal.value.param) == ("E13", param)


def test_as_many_pieces_as_can_be_converted_are_read() -> None:
    messages = [{"role": "user", "content": "a"}] * PIECES_MAX

    assert len(read_bounded("openai", {"model": "m", "messages": messages}).turns) == PIECES_MAX
