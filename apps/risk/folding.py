"""How texts are compared: written alike what reads alike, nothing hidden between letters. Pure.

Folded, a text is in NFKC (full-width and other compatible letters are the usual ones), in the case
that comparisons go by (ß is ss), and without what nobody sees: control characters but for white
space, and everything that Unicode calls a format character or ignorable (zero-width spaces and
joiners, soft hyphens, marks of direction, variation selectors, tags, fillers). Accents stay, and
so do letters of other alphabets that only look alike.

Sources: https://www.unicode.org/reports/tr15/ and https://www.unicode.org/reports/tr44/ (of
Default_Ignorable_Code_Point)
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Final

# What is folded in one go, without letting other threads on: a millisecond of work at most.
PIECE_CHARACTERS: Final = 32 << 10
# How far back a place is looked for where a text can be cut.
_CUT_CHARACTERS: Final = 40
# An escape of JSON is at most so long: none may be cut.
_ESCAPE_CHARACTERS: Final = 6
# The first of two escapes that are one letter together.
_HALF: Final = re.compile(r"\\u[dD][89abAB]")
_IGNORED: Final = re.compile(
    "["
    "\\x00-\\x08\\x0e-\\x1f\\x7f-\\x84\\x86-\\x9f"
    "\\u00ad\\u034f\\u0600-\\u0605\\u061c\\u06dd\\u070f\\u0890\\u0891\\u08e2\\u115f\\u1160"
    "\\u17b4\\u17b5\\u180b-\\u180f\\u200b-\\u200f\\u202a-\\u202e\\u2060-\\u206f\\u3164"
    "\\ufe00-\\ufe0f\\ufeff\\uffa0\\ufff0-\\ufffb"
    "\\U000110bd\\U000110cd\\U00013430-\\U0001343f\\U0001bca0-\\U0001bca3"
    "\\U0001d173-\\U0001d17a\\U000e0000-\\U000e0fff"
    "]+"
)
# Marks are put in order by moving each to its place, which takes time by the square of their
# number: where there may be so many in a row, fewer characters are looked at together. Whatever may
# become a mark is no letter, digit or space, but for two marks of Japanese in half width.
_MANY_MARKS: Final = re.compile(r"[^\w\s\x00-\x7f]{31}")
_HALF_WIDTH_MARKS: Final = ("\uff9e", "\uff9f")
_FEW_CHARACTERS: Final = 128
# What is ignored of ASCII, in the form that is quickest for it.
_IGNORED_ASCII: Final = dict.fromkeys([*range(0x09), *range(0x0E, 0x20), 0x7F])
# Leading, medial and final letters of Korean: one syllable together.
_JAMO: Final = range(0x1100, 0x1200)


def fold(text: str) -> str:
    """Return a text as it is compared."""
    if text.isascii():
        return text.translate(_IGNORED_ASCII).lower()
    seen = _IGNORED.sub("", text)
    if len(seen) <= _FEW_CHARACTERS or not _may_have_many_marks(seen):
        return _folded(seen)
    return "".join(map(_folded, pieces(seen, _FEW_CHARACTERS)))


def _folded(seen: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", seen).casefold())


def _may_have_many_marks(text: str) -> bool:
    is_half_width = any(mark in text for mark in _HALF_WIDTH_MARKS)
    return is_half_width or _MANY_MARKS.search(text) is not None


def fold_in_pieces(texts: Iterable[str]) -> Iterator[str]:
    """Yield texts folded, one right behind the other, at most PIECE_CHARACTERS of them at a time:
    together what `fold` returns for all of them as one.
    """
    held: list[str] = []
    size = 0
    for text in texts:
        if held and size + len(text) > PIECE_CHARACTERS:
            yield fold("".join(held))
            held.clear()
            size = 0
        if len(text) > PIECE_CHARACTERS:
            yield from map(fold, pieces(text))
        else:
            held.append(text)
            size += len(text)
    if held:
        yield fold("".join(held))


def pieces(text: str, size: int = PIECE_CHARACTERS) -> Iterator[str]:
    """Yield a text in pieces, cut where no character belongs to the one before it."""
    start = 0
    while start < len(text):  # each turn takes at least half a piece
        end = _find_cut(text, start + size)
        yield text[start:end]
        start = end


def without_escapes(text: str) -> Iterator[str]:
    """Yield a JSON document, in pieces, with letters and breaks in the place of their escapes."""
    for piece in pieces(text):
        # This codec knows no other escapes than those of characters by their number.
        read = piece.encode("raw_unicode_escape").decode("raw_unicode_escape", "replace")
        # Of a letter beyond the first plane it makes two halves.
        read = read.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        yield read.replace("\\n", "\n").replace("\\t", "\t")


def _find_cut(text: str, wanted: int) -> int:
    if wanted >= len(text):
        return len(text)
    for cut in range(wanted, wanted - _CUT_CHARACTERS, -1):
        begun = text[cut - _ESCAPE_CHARACTERS + 1 : cut]
        is_half = _HALF.match(text, cut - _ESCAPE_CHARACTERS) is not None
        if "\\" not in begun and not is_half and _is_beginning(text[cut]):
            return cut
    # No text has so many marks in a row: whoever made this one up is not spared the seam.
    return wanted


def _is_beginning(character: str) -> bool:
    """Return whether a character never combines with the one before it."""
    return character.isascii() or not (
        unicodedata.combining(character)
        or unicodedata.category(character).startswith("M")
        or ord(character) in _JAMO
        or not unicodedata.is_normalized("NFKC", character)
    )
