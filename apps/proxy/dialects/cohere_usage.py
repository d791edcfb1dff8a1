"""Cohere's `usage` of chats and `meta` of everything else: what is billed, and what was counted.

The two differ by what Cohere puts around a prompt itself and does not bill.

Source: https://docs.cohere.com/reference/chat
"""

from collections.abc import Mapping
from typing import Any, Final

from apps.core.usage import Usage
from apps.proxy.dialects.usage_pieces import has_pieces, read_pieces
from apps.proxy.dialects.usage_reader import UsageReader, disjoint

COHERE_NAMES: Final = frozenset({"billed_units", "tokens"})


def parse_cohere_usage(value: Mapping[str, Any]) -> Usage | None:
    """Return what such an object bills, None if nothing in it can be used.

    A ranking bills units and no tokens.
    """
    reader = UsageReader()
    pieces = read_pieces(reader, value)
    tokens = reader.details(value, "billed_units")
    if "input_tokens" not in tokens and "image_tokens" not in tokens:
        tokens = reader.details(value, "tokens")
    read = reader.read(tokens, "input_tokens")
    images = reader.read(tokens, "image_tokens") or 0
    written = reader.read(tokens, "output_tokens")
    if read is None and written is None and not images:
        if not has_pieces(pieces):
            return None
        return pieces._replace(source="reported", is_suspect=reader.is_suspect)
    # Tokens of images are billed beside those of text.
    return disjoint(
        reader,
        pieces._replace(image_in=images),
        read=reader.add((read or 0, images)),
        written=written or 0,
    )
