"""What a call used: counts of tokens in classes that never overlap.

The sum of the classes is the provider's own total: a cached token is counted in `cache_read` and
not in `input`, a reasoning token in `reasoning` and not in `output` (I-29).
"""

from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple, cast, get_args

UsageSource = Literal["reported", "estimated", "checkpoint", "none"]

INPUT_CLASSES: Final = (
    "input",
    "cache_read",
    "cache_write_5m",
    "cache_write_1h",
    "audio_in",
    "image_in",
)
OUTPUT_CLASSES: Final = ("output", "reasoning", "audio_out", "image_out")
TOKEN_CLASSES: Final = (
    "input",
    "cache_read",
    "cache_write_5m",
    "cache_write_1h",
    "output",
    "reasoning",
    "audio_in",
    "audio_out",
    "image_in",
    "image_out",
)

# What is counted by the piece, beside the request itself; none of it is a token.
COUNTS: Final = ("image", "second", "character", "web_search", "tool_call")

_SOURCES: Final = frozenset(get_args(UsageSource))


class Usage(NamedTuple):
    """Token counts and other counts of one call, and where they come from."""

    input: int = 0  # neither cached, audio nor image
    cache_read: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    output: int = 0  # neither reasoning, audio nor image
    reasoning: int = 0
    audio_in: int = 0
    audio_out: int = 0
    image_in: int = 0  # of videos too: they are read as images
    image_out: int = 0
    source: UsageSource = "none"
    is_suspect: bool = False  # the provider's numbers contradict each other or the rules
    image: int = 0  # whole images that were made, or are billed one by one
    second: int = 0  # of audio or video, each begun one
    character: int = 0
    web_search: int = 0  # searches that the provider ran
    tool_call: int = 0  # calls of tools that the provider ran itself, or units of its ranking

    @property
    def input_tokens(self) -> int:
        """Return the sum of everything the model read."""
        return (
            self.input
            + self.cache_read
            + self.cache_write_5m
            + self.cache_write_1h
            + self.audio_in
            + self.image_in
        )

    @property
    def output_tokens(self) -> int:
        """Return the sum of everything the model produced, reasoning included."""
        return self.output + self.reasoning + self.audio_out + self.image_out

    @property
    def total_tokens(self) -> int:
        """Return the sum of all token classes."""
        return self.input_tokens + self.output_tokens

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "Usage":
        """Return the usage of stored fields by name; absent classes are 0.

        Raises ValueError for an unknown source or a count that is no whole number of at least 0.
        """
        counts: dict[str, int] = {}
        for name in (*TOKEN_CLASSES, *COUNTS):
            count = fields.get(name, 0)
            if isinstance(count, bool) or not isinstance(count, int) or count < 0:
                raise ValueError(f"{name} must be a whole number.")
            counts[name] = count
        source = fields.get("source", "none")
        if source not in _SOURCES:
            raise ValueError("The source of a usage must be one of the known ones.")
        return cls(
            **counts,
            source=cast(UsageSource, source),
            is_suspect=fields.get("is_suspect", False) is True,
        )
