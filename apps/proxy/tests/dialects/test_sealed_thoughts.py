"""Which thoughts go back to whom."""

import base64
from collections.abc import Mapping
from typing import Any, Final

import orjson
import pytest

from apps.proxy.dialects.conversion import DIALECTS, Reply
from apps.proxy.dialects.foreign_thoughts import (
    without_in_chat,
    without_in_contents,
    without_in_input,
    without_in_messages,
)
from apps.proxy.dialects.gemini_parts import NO_SIGNATURE
from apps.proxy.dialects.neutral import Target, Thinking
from apps.proxy.dialects.providers import PROVIDERS, Sending
from apps.proxy.dialects.responses_stored import list_named
from apps.proxy.dialects.sealed_thoughts import encrypted_content, is_openais, read_thought


@pytest.mark.parametrize(
    ("encrypted", "thought"),
    [
        ("", Thinking("Hm.")),
        ("gAAAAABsZWQ=", Thinking("Hm.", signature="openai.gAAAAABsZWQ=")),
        ("signed.c2lnbg==", Thinking("Hm.", signature="c2lnbg==")),
        ("hidden.aGlkZGVu", Thinking(redacted="aGlkZGVu")),
    ],
)
def test_what_seals_a_thought_comes_back(encrypted: str, thought: Thinking) -> None:
    assert read_thought("Hm.", encrypted) == thought
    sealed = encrypted_content(signature=thought.signature, redacted=thought.redacted)
    assert sealed == encrypted
    assert is_openais(thought.signature) == encrypted.startswith("gAAAA")


def with_thought(thinking: dict[str, Any]) -> dict[str, Any]:
    return {
        "model": "m",
        "max_tokens": 9000,
        "messages": [
            {"role": "user", "content": "Rain?"},
            {"role": "assistant", "content": [thinking, {"type": "text", "text": "Yes."}]},
            {"role": "user", "content": "Sure?"},
        ],
    }


def test_openai_gets_its_own_thoughts_and_no_others() -> None:
    its_own = {"type": "thinking", "thinking": "Hm.", "signature": "openai.gAAAAABsZWQ="}
    anothers = {"type": "thinking", "thinking": "Hm.", "signature": "c2lnbg=="}
    hidden = {"type": "redacted_thinking", "data": "aGlkZGVu"}

    written = [
        DIALECTS["openai-responses"].write_request(
            DIALECTS["anthropic"].read_request(with_thought(thought)), Target("m")
        )["input"]
        for thought in (its_own, anothers, hidden)
    ]

    assert written[0][1] == {
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": "Hm."}],
        "encrypted_content": "gAAAAABsZWQ=",
    }
    assert [len(items) for items in written] == [4, 3, 3]


def test_anthropic_gets_no_thought_that_openai_sealed() -> None:
    sealed = {"type": "thinking", "thinking": "Hm.", "signature": "openai.gAAAAABsZWQ="}
    request = DIALECTS["anthropic"].read_request(with_thought(sealed))

    body = DIALECTS["anthropic"].write_request(request, Target("m", output_cap=9000))

    assert body["messages"][1] == {"role": "assistant", "content": "Yes."}


@pytest.mark.parametrize("is_repeated_by_the_sdk", [False, True])
def test_googles_sdks_can_read_what_openai_sealed_and_give_it_back(
    is_repeated_by_the_sdk: bool,
) -> None:
    token = "gAAAAABs-_lk=="
    item = {
        "type": "reasoning",
        "id": "rs_1",
        "summary": [{"type": "summary_text", "text": "Hm."}],
        "encrypted_content": token,
    }
    answer = DIALECTS["openai-responses"].read_answer(
        {"id": "resp_1", "model": "m", "status": "completed", "output": [item]}
    )

    told = DIALECTS["gemini"].write_answer(answer, Reply("", 0))["candidates"][0]["content"]
    signature = told["parts"][0]["thoughtSignature"]
    # A signature is bytes to the SDKs, which decode it, and encode it in the alphabet for URLs.
    decoded = base64.b64decode(signature, validate=True)
    if is_repeated_by_the_sdk:
        told["parts"][0]["thoughtSignature"] = base64.urlsafe_b64encode(decoded).decode()
    turns = [
        {"role": "user", "parts": [{"text": "Rain?"}]},
        {"role": "model", "parts": [*told["parts"], {"text": "Yes."}]},
        {"role": "user", "parts": [{"text": "Sure?"}]},
    ]
    request = DIALECTS["gemini"].read_request({"model": "m", "contents": turns})
    written = DIALECTS["openai-responses"].write_request(request, Target("m"))

    assert [item["encrypted_content"] for item in written["input"] if "summary" in item] == [token]


def test_a_signature_that_only_looks_like_anothers_is_googles() -> None:
    for signature in ("openaied", "anothers!", "anothers/w==", "openaiedc2lnbg=="):
        part = {"text": "Hm.", "thought": True, "thoughtSignature": signature}
        request = DIALECTS["gemini"].read_request(in_contents(part, {"text": "Yes."}))

        assert request.turns[1].parts[0] == Thinking(
            "Hm.", f"google.{signature}", at="contents[1].parts[0]"
        )


SEAL: Final = "c2VhbA=="
CALLS: Final[dict[str, dict[str, Any]]] = {
    "anthropic": {
        "id": "msg_1",
        "type": "message",
        "model": "claude",
        "content": [
            {"type": "thinking", "thinking": "Hm.", "signature": SEAL},
            {"type": "tool_use", "id": "1", "name": "now", "input": {}},
        ],
    },
    "gemini": {
        "responseId": "r",
        "candidates": [
            {
                "content": {
                    "role": "model",
                    "parts": [
                        {"text": "Hm.", "thought": True},
                        {
                            "functionCall": {"id": "1", "name": "now", "args": {}},
                            "thoughtSignature": SEAL,
                        },
                    ],
                }
            }
        ],
    },
    "openai-responses": {
        "id": "resp_1",
        "model": "gpt",
        "status": "completed",
        "output": [
            {
                "type": "reasoning",
                "id": "rs_1",
                "summary": [{"type": "summary_text", "text": "Hm."}],
                "encrypted_content": SEAL,
            },
            {
                "type": "function_call",
                "id": "fc_1",
                "call_id": "1",
                "name": "now",
                "arguments": "{}",
            },
        ],
    },
}


def in_contents(*parts: dict[str, Any], answer: dict[str, Any] | None = None) -> dict[str, Any]:
    contents = [
        {"role": "user", "parts": [{"text": "Rain?"}]},
        {"role": "model", "parts": list(parts)},
        {"role": "user", "parts": [answer or {"text": "Sure?"}]},
    ]
    return {"model": "m", "contents": contents}


def next_turn(client: str, told: dict[str, Any]) -> dict[str, Any]:
    """Return what a client asks when it has done what an answer of its dialect calls for."""
    asked = {"role": "user", "content": "Rain?"}
    if client == "anthropic":
        done = {"type": "tool_result", "tool_use_id": "1", "content": "12:00"}
        said = {"role": "assistant", "content": told["content"]}
        messages = [asked, said, {"role": "user", "content": [done]}]
        return {"model": "m", "max_tokens": 9000, "messages": messages}
    if client == "gemini":
        answer = {"functionResponse": {"id": "1", "name": "now", "response": {"output": "12:00"}}}
        return in_contents(*told["candidates"][0]["content"]["parts"], answer=answer)
    if client == "openai":
        said = told["choices"][0]["message"]
        done = {"role": "tool", "tool_call_id": "1", "content": "12:00"}
        return {"model": "m", "messages": [asked, said, done]}
    output = {"type": "function_call_output", "call_id": "1", "output": "12:00"}
    return {"model": "m", "store": False, "input": [asked, *told["output"], output]}


def sent(client: str, provider: str, body: dict[str, Any], model: str = "claude") -> dict[str, Any]:
    written: Mapping[str, Any] = body
    if provider != client:
        request = DIALECTS[client].read_request(body)
        written = DIALECTS[provider].write_request(request, Target(model, output_cap=9000))
    sending = Sending(model, is_stream=False, output_cap=None, cap_parameter="")
    told: dict[str, Any] = orjson.loads(PROVIDERS[provider].body(written, sending))
    return told


@pytest.mark.parametrize("client", list(DIALECTS))
@pytest.mark.parametrize("sealer", list(CALLS))
def test_a_seal_comes_back_to_who_sealed_it_and_to_nobody_else(sealer: str, client: str) -> None:
    answer = DIALECTS[sealer].read_answer(CALLS[sealer])
    told = CALLS[sealer]
    if client != sealer:
        told = DIALECTS[client].write_answer(answer, Reply("", 0))
    asked = next_turn(client, told)

    bodies = {provider: sent(client, provider, asked) for provider in DIALECTS}

    texts = {provider: orjson.dumps(body).decode() for provider, body in bodies.items()}
    # To whoever speaks Chat Completions too, its clients give back what may come from there.
    shared = {"openai"} if (client, sealer) == ("openai", "anthropic") else set()
    assert {provider for provider, text in texts.items() if SEAL in text} == {sealer} | shared
    for text in texts.values():
        for mark in ("anothers", "google.", "openai.", "signed."):
            assert mark not in text
    parts = bodies["gemini"]["contents"][1]["parts"]
    signatures = [part["thoughtSignature"] for part in parts if "functionCall" in part]
    assert signatures == [SEAL if sealer == "gemini" else NO_SIGNATURE]


def test_what_a_provider_of_the_same_dialect_thought_passes_as_it_is() -> None:
    asked = {sealer: next_turn(sealer, told) for sealer, told in CALLS.items()}

    messages = without_in_messages(asked["anthropic"], is_always_signed=True)
    contents = without_in_contents(asked["gemini"], is_call_signed=True)

    assert messages is asked["anthropic"]
    assert contents is asked["gemini"]
    assert without_in_input(asked["openai-responses"]) is asked["openai-responses"]
    chat = next_turn("openai", {"choices": [{"message": {"role": "assistant", "content": "Hi"}}]})
    assert without_in_chat(chat) is chat


@pytest.mark.parametrize(
    ("model", "count"), [("claude-opus-4-8", 1), ("eu.anthropic.Claude-x", 1), ("deepseek-chat", 2)]
)
@pytest.mark.parametrize("lost", [{"signature": ""}, {}])
def test_claude_gets_no_thought_that_nobody_signed(
    model: str, count: int, lost: dict[str, Any]
) -> None:
    body = with_thought({"type": "thinking", "thinking": "Hm.", **lost})

    said = sent("anthropic", "anthropic", body, model)["messages"][1]["content"]

    assert len(said) == count


def test_a_turn_that_was_nothing_but_anothers_thought_is_left_out() -> None:
    thought = {"type": "thinking", "thinking": "Hm.", "signature": "google.c2lnbg=="}
    body = with_thought(thought)
    body["messages"][1]["content"] = [thought]
    part = {"text": "", "thought": True, "thoughtSignature": "anothersYzJsbmJnPT0="}

    messages = sent("anthropic", "anthropic", body)["messages"]
    contents = sent("gemini", "gemini", in_contents(part))["contents"]

    assert [message["content"] for message in messages] == ["Rain?", "Sure?"]
    assert [content["parts"] for content in contents] == [[{"text": "Rain?"}], [{"text": "Sure?"}]]


@pytest.mark.parametrize(
    ("kind", "is_kept"), [("enabled", False), ("adaptive", True), ("disabled", True)]
)
def test_a_budget_goes_with_the_thought_that_tools_were_called_after(
    kind: str, is_kept: bool
) -> None:
    told = DIALECTS["anthropic"].write_answer(
        DIALECTS["gemini"].read_answer(CALLS["gemini"]), Reply("", 0)
    )
    body = {**next_turn("anthropic", told), "thinking": {"type": kind}}

    assert ("thinking" in sent("anthropic", "anthropic", body)) == is_kept


def test_a_model_of_google_that_wants_no_signatures_gets_none() -> None:
    told = DIALECTS["gemini"].write_answer(
        DIALECTS["anthropic"].read_answer(CALLS["anthropic"]), Reply("", 0)
    )
    body = next_turn("gemini", told)

    changed = without_in_contents(body, is_call_signed=False)

    assert changed["contents"][1]["parts"] == [
        {"text": "Hm.", "thought": True},
        {"functionCall": {"id": "1", "name": "now", "args": {}}},
    ]


def test_openai_is_not_asked_for_a_thought_that_the_gateway_named() -> None:
    parts = [{"text": "Hm.", "thought": True}, {"text": "Yes."}]
    unsealed = {"responseId": "r", "candidates": [{"content": {"role": "model", "parts": parts}}]}
    told = DIALECTS["openai-responses"].write_answer(
        DIALECTS["gemini"].read_answer(unsealed), Reply("", 0)
    )
    body = {"model": "m", "input": [*told["output"], {"role": "user", "content": "Sure?"}]}

    assert [item["type"] for item in told["output"]] == ["reasoning", "message"]
    assert list_named(body) == []
    items = sent("openai-responses", "openai-responses", body)["input"]
    assert items == [told["output"][1], {"role": "user", "content": "Sure?"}]
