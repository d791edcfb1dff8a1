"""Texts that read alike are folded alike, whole or in pieces."""

from __future__ import annotations

import json
import re
import sys
import time
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from apps.risk.folding import PIECE_CHARACTERS, fold, fold_in_pieces, pieces, without_escapes
from tests.support.cases import for_all

_FEW = 128
ALIKE = {
    "case": "BoMB",
    "full width": "ｂｏｍｂ",
    "mathematical letters": "𝐛𝐨𝐦𝐛",
    "circled letters": "ⓑⓞⓜⓑ",
    "zero-width space": "bo\u200bmb",
    "zero-width joiner": "b\u200do\u200dm\u200db",
    "word joiner": "bo\u2060mb",
    "byte order mark": "\ufeffbomb",
    "soft hyphen": "bo\u00admb",
    "right-to-left mark": "bo\u200fmb",
    "variation selector": "b\ufe0fomb",
    "tag": "bo\U000e0061mb",
    "filler": "bo\u3164mb",
    "backspace": "bo\x08mb",
    "delete": "bo\x7fmb",
    "escape": "bo\x1bmb",
    "NUL": "bo\x00mb",
}


@for_all("name", ALIKE)
def test_what_reads_alike_is_folded_alike(name: str) -> None:
    assert fold(ALIKE[name]) == "bomb"


def test_the_case_that_comparisons_go_by_is_no_lower_case() -> None:
    assert (fold("STRASSE"), fold("Straße"), fold("ΣΑΣ"), fold("ﬁle")) == (
        "strasse", "strasse", "σασ", "file",
    )  # fmt: skip


def test_accents_and_letters_that_only_look_alike_stay() -> None:
    assert fold("bómb") != fold("bomb")
    assert fold("bоmb") != fold("bomb")  # a Cyrillic o
    assert fold("क्षि") == "क्षि"  # marks that letters cannot do without


def test_white_space_stays_white_space() -> None:
    assert fold("a\tb\nc\rd\u00a0e\u3000f") == "a\tb\nc\rd e f"


def test_nothing_that_unicode_calls_a_format_character_is_left() -> None:
    left = [
        f"U+{code:04X}"
        for code in range(sys.maxunicode + 1)
        if unicodedata.category(chr(code)) == "Cf" and fold(chr(code))
    ]

    assert left == []


def test_no_control_character_is_left_but_white_space() -> None:
    left = [
        code
        for code in range(sys.maxunicode + 1)
        if unicodedata.category(chr(code)) == "Cc" and fold(chr(code))
    ]

    assert left == [0x09, 0x0A, 0x0B, 0x0C, 0x0D, 0x85]


MARKS_ALONE = {
    "in order": "a" + "\u0316\u0301" * 16_000,
    "one after all others": "a" + "\u0301" * 32_000 + "\u0316",
    "with what becomes a mark": "a" + "\uff9e\u0334" * 16_000,
    "after others": "\u0301" * 20_000 + "\u0316" * 12_000,
}


@for_all("name", MARKS_ALONE)
def test_marks_in_a_row_take_no_time_by_their_square(name: str) -> None:
    begun = time.perf_counter()

    fold(MARKS_ALONE[name])

    # Put in order together they would take seconds, and nothing else would run meanwhile.
    assert time.perf_counter() - begun < 0.5


def test_what_may_become_a_mark_is_known() -> None:
    surprising = [
        chr(code)
        for code in range(sys.maxunicode + 1)
        if unicodedata.combining(unicodedata.normalize("NFKD", chr(code))[0])
        and re.match(r"\w|\s", chr(code))
    ]

    assert surprising == ["\uff9e", "\uff9f"]


def test_as_many_marks_as_a_letter_may_have_are_put_in_order() -> None:
    marks = "\u0316\u0301" * 15

    assert fold(f"e{marks}x") == unicodedata.normalize("NFKC", f"e{marks}x")


@given(st.text())
def test_a_folded_text_is_folded(text: str) -> None:
    assert fold(fold(text)) == fold(text)


MARKS = st.sampled_from("aé\u0301\u0308각ᄀ\u1161\u11a8ﬁσΣ\u0bbe\u093f\\ n")


@given(
    st.lists(st.text(MARKS, min_size=1, max_size=40), min_size=1, max_size=4), st.integers(0, 40)
)
@example(["\u1100\u1161\u11a8"], 1)
@example(["e\u0301"], 1)
def test_a_long_text_is_folded_in_pieces_as_it_is_whole(texts: list[str], shift: int) -> None:
    # Whatever stands where it is cut.
    filling = "x" * (PIECE_CHARACTERS - shift)
    text = filling + filling.join(texts) + filling

    found = list(fold_in_pieces([text]))

    assert "".join(found) == fold(text)
    assert len(found) > 1


def test_short_texts_are_folded_together() -> None:
    texts = ["Ａ", "\n", "b" * (PIECE_CHARACTERS - 1), "c", "D" * (PIECE_CHARACTERS + 1)]

    found = list(fold_in_pieces(texts))

    assert "".join(found) == "a\n" + "b" * (PIECE_CHARACTERS - 1) + "c" + "d" * (
        PIECE_CHARACTERS + 1
    )
    assert [len(piece) for piece in found] == [2, PIECE_CHARACTERS, PIECE_CHARACTERS, 1]


def test_a_text_with_many_signs_is_folded_in_few_characters_as_it_is_whole() -> None:
    # Lines and stars are no marks, and letters beside them are put together all the same.
    for shift in range(_FEW):
        text = "─" * 40 + "x" * shift + "e\u0301 각 \u1112\u1161\u11ab ﬁ" * 50
        whole = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
        assert fold(text) == whole, shift


def test_a_text_of_marks_alone_is_cut_nevertheless() -> None:
    text = "a" + "\u0301" * (3 * PIECE_CHARACTERS)

    found = list(pieces(text))

    assert "".join(found) == text
    assert max(map(len, found)) == PIECE_CHARACTERS


def test_escapes_of_json_hide_nothing_wherever_they_are_cut() -> None:
    escaped = "".join(f"\\u{ord(letter):04x}" for letter in "bomb")

    for shift in range(40):
        text = json.dumps({"a": "x" * (PIECE_CHARACTERS - shift)})[:-2] + escaped + '\\n"}'
        assert "bomb\n" in "".join(without_escapes(text)), shift


@pytest.mark.parametrize("word", ["💣", "𠮷野家", "𝐛𝐨𝐦𝐛"])
def test_letters_of_two_escapes_are_read_whole_wherever_they_are_cut(word: str) -> None:
    for shift in range(60):
        text = json.dumps({"a": "x" * (PIECE_CHARACTERS - shift) + word * 3})
        assert word * 3 in "".join(without_escapes(text)), shift
