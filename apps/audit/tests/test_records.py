"""Rows fit their columns whatever a client or a provider sends."""

from __future__ import annotations

import pytest

from apps.audit.records import clean_text, fit


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
    row = fit({"user_agent": "x" * 1_000, "error_code": "e" * 100, "charge_nanos": 5})

    assert row == {"user_agent": "x" * 256, "error_code": "e" * 64, "charge_nanos": 5}
