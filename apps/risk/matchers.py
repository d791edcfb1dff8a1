"""What a rule looks for in a text: words, or a regular expression of RE2. Pure.

RE2 takes time by the length of the text and never goes back, whatever somebody writes: there are no
backreferences and nothing is tried twice. It releases the interpreter while it searches. Texts are
folded UTF-8 (`folding`).

Bounds: of words WORDS_MAX, each WORD_LENGTH_MAX characters and all of them WORDS_LENGTH_MAX; of
patterns PATTERN_LENGTH_MAX characters; of memory MEMORY_BYTES_MAX a rule.

Source: https://github.com/google/re2/wiki/Syntax
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import re2

from apps.risk.folding import fold

WORDS_MAX: Final = 1_000
WORD_LENGTH_MAX: Final = 100
WORDS_LENGTH_MAX: Final = 20_000
PATTERN_LENGTH_MAX: Final = 500
# Of a compiled rule and of what RE2 remembers while it searches with it.
MEMORY_BYTES_MAX: Final = 4 << 20
# What is white space and still there in NFKC.
_SPACES: Final = r"[\s\v\x{85}\x{1680}\x{2028}\x{2029}]+"
_BEFORE_WORD: Final = r"(?:^|[^\pL\pN_])"
_AFTER_WORD: Final = r"(?:$|[^\pL\pN_])"


class PatternRefused(ValueError):
    """This cannot be looked for. The message is for who wrote it."""


class Matcher(NamedTuple):
    """Something that is looked for."""

    compiled: Any
    is_quick: bool  # takes a few nanoseconds a character, whatever the text is

    def is_in(self, text: bytes, start: int = 0, end: int | None = None) -> bool:
        """Return whether it stands in a text, between two places of it."""
        stop = len(text) if end is None else end
        return self.compiled.search(text, start, stop) is not None


def match_words(words: Sequence[str], *, are_whole: bool) -> Matcher:
    """Return what finds any of some words or phrases. Raises PatternRefused.

    White space within a phrase stands for any white space. `are_whole`: no letter or digit may
    stand beside them.
    """
    if len(words) > WORDS_MAX:
        raise PatternRefused(f"At most {WORDS_MAX} words.")
    if sum(map(len, words)) > WORDS_LENGTH_MAX:
        raise PatternRefused(f"At most {WORDS_LENGTH_MAX} characters in all words together.")
    written = [_written(word) for word in words]
    either = f"(?:{'|'.join(dict.fromkeys(written))})"
    if are_whole:
        either = _BEFORE_WORD + either + _AFTER_WORD
    return Matcher(_compile(f"(?m){either}", is_case_sensitive=True), is_quick=True)


def match_pattern(pattern: str) -> Matcher:
    """Return what finds a regular expression, in any case. Raises PatternRefused.

    `^` and `$` are the ends of lines. What would be found in every text is refused.
    """
    if len(pattern) > PATTERN_LENGTH_MAX:
        raise PatternRefused(f"At most {PATTERN_LENGTH_MAX} characters.")
    found = Matcher(_compile(f"(?m){pattern}", is_case_sensitive=False), is_quick=False)
    if found.is_in(b""):
        raise PatternRefused("It would be found in every text: it matches an empty one.")
    return found


def _written(word: str) -> str:
    if len(word) > WORD_LENGTH_MAX:
        raise PatternRefused(f"At most {WORD_LENGTH_MAX} characters a word.")
    parts = fold(word).split()
    if not parts:
        raise PatternRefused("A word is empty, or has nothing that can be seen.")
    return _SPACES.join(re2.escape(part) for part in parts)


def _compile(pattern: str, *, is_case_sensitive: bool) -> Any:
    options = re2.Options()
    options.max_mem = MEMORY_BYTES_MAX
    options.case_sensitive = is_case_sensitive
    # Whoever may read logs may not read rules.
    options.log_errors = False
    options.never_capture = True
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        said = error.args[0] if error.args else ""
        told = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
        raise PatternRefused(f"This is no regular expression of RE2: {told}"[:300]) from None
    finally:
        # The library would keep the last 128 of them: their memory ends with their rules.
        re2.purge()
