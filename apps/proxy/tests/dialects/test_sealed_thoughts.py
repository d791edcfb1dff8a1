"""Which thoughts go back to whom."""

from typing import Any

import pytest

from apps.proxy.dialects.conversion import DIALECTS
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
