"""Thoughts that a provider sealed, on their way through a client of another dialect and back.

Only who sealed a thought can read it, and refuses what others sealed. In the neutral form a mark
tells what OpenAI or Google sealed; a signature without one is Anthropic's. OpenAI's Responses have
one place for it, `encrypted_content`, which a client gives back unread. There it is the other way
round: what has no mark is OpenAI's own, and a signature or a hidden thought of another dialect
stands behind one. Neither base64 nor the tokens that OpenAI gives have a dot, with which each mark
ends.

Source: https://platform.openai.com/docs/guides/reasoning (encrypted reasoning items)
"""

from typing import Final

from apps.proxy.dialects.neutral import Thinking

_OPENAI: Final = "openai."
_GOOGLE: Final = "google."
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


def is_marked_content(encrypted: str) -> bool:
    """Return whether what a reasoning item holds is not OpenAI's."""
    return encrypted.startswith((_HIDDEN, _SIGNED))


def google_signature(signature: str) -> str:
    """Return what Google sealed as it stands in the neutral form."""
    return _GOOGLE + signature


def find_googles(signature: str) -> str | None:
    """Return a signature as Google gave it, None for one of another."""
    return signature.removeprefix(_GOOGLE) if signature.startswith(_GOOGLE) else None


def is_openais(signature: str) -> bool:
    """Return whether OpenAI sealed it, for whom alone it is of use."""
    return signature.startswith(_OPENAI)


def is_anthropics(signature: str) -> bool:
    """Return whether there is a signature, and neither OpenAI's nor Google's."""
    return bool(signature) and not is_marked(signature)


def is_marked(signature: str) -> bool:
    """Return whether a mark stands before a signature, as it does outside its own dialect."""
    return signature.startswith((_OPENAI, _GOOGLE))
