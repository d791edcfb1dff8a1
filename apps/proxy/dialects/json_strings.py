"""What stands inside JSON strings, without reading the document around them."""

import orjson


def text_of(inside: bytes) -> str:
    """Return the inside of JSON strings as text."""
    unescaped = unescape(inside)
    return unescaped if isinstance(unescaped, str) else unescaped.decode("utf-8", "replace")


def unescape(inside: bytes) -> str | bytes:
    """Return the inside of JSON strings as text, as it stands if it cannot be read."""
    if b"\\" not in inside:
        return inside if inside.isascii() else inside.decode("utf-8", "replace")
    try:
        return str(orjson.loads(b'"' + inside + b'"'))
    except orjson.JSONDecodeError:
        # Half of a surrogate pair, the other half being in the next batch.
        return inside
