"""Thoughts that a provider sealed, on their way through a client of another dialect and back.

Only who sealed a thought can read it, and refuses what others sealed. OpenAI's Responses have one
place for it, `encrypted_content`, which a client gives back unread. There a signature or a hidden
thought of another dialect stands behind a mark; what has no mark is OpenAI's own. In the neutral
form it is the other way round: a mark tells what OpenAI sealed from signatures of Anthropic's.
Neither base64 nor the tokens that OpenAI gives have a dot, with which each mark ends.

Source: https://platform.openai.com/docs/guides/reasoning (encrypted reasoning items)
"""

from typing import Final

from apps.proxy.dialects.neutral import Thinking

_OPENAI: Final = "openai."
_SIGNED: Final = "signed."
_HIDDEN: Final = "hidden."


def read_thought(text: str, encrypted: str, at: str = "") -> Thinking:
    """Return the thought of a reasoning item."""
    if encrypted.startswith(_HIDDEN):
        return Thinking(redacted=encrypted[len(_HIDDEN) :], at=at)
    if encrypted.startswith(_SIGNED):
        return Thinking(text, encrypted[len(_SIGNED) :], at=at)
    return Thinking(text, _OPENAI + encrypted if encrypted else "", at=at)


def encrypted_content(*, signature: str = "", redacted: str = "") -> str:
    """Return what a reasoning item holds to be given back, "" for nothing."""
    if redacted:
        return _HIDDEN + redacted
    if not signature or is_openais(signature):
        return signature.removeprefix(_OPENAI)
    return _SIGNED + signature


def is_openais(signature: str) -> bool:
    """Return whether OpenAI sealed it, for whom alone it is of use."""
    return signature.startswith(_OPENAI)
