"""Whether a provider can have produced what it says it did. Pure rules.

What is delivered bounds what can have been written: a token is hardly ever less than a character.
What was asked bounds what can have been read and written at all, seen or unseen. Providers that
report many times of it err or lie: such usage is suspect and costs at most the hold.
"""

from typing import Final, NamedTuple

from apps.core.usage import Usage

# The marks around an answer or a call of a tool, which nobody sees.
UNSEEN_TOKENS_MAX: Final = 64
_TOKENS_PER_CHARACTER: Final = 4
# An estimate has four characters a token.
_FACTOR: Final = 4 * _TOKENS_PER_CHARACTER
# An event of a stream is hardly ever below a hundred bytes, and brings a token or more.
_STREAMED_BYTES_PER_TOKEN: Final = 64
# Hardly any event is above half a kilobyte for each of its tokens, or any text above eight letters.
_STREAMED_BYTES_PER_TOKEN_MAX: Final = 512
_STREAMED_BYTES_AROUND: Final = 1024  # the first event, the last one and that of the usage
_CHARACTERS_PER_TOKEN_MAX: Final = 8
# An estimate of rules, blanks and the like is several times too high; hardly one of a whole answer.
_DELIVERED_FACTOR: Final = 4
_DELIVERED_SLACK_TOKENS: Final = 32
# By how much providers may count otherwise than the gateway bounds: other tokenizers, templates
# and instructions of their own around each text.
_ASKED_FACTOR: Final = 4
_ASKED_SLACK_TOKENS: Final = 1024


class Asked(NamedTuple):
    """What bounds the tokens that a call can take."""

    input_bound: int  # of all that is sent
    output_bound: int  # the cap, for all choices, with what is predicted
    context_length: int  # of the model
    texts: int = 1  # that are each read for themselves
    choices: int = 1
    searches: int = 0  # that the provider may make, reading on after each


def fits(usage: Usage, asked: Asked) -> bool:
    """Return whether a call can have taken so many tokens, whoever saw them.

    Kept generous, because an honest usage must never fail: instructions of the provider's own, and
    what its tools find, are read beside what was sent; and some vendors leave reasoning out of the
    cap, which is bounded by the model's context alone. So a context for each text and each choice
    is always believed, however little was asked.
    """
    context = asked.context_length
    read = max(_ASKED_FACTOR * asked.input_bound, asked.texts * context)
    read += asked.searches * context
    written = _ASKED_FACTOR * asked.output_bound + asked.choices * context
    return (
        usage.input_tokens <= read + _ASKED_SLACK_TOKENS
        and usage.output_tokens <= written + _ASKED_SLACK_TOKENS
    )


def needs_no_look(usage: Usage, *, streamed_bytes: int = 0, characters: int = 0) -> bool:
    """Return whether a usage is plausible without a closer look at what was delivered.

    `characters`: of text, as far as that is known at once.
    """
    return (
        usage.output <= UNSEEN_TOKENS_MAX
        or usage.output * _STREAMED_BYTES_PER_TOKEN <= streamed_bytes
        or usage.output <= characters * _TOKENS_PER_CHARACTER
    )


def is_plausible(usage: Usage, *, delivered_tokens: int, choices: int = 1) -> bool:
    """Return whether the output can have been delivered as text of an estimated size.

    `choices` is how many answers hold that text together. What is thought, spoken or drawn is not
    delivered as text, and providers may tell only a part of it apart: it counts like delivered
    text, so that a single token of it excuses no more than a word would.
    """
    if needs_no_look(usage):
        return True
    seen = delivered_tokens + usage.reasoning + usage.audio_out + usage.image_out
    return usage.output <= UNSEEN_TOKENS_MAX * max(choices, 1) + _FACTOR * seen


def tells_enough(usage: Usage, *, streamed_bytes: int = 0, characters: int = 0) -> bool:
    """Return whether a usage accounts for what was delivered without a closer look at it.

    `characters`: of text, as far as that is known at once.
    """
    told = usage.output_tokens
    return (
        streamed_bytes <= told * _STREAMED_BYTES_PER_TOKEN_MAX + _STREAMED_BYTES_AROUND
        and characters <= told * _CHARACTERS_PER_TOKEN_MAX
    )


def tells_too_little(usage: Usage, *, delivered_tokens: int) -> bool:
    """Return whether the output is far below the estimated size of what was delivered."""
    return delivered_tokens > _DELIVERED_FACTOR * usage.output_tokens + _DELIVERED_SLACK_TOKENS
