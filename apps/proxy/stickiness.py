"""Which calls belong together, so that they find the prompt cache of their provider. Pure.

The caller's own name for a conversation counts before one derived from how the conversation begins.
A key never leaves the caller it came from: two users with the same one have nothing in common.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any, Final

from apps.proxy.dialects.parsed_request import READING_ENDPOINTS, ParsedRequest
from apps.proxy.json_body import serialise

SESSION_HEADERS: Final = (b"x-session-id", b"session-id", b"session_id")
SESSION_PARAMETERS: Final = ("prompt_cache_key", "session_id", "user")
# Anthropic's name for the user, or what clients of it put there; in other dialects just a tag.
_METADATA_PARAMETER: Final = "user_id"
PREFIX_BYTES_MAX: Final = 64 << 10
_LEADING_MESSAGES_MAX: Final = 20
# What each dialect calls the turns.
_CONVERSATIONS: Final = ("messages", "contents", "input", "prompt")
_KEY_BYTES: Final = 16
# Above any rank of a route that has a weight.
_WEIGHTLESS: Final = 1e9


def find_sticky_key(
    headers: Mapping[bytes, bytes], request: ParsedRequest, *, user_id: int
) -> bytes | None:
    """Return what the call is to be routed by, None where nothing can be cached."""
    if request.endpoint in READING_ENDPOINTS:
        return None
    body = request.body
    given = next((headers[name] for name in SESSION_HEADERS if headers.get(name)), None)
    if given is None:
        metadata = body.get("metadata")
        own = metadata.get(_METADATA_PARAMETER) if isinstance(metadata, Mapping) else None
        texts = (*(body.get(name) for name in SESSION_PARAMETERS), own)
        text = next((text for text in texts if isinstance(text, str) and text), None)
        given = text.encode("utf-8", "replace") if text is not None else None
    kind, material = (b"given", given) if given is not None else (b"begun", _beginning(body))
    return hashlib.blake2b(b"%d:%b:%b" % (user_id, kind, material), digest_size=_KEY_BYTES).digest()


def rank_by_key(key: bytes, number: int, weight: int) -> float:
    """Return where a thing stands for a key, lowest first (weighted rendezvous hashing).

    Of all keys each thing is first for a share by its weight; when one goes, only its own keys
    move, and when it comes back they return.
    Source: https://en.wikipedia.org/wiki/Rendezvous_hashing#Weighted_rendezvous_hash
    """
    digest = hashlib.blake2b(b"%d" % number, key=key, digest_size=8).digest()
    point = (int.from_bytes(digest) + 1) / (2**64 + 1)
    return -math.log(point) / weight if weight > 0 else _WEIGHTLESS - math.log(point)


def _beginning(body: Mapping[str, Any]) -> bytes:
    """Return what stays the same from one turn of a conversation to the next: all up to the first
    message of the user, or the beginning of a prompt.
    """
    messages = next((body[name] for name in _CONVERSATIONS if body.get(name) is not None), None)
    if not isinstance(messages, list):
        return serialise(messages)[:PREFIX_BYTES_MAX]
    leading: list[Any] = [body["instructions"]] if "instructions" in body else []
    for message in messages[:_LEADING_MESSAGES_MAX]:
        leading.append(message)
        if isinstance(message, Mapping) and message.get("role") == "user":
            break
    return serialise(leading)[:PREFIX_BYTES_MAX]
