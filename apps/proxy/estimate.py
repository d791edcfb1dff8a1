"""Estimates of token counts, for answers whose provider did not report any.

An estimate is marked as such wherever it is stored. Rule of thumb, measured against common
byte-pair vocabularies: four ASCII characters make a token, two of other alphabets (Latin with
accents, Greek, Cyrillic, Hebrew, Arabic), one Chinese, Japanese or Korean character is a token and
an emoji two. Counts are kept in quarters of a token, so that pieces of one text add up.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

from apps.core.usage import Usage

QUARTERS_PER_TOKEN: Final = 4

_QUARTERS_PER_ALPHABETIC: Final = 2
_QUARTERS_PER_IDEOGRAPH: Final = 4
_QUARTERS_PER_ASTRAL: Final = 8


def estimate_quarters(text: str | bytes) -> int:
    """Return the estimated size of a piece of text, in quarters of a token.

    Bytes are read as UTF-8. The sizes of the pieces of a text sum to the size of the text.
    """
    if isinstance(text, bytes):
        if text.isascii():
            return len(text)
        text = text.decode("utf-8", "replace")
    if text.isascii():
        return len(text)
    # Four numbers from C-level encoders instead of a loop over characters: how many take one,
    # two, three and four bytes of UTF-8.
    characters = len(text)
    ascii_count = len(text.encode("ascii", "ignore"))
    astral = len(text.encode("utf-16-le", "surrogatepass")) // 2 - characters
    utf8_length = len(text.encode("utf-8", "surrogatepass"))
    others = characters - ascii_count - astral
    ideographs = utf8_length - ascii_count - 4 * astral - 2 * others
    alphabetic = others - ideographs
    return (
        ascii_count
        + alphabetic * _QUARTERS_PER_ALPHABETIC
        + ideographs * _QUARTERS_PER_IDEOGRAPH
        + astral * _QUARTERS_PER_ASTRAL
    )


def tokens_of_quarters(quarters: int) -> int:
    """Return whole tokens, rounded up: text that is not empty has at least one."""
    return -(-quarters // QUARTERS_PER_TOKEN)


def estimate_tokens(text: str | bytes) -> int:
    """Return the estimated number of tokens of a text."""
    return tokens_of_quarters(estimate_quarters(text))


class Excerpt(NamedTuple):
    """A text, or samples of a long one, and the estimated size of the whole."""

    text: str
    quarters: int
    is_thought: bool = False


def excerpt(text: str, *, is_thought: bool = False) -> Excerpt:
    """Return a text that is whole."""
    return Excerpt(text, estimate_quarters(text), is_thought)


class Sizes(NamedTuple):
    """Of what a model produced, in quarters of a token."""

    written: int
    thought: int


def sizes_of(excerpts: Iterable[Excerpt]) -> Sizes:
    """Return how much of some texts was written, and how much thought."""
    written = thought = 0
    for part in excerpts:
        if part.is_thought:
            thought += part.quarters
        else:
            written += part.quarters
    return Sizes(written, thought)


def within(usage: Usage, bound: int) -> Usage:
    """Return an estimate of what was read that is no more than `bound` tokens, of text first."""
    text = min(usage.input, bound)
    images = min(usage.image_in, bound - text)
    audio = min(usage.audio_in, bound - text - images)
    return usage._replace(input=text, image_in=images, audio_in=audio)
