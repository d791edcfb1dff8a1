"""Whether a provider can have produced what it says it did. Pure rules.

What is delivered bounds what can have been written: a token is hardly ever less than a character.
Providers that report many times of it err or lie: such usage is suspect and costs at most the hold.
"""

from typing import Final

from apps.core.usage import Usage

# The marks around an answer or a call of a tool, which nobody sees.
UNSEEN_TOKENS_MAX: Final = 64
_TOKENS_PER_CHARACTER: Final = 4
# An estimate has four characters a token.
_FACTOR: Final = 4 * _TOKENS_PER_CHARACTER
# An event of a stream is hardly ever below a hundred bytes, and brings a token or more.
_STREAMED_BYTES_PER_TOKEN: Final = 64


def needs_no_look(usage: Usage, *, streamed_bytes: int = 0, characters: int = 0) -> bool:
    """Return whether a usage is plausible without a closer look at what was delivered.

    `characters`: of text, as far as that is known at once.
    """
    return (
        usage.output <= UNSEEN_TOKENS_MAX
        or usage.output * _STREAMED_BYTES_PER_TOKEN <= streamed_bytes
        or usage.output <= characters * _TOKENS_PER_CHARACTER
        # What is thought, spoken or drawn is not delivered as text.
        or usage.reasoning > 0
        or usage.audio_out > 0
        or usage.image_out > 0
    )


def is_plausible(usage: Usage, *, delivered_tokens: int, choices: int = 1) -> bool:
    """Return whether the output can have been delivered as text of an estimated size.

    `choices` is how many answers hold that text together.
    """
    if needs_no_look(usage):
        return True
    return usage.output <= UNSEEN_TOKENS_MAX * max(choices, 1) + _FACTOR * delivered_tokens
