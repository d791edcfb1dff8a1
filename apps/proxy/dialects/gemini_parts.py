"""Parts of Google's contents that mean the same in requests, answers and streams.

A thought is a part of its own; what makes it fit to be given back (`thoughtSignature`) stands on
the part that follows from it, mostly the first call of a function. In the neutral form it belongs
to the thought.

Sources: https://ai.google.dev/gemini-api/docs/thought-signatures (also of the signature that
stands for none) and https://ai.google.dev/api/caching#Part
"""

import base64
from typing import Any, Final, TypeGuard

from apps.proxy.dialects.neutral import Part, Thinking, ToolUse
from apps.proxy.dialects.sealed_thoughts import find_googles, google_signature
from apps.proxy.dialects.tool_arguments import arguments_object

# Gemini refuses calls without a signature, but for those that another model made.
NO_SIGNATURE: Final = "skip_thought_signature_validator"
# Before the thought that another provider hides. Eight characters are whole bytes of base64, so
# that SDKs, which decode a signature and encode it again, keep them.
_REDACTED: Final = "redacted"
# Before the base64 of any other seal that is not Google's, most of which are no base64 themselves.
# Alone it says of a call that another model made it.
_ANOTHERS: Final = "anothers"
_URL_ALPHABET: Final = str.maketrans("-_", "+/")


def standard_base64(data: str) -> str:
    """Return base64 in the alphabet that everybody reads: Google's SDKs send the one for URLs."""
    if data == NO_SIGNATURE or ("-" not in data and "_" not in data):
        return data
    return data.translate(_URL_ALPHABET)


def signed_thought(signature: str) -> Thinking | None:
    """Return the thought that a signature stands for, None if it stands for none."""
    if signature in ("", NO_SIGNATURE, _ANOTHERS):
        return None
    if signature.startswith(_REDACTED):
        return Thinking(redacted=signature.removeprefix(_REDACTED))
    return Thinking(signature=_find_anothers(signature) or google_signature(signature))


def _find_anothers(signature: str) -> str | None:
    """Return another's signature as it was before it was told, None for one of Google's."""
    if not signature.startswith(_ANOTHERS):
        return None
    try:
        return base64.b64decode(signature.removeprefix(_ANOTHERS), validate=True).decode()
    except ValueError:
        return None


def is_marked(signature: str) -> bool:
    """Return whether a signature is not Google's, but stands for what another sealed or called."""
    return signature.startswith(_REDACTED) or _find_anothers(signature) is not None


def is_open_thought(part: Part | None) -> TypeGuard[Thinking]:
    """Return whether a part is a thought that was not signed so far."""
    return isinstance(part, Thinking) and not (part.signature or part.redacted)


def add_thought(parts: list[Part], text: str, at: str = "") -> None:
    """Add a thought, or a piece of one: `join_thoughts` makes those one that belong together."""
    if text:
        parts.append(Thinking(text, at=at))


def add_signature(parts: list[Part], signature: str, at: str = "") -> None:
    """Sign the thought that was added last, or add one that has nothing but a signature."""
    thought = signed_thought(signature)
    last = parts[-1] if parts else None
    if thought is None:
        return
    if thought.signature and is_open_thought(last):
        parts[-1] = last._replace(signature=thought.signature)
    else:
        parts.append(thought._replace(at=at))


def join_thoughts(parts: list[Part]) -> tuple[Part, ...]:
    """Return parts in which a thought is whole: what follows one without a signature is more of it.

    All pieces at once: to add each to those before it takes time by the square of their number.
    """
    joined: list[Part] = []
    pieces: list[Thinking] = []  # of a thought that was not signed so far
    for part in parts:
        if is_open_thought(part):
            pieces.append(part)
        elif pieces and isinstance(part, Thinking) and not part.redacted:
            joined.append(_joined([*pieces, part]))
            pieces = []
        else:
            if pieces:
                joined.append(_joined(pieces))
                pieces = []
            joined.append(part)
    if pieces:
        joined.append(_joined(pieces))
    return tuple(joined)


def _joined(pieces: list[Thinking]) -> Thinking:
    text = "".join(piece.text for piece in pieces)
    return pieces[0]._replace(text=text, signature=pieces[-1].signature)


def thought_part(thought: Thinking) -> dict[str, Any]:
    """Return a thought as a client is told it, with what it has to give back."""
    told: dict[str, Any] = {"text": thought.text, "thought": True}
    if thought.redacted:
        told["thoughtSignature"] = _REDACTED + thought.redacted
    elif thought.signature:
        told["thoughtSignature"] = _told_signature(thought.signature)
    return told


def _told_signature(signature: str) -> str:
    own = find_googles(signature)
    return _ANOTHERS + base64.b64encode(signature.encode()).decode() if own is None else own


def call_part(use: ToolUse) -> dict[str, Any]:
    """Return a call as a client is told it, which is to know that Google's models did not make it.

    They refuse it without that: what they made themselves is signed.
    """
    called = {"id": use.id, "name": use.name, "args": arguments_object(use.arguments)}
    return {"functionCall": called, "thoughtSignature": _ANOTHERS}
