"""Where the bytes of an image or a document come from: a data URL here, a source object there.

Source: https://www.rfc-editor.org/rfc/rfc2397
"""

from typing import NamedTuple

_SCHEME = "data:"
_BASE64 = ";base64"


class DataUrl(NamedTuple):
    """The bytes within a URL."""

    media_type: str
    data: str  # base64


def find_data_url(url: str) -> DataUrl | None:
    """Return what a data URL holds, None if it is none, or is not in base64."""
    if url[: len(_SCHEME)].lower() != _SCHEME:
        return None
    head, comma, data = url[len(_SCHEME) :].partition(",")
    if not comma or not head.lower().endswith(_BASE64):
        return None
    media_type = head[: -len(_BASE64)].partition(";")[0].lower()
    return DataUrl(media_type, data) if media_type and data else None


def is_data_url(url: str) -> bool:
    """Return whether a URL holds its bytes itself, in whatever form."""
    return url[: len(_SCHEME)].lower() == _SCHEME


def data_url(media_type: str, data: str) -> str:
    """Return the URL that holds these bytes."""
    return f"{_SCHEME}{media_type}{_BASE64},{data}"
