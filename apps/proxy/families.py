"""Which tokenizer counts for a model, by its name. Pure.

Only OpenAI's vocabularies ship. Another family is OpenAI's count times a factor for what is ASCII
and one for the rest, measured in November 2026 on twenty-two texts that are not those of the test
(prose, code and JSON in ASCII; Chinese and Japanese) against the family's own vocabulary; Claude's
is not public, and was measured against a reconstruction of its counts (ctok 1.3.0).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from apps.proxy.estimate import estimate_quarters

_DIGITS: Final = re.compile(r"\d{1,3}")
_HUNDRED: Final = 100


class Family(NamedTuple):
    """Models that read text in the same tokens."""

    name: str
    encoding: str
    ascii_factor: int = _HUNDRED  # hundredths
    other_factor: int = _HUNDRED  # hundredths
    has_single_digits: bool = False  # OpenAI's tokens hold up to three

    def tokens(self, count: int, texts: Sequence[str]) -> int:
        """Return this family's number of tokens for texts that are `count` of its encoding."""
        if self.ascii_factor == self.other_factor == _HUNDRED or not count:
            return count
        # Quarters of a token by the cheap estimate: the share of what is not ASCII.
        quarters = sum(estimate_quarters(text) for text in texts)
        ascii_quarters = sum(len(text.encode("ascii", "ignore")) for text in texts)
        factors = ascii_quarters * self.ascii_factor + (
            (quarters - ascii_quarters) * self.other_factor
        )
        tokens = -(-count * factors // (quarters * _HUNDRED))
        if self.has_single_digits:
            groups = [found for text in texts for found in _DIGITS.findall(text)]
            tokens += sum(map(len, groups)) - len(groups)
        return tokens


_O200K: Final = "o200k_base"
_CLAUDE: Final = Family("claude", _O200K, 152, 142)
_OLDER_CLAUDE: Final = Family("claude", _O200K, 116, 142)
# Neither a vocabulary nor counts were to be had for what is not named below (GLM, Kimi, Grok …).
UNKNOWN: Final = Family("unknown", _O200K)

# The first that is found in a name counts: a distillate of DeepSeek reads as the model below it.
_FAMILIES: Final = tuple(
    (re.compile(rf"(?<![a-z]){pattern}"), family)
    for pattern, family in (
        (r"qwen|qwq|qvq", Family("qwen", _O200K, 100, 80, has_single_digits=True)),
        (r"(?:meta-?)?llama|codellama", Family("llama", _O200K, 100, 105)),
        (r"deepseek", Family("deepseek", _O200K, 104, 78)),
        (r"gemini|gemma", Family("gemini", _O200K, 109, 82, has_single_digits=True)),
        (
            r"mi[sx]tral|ministral|magistral|pixtral|codestral|devstral|voxtral",
            Family("mistral", _O200K, 104, 124, has_single_digits=True),
        ),
        (r"claude", _CLAUDE),
        (r"gpt-?(?:4o|4\.[1-9]|[5-9]|oss)|chatgpt|codex", Family("openai", _O200K)),
        (r"o[1-9](?![a-z0-9])|omni-moderation", Family("openai", _O200K)),
        (r"gpt-?(?:4|3\.?5)|text-embedding|davinci-002", Family("openai", "cl100k_base")),
        (r"babbage-002|text-moderation", Family("openai", "cl100k_base")),
    )
)
_VERSION: Final = re.compile(r"claude\D*?(\d)(?:[.-](\d{1,2}))?(?!\d)")


def find_family(model: str) -> Family:
    """Return the family of a model, UNKNOWN if its name tells none."""
    folded = model.casefold()
    for pattern, family in _FAMILIES:
        if pattern.search(folded) is not None:
            return _OLDER_CLAUDE if family is _CLAUDE and is_older_claude(folded) else family
    return UNKNOWN


def is_older_claude(model: str) -> bool:
    """Return whether this is a Claude before Opus 4.7, when its tokenizer and its eyes changed.

    Source: https://platform.claude.com/docs/en/build-with-claude/token-counting
    """
    version = _VERSION.search(model.casefold())
    if version is None:
        return "instant" in model.casefold()
    return (int(version[1]), int(version[2] or 0)) < (4, 7)
