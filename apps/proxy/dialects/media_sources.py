"""Where the bytes of an image or a document come from: a data URL here, a source object there.

Source: https://www.rfc-editor.org/rfc/rfc2397
"""

from typing import Final, NamedTuple

from apps.proxy.dialects.neutral import Document

_SCHEME: Final = "data:"
_BASE64: Final = ";base64"
# Of what stands before the bytes, which may be megabytes.
_HEAD_LENGTH_MAX: Final = 256


class DataUrl(NamedTuple):
    """The bytes within a URL."""

    media_type: str
    data: str  # base64


def find_data_url(url: str) -> DataUrl | None:
    """Return what a data URL holds, None if it is none, or is not in base64."""
    comma = url.find(",", 0, _HEAD_LENGTH_MAX)
    if not is_data_url(url) or comma < 0:
        return None
    head, data = url[len(_SCHEME) : comma].lower(), url[comma + 1 :]
    if not head.endswith(_BASE64):
        return None
    media_type = head[: -len(_BASE64)].partition(";")[0]
    return DataUrl(media_type, data) if media_type and data else None


def is_data_url(url: str) -> bool:
    """Return whether a URL holds its bytes itself, in whatever form."""
    return url[: len(_SCHEME)].lower() == _SCHEME


def data_url(media_type: str, data: str) -> str:
    """Return the URL that holds these bytes."""
    return f"{_SCHEME}{media_type}{_BASE64},{data}"


def document_text(document: Document) -> str:
    """Return a document of plain text as a text, under its title."""
    told = (document.title, document.context, document.text)
    return "\n\n".join(line for line in told if line)
