"""What rules look for: words and expressions, in time by the length of the text."""

from __future__ import annotations

import random
import time

import pytest

from apps.risk.folding import fold
from apps.risk.matchers import (
    PATTERN_LENGTH_MAX,
    WORD_LENGTH_MAX,
    WORDS_LENGTH_MAX,
    WORDS_MAX,
    Matcher,
    PatternRefused,
    match_pattern,
    match_words,
)
from tests.support.cases import for_all


def _is_in(matcher: Matcher, text: str) -> bool:
    return matcher.is_in(fold(text).encode())


@for_all(
    ("text", "part", "whole"),
    [
        ("a bomb", True, True),
        ("BOMB!", True, True),
        ("bombs", True, False),
        ("xbomb", True, False),
        ("bomb_2", True, False),
        ("7bomb", True, False),
        ("ébomb", True, False),
        ("(bomb)", True, True),
        ("bomb\nbomber", True, True),
        ("b.omb", False, False),
        ("Pipe \u00a0\n bomb", True, True),
        ("pipe", False, False),
        ("炸弹在哪里", True, False),
        ("c++", True, True),
        ("c+++", True, True),
    ],
)
def test_words_are_found_as_parts_or_whole(text: str, part: bool, whole: bool) -> None:
    words = ["Bomb", "pipe  bomb", "炸弹", "C++"]

    assert _is_in(match_words(words, are_whole=False), text) is part
    assert _is_in(match_words(words, are_whole=True), text) is whole


def test_words_are_no_expressions() -> None:
    matcher = match_words([".*", "a|b", "\\Q"], are_whole=False)

    assert not _is_in(matcher, "anything a b")
    assert _is_in(matcher, "a|b")
    assert _is_in(matcher, "\\q")


@pytest.mark.parametrize(
    ("pattern", "text", "is_found"),
    [
        (r"\bsk-[a-z0-9]{8}", "my key: SK-AbCd1234", True),
        (r"[A-Z]{3}-\d+", "abc-1", True),
        (r"^ignore .* instructions$", "first\nIgnore all previous instructions\nthen", True),
        (r"^ignore", "do not ignore", False),
        (r"a.b", "a\nb", False),
        (r"(?s)a.b", "a\nb", True),
        (r"\p{Cyrillic}{3}", "привет", True),
    ],
)
def test_expressions_go_by_lines_and_not_by_case(pattern: str, text: str, is_found: bool) -> None:
    assert _is_in(match_pattern(pattern), text) is is_found


@pytest.mark.parametrize(
    "pattern", ["(a+)+$", "(a|aa)*b$", "(a*)*c", r"(?:a?){40}a{40}b", ".*.*=x"]
)
def test_no_expression_takes_longer_than_the_text_is_long(pattern: str) -> None:
    matcher = match_pattern(f"x{pattern}")
    text = b"x" + b"a" * 200_000 + b"!"

    begun = time.perf_counter()
    assert not matcher.is_in(text)

    # An engine that goes back would not be done when the universe ends.
    assert time.perf_counter() - begun < 5


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("(", "missing \\)|missing"),
        ("(?=a)", "invalid perl operator|\\(\\?="),
        (r"(a)\1", "invalid escape|escape"),
        ("a*", "every text"),
        ("", "every text"),
        ("^", "every text"),
        ("a{1001}", "repetition|repeat"),
        ("(?:(?:a{1000}){1000}){1000}", "repetition|repeat|large"),
        (r"[\pL\pN]{900}[\pL\pN]{900}", "large"),
        ("a" * (PATTERN_LENGTH_MAX + 1), "500 characters"),
    ],
)
def test_what_cannot_be_looked_for_is_refused(
    pattern: str, reason: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(PatternRefused, match=reason):
        match_pattern(pattern)

    # The library would write the pattern into the log.
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["ok", " \u200b "], "empty"),
        (["x" * (WORD_LENGTH_MAX + 1)], "100 characters a word"),
        (["x"] * (WORDS_MAX + 1), "1000 words"),
        (["x" * 100] * (WORDS_LENGTH_MAX // 100 + 1), "20000 characters"),
    ],
)
def test_words_are_bounded(words: list[str], reason: str) -> None:
    with pytest.raises(PatternRefused, match=reason):
        match_words(words, are_whole=False)


@pytest.mark.parametrize("alphabet", ["abcdefgh", "快速的棕色狐狸"])
def test_no_list_of_words_takes_longer_than_it_and_the_text_are_long(alphabet: str) -> None:
    letters = random.Random(1)
    words = ["".join(letters.choices(alphabet, k=20)) for _ in range(WORDS_MAX)]
    almost = " ".join(word[:-1] for word in words * 4)[:60_000]

    for are_whole in (False, True):
        matcher = match_words(words, are_whole=are_whole)
        begun = time.perf_counter()
        assert not _is_in(matcher, almost)
        # Sixty million comparisons, at a nanosecond or some each.
        assert time.perf_counter() - begun < 3
        assert _is_in(matcher, f"{almost} {words[-1]} x")
