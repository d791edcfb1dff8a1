"""What stands inside JSON strings, without reading the document around them."""

import json

import orjson


def text_of(inside: bytes) -> str:
    """Return the inside of JSON strings as text, as it stands if it cannot be read."""
    if b"\\" not in inside:
        return inside.decode("utf-8", "replace")
    quoted = b'"' + inside + b'"'
    try:
        return str(orjson.loads(quoted))
    except orjson.JSONDecodeError:
        return _lenient(quoted.decode("utf-8", "replace"))


def _lenient(quoted: str) -> str:
    """Return a string in which half of a character may stand, its other half coming later: such
    a text is read all the same, and the sizes of both halves are that of the whole.
    """
    try:
        return str(json.loads(quoted, strict=False))
    except ValueError:
        return quoted[1:-1]
