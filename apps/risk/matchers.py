"""What a rule looks for in a text: words, or a regular expression of RE2. Pure.

Words are looked for one after the other, which takes one to four nanoseconds a word and character,
whatever the text is. (As one expression they would be quicker in most texts, and a thousand times
slower in those that use up the memory of RE2.) RE2 takes time by the length of the text and never
goes back, whatever somebody writes: there are no backreferences and nothing is tried twice. It
releases the interpreter while it searches. Texts are folded UTF-8 (`folding`).

Bounds: of words WORDS_MAX, each WORD_LENGTH_MAX characters and all of them WORDS_LENGTH_MAX; of
patterns PATTERN_LENGTH_MAX characters and MEMORY_BYTES_MAX.

Source: https://github.com/google/re2/wiki/Syntax
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import re2

from apps.risk.folding import fold

WORDS_MAX: Final = 1_000
WORD_LENGTH_MAX: Final = 100
WORDS_LENGTH_MAX: Final = 20_000
PATTERN_LENGTH_MAX: Final = 500
# Of a compiled pattern and of what RE2 remembers while it searches with it.
MEMORY_BYTES_MAX: Final = 4 << 20


# Long enough for a thread that waits for the interpreter to get it, after a millisecond or so.
PAUSE_SECONDS: Final = 0.0002
_PAUSE_CHARACTERS: Final = 1 << 19
# Before each pattern: ^ and $ are the ends of lines.
_LINES: Final = "(?m)"

Pause = Callable[[float], None]


class PatternRefused(ValueError):
    """This cannot be looked for. The message is for who wrote it."""


class Matcher(NamedTuple):
    """Something that is looked for."""

    compiled: Any
    words: int  # how many; 0: a pattern, which may take some microseconds a character

    def is_in(
        self, text: bytes, start: int = 0, end: int | None = None, pause: Pause | None = None
    ) -> bool:
        """Return whether it stands in a text, between two places of it.

        `pause` sleeps, now and then, so that other threads get on.
        """
        stop = len(text) if end is None else end
        if isinstance(self.compiled, _Words):
            return self.compiled.search(text, start, stop, pause) is not None
        return self.compiled.search(text, start, stop) is not None


class _Words:
    """Words, looked for as a compiled expression is."""

    def __init__(self, words: Sequence[str], *, are_whole: bool) -> None:
        self._words = words
        self._are_whole = are_whole

    def search(self, text: bytes, start: int, end: int, pause: Pause | None) -> str | None:
        """Return a word that stands in a text. What is cut at its ends is no whole word."""
        seen = " ".join(text.decode("utf-8", "ignore").split())
        if start == 0:
            seen = f" {seen}"
        if end == len(text):
            seen += " "
        compared = 0
        for word in self._words:
            compared += len(seen)
            if pause is not None and compared > _PAUSE_CHARACTERS:
                compared = 0
                pause(PAUSE_SECONDS)
            if word in seen and (not self._are_whole or _is_alone(word, seen)):
                return word
        return None


def _is_alone(word: str, text: str) -> bool:
    """Return whether a word stands somewhere without a letter or digit beside it."""
    place = text.find(word)
    while place >= 0:
        beside = (text[place - 1 : place], text[place + len(word) : place + len(word) + 1])
        if all(mark and not (mark.isalnum() or mark == "_") for mark in beside):
            return True
        place = text.find(word, place + 1)
    return False


def match_words(words: Sequence[str], *, are_whole: bool) -> Matcher:
    """Return what finds any of some words or phrases. Raises PatternRefused.

    White space within a phrase stands for any white space. `are_whole`: no letter or digit may
    stand beside them.
    """
    if len(words) > WORDS_MAX:
        raise PatternRefused(f"At most {WORDS_MAX} words.")
    if sum(map(len, words)) > WORDS_LENGTH_MAX:
        raise PatternRefused(f"At most {WORDS_LENGTH_MAX} characters in all words together.")
    written = tuple(dict.fromkeys(map(_written, words)))
    return Matcher(_Words(written, are_whole=are_whole), len(written))


def match_pattern(pattern: str) -> Matcher:
    """Return what finds a regular expression, in any case. Raises PatternRefused.

    `^` and `$` are the ends of lines. What would be found in every text is refused.
    """
    if len(pattern) > PATTERN_LENGTH_MAX:
        raise PatternRefused(f"At most {PATTERN_LENGTH_MAX} characters.")
    found = Matcher(_compile(f"{_LINES}{pattern}"), 0)
    if found.is_in(b""):
        raise PatternRefused("It would be found in every text: it matches an empty one.")
    return found


def _written(word: str) -> str:
    if len(word) > WORD_LENGTH_MAX:
        raise PatternRefused(f"At most {WORD_LENGTH_MAX} characters a word.")
    parts = fold(word).split()
    if not parts:
        raise PatternRefused("A word is empty, or has nothing that can be seen.")
    return " ".join(parts)


def _compile(pattern: str) -> Any:
    options = re2.Options()
    options.max_mem = MEMORY_BYTES_MAX
    options.case_sensitive = False
    # Whoever may read logs may not read rules.
    options.log_errors = False
    options.never_capture = True
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        said = error.args[0] if error.args else ""
        told = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
        told = told.replace(_LINES, "", 1)  # Nobody wrote that.
        raise PatternRefused(f"This is no regular expression of RE2: {told}"[:300]) from None
    finally:
        # The library would keep the last 128 of them: their memory ends with their rules.
        re2.purge()
