"""Rows fit their columns whatever a client or a provider sends."""

from __future__ import annotations

import pytest

from apps.audit.records import clean_text, fit_attempt


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("too long", "too l"),
        ("a\x00b\x1b", "a b "),
        ("\ud800x", " x"),
        ("模型名称很长", "模型名称很"),
    ],
)
def test_text_is_cut_and_cleaned(text: str, expected: str) -> None:
    assert clean_text(text, 5) == expected


def test_every_text_of_a_row_is_cut_to_its_column() -> None:
    texts = {
        "outcome": "o" * 100,
        "error_text": "e" * 1_000,
        "upstream_request_id": "u\n" * 100,
        "changes": "c" * 1_000,
    }

    row = fit_attempt({**texts, "duration_ms": 5})

    assert row == {
        "outcome": "o" * 64,
        "error_text": "e" * 500,
        "upstream_request_id": "u\n" * 64,
        "changes": "c" * 500,
        "duration_ms": 5,
    }
