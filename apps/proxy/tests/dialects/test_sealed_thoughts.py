"""Which thoughts go back to whom."""

import base64
from typing import Any

import pytest

from apps.proxy.dialects.conversion import DIALECTS, Reply
from apps.proxy.dialects.neutral import Target, Thinking
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


def test_a_signature_that_only_looks_like_openais_stays_as_it_is() -> None:
    for signature in ("openaied", "openaied!", "openaied/w==", "openaiedc2lnbg=="):
        part = {"text": "Hm.", "thought": True, "thoughtSignature": signature}
        turns = [
            {"role": "user", "parts": [{"text": "Is it?"}]},
            {"role": "model", "parts": [part, {"text": "Yes."}]},
            {"role": "user", "parts": [{"text": "Sure?"}]},
        ]
        request = DIALECTS["gemini"].read_request({"model": "m", "contents": turns})

        written = DIALECTS["anthropic"].write_request(request, Target("m", output_cap=9000))

        assert f"'signature': '{signature}'" in str(written)
