"""Where the bytes of an image, a document or a sound come from: a data URL here, a source object
there.

Source: https://www.rfc-editor.org/rfc/rfc2397
"""

import base64
import binascii
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from apps.proxy.dialects.neutral import Document
from apps.proxy.dialects.openai_refusals import unsupported

# What no standard knows and many clients say, and Anthropic and Google refuse.
_OTHER_NAMES: Final = {"image/jpg": "image/jpeg"}
_SCHEME: Final = "data:"
_BASE64: Final = ";base64"
# Of what stands before the bytes, which may be megabytes.
_HEAD_LENGTH_MAX: Final = 256
# All others are read with the rights of the operator's own account, whoever asks (gs:, s3:), or
# from the provider's disk.
_SCHEMES: Final = ("data:", "http:", "https:")
# Files that the operator sent to Google are read so, too, by their address or by their name alone.
_GOOGLES_FILES: Final = "generativelanguage.googleapis.com"
_FILE_NAME: Final = "files/"
# Where parts of a conversation name what they hold, in OpenAI's dialect and those like it.
_ADDRESSED: Final = (
    "audio", "audio_url", "file", "file_data", "file_url", "image", "image_url", "input_audio",
    "video", "video_url",
)  # fmt: skip
# What can hold no bytes but within an address.
_ONLY_ADDRESSED: Final = frozenset({"file_url", "uri"})
_ADDRESSES: Final = ("data", "file_data", "file_url", "image_url", "uri", "url")


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
    media_type = usual_type(head[: -len(_BASE64)].partition(";")[0])
    return DataUrl(media_type, data) if media_type and data else None


def usual_type(media_type: str) -> str:
    """Return a media type by the name that everybody knows."""
    return _OTHER_NAMES.get(media_type, media_type)


def is_data_url(url: str) -> bool:
    """Return whether a URL holds its bytes itself, in whatever form."""
    return url[: len(_SCHEME)].lower() == _SCHEME


def check_address(url: object, place: str, *, may_be_bytes: bool = True) -> None:
    """Raise E14 for an address that is neither on the web nor holds its bytes itself.

    What has no scheme may be bytes in base64, where a place takes such, but not the name of a file.
    """
    if not isinstance(url, str) or not url:
        return
    if ":" not in url and may_be_bytes:
        name = url.strip()
        if len(name) <= _HEAD_LENGTH_MAX and _FILE_NAME in name.lower():
            raise unsupported(place)
        return
    if not url[:_HEAD_LENGTH_MAX].lstrip().lower().startswith(_SCHEMES):
        raise unsupported(place)
    if not is_data_url(url.lstrip()) and _GOOGLES_FILES in url.lower():
        raise unsupported(place)


def check_addresses(part: Mapping[str, Any], place: str) -> None:
    """Raise E14 for a part of a conversation that names such an address, wherever it does."""
    for name in part.keys() & _ADDRESSED:
        value = part[name]
        may_be_bytes = name not in _ONLY_ADDRESSED
        for held in value if isinstance(value, list) else (value,):
            check_address(held, f"{place}.{name}", may_be_bytes=may_be_bytes)
            for key in held.keys() & _ADDRESSES if isinstance(held, dict) else ():
                check_address(
                    held[key],
                    f"{place}.{name}.{key}",
                    may_be_bytes=may_be_bytes and key not in _ONLY_ADDRESSED,
                )


def is_bounded_sound(part: object) -> bool:
    """Return whether a part is a sound that is as long as its bytes: WAV or MP3.

    Any other may be hours of silence in a few bytes, or lie at an address.
    """
    if not isinstance(part, dict) or part.get("type") != "input_audio":
        return False
    sound = part.get("input_audio")
    data = sound.get("data") if isinstance(sound, dict) else None
    if not isinstance(data, str):
        return False
    begin = data.find(",", 0, _HEAD_LENGTH_MAX) + 1 if is_data_url(data) else 0
    head = _bytes_at(data, begin, 0)
    return is_wav(head) or is_mp3(_bytes_at(data, begin, notes_length(head)))


def is_wav(head: bytes) -> bool:
    """Return whether a sound is a WAV, by its first bytes."""
    return head[:4] == b"RIFF" and head[8:12] == b"WAVE"


def is_mp3(frame: bytes) -> bool:
    """Return whether a sound goes on with a frame of MPEG layer III."""
    return len(frame) >= 4 and frame[0] == 0xFF and frame[1] & 0xE6 == 0xE2


def notes_length(head: bytes) -> int:
    """Return how many bytes of notes stand before a sound, by its first bytes."""
    if head[:3] != b"ID3" or len(head) < 11:
        return 0
    # Their length has seven bits a byte.
    return 10 + sum((byte & 0x7F) << 7 * (3 - place) for place, byte in enumerate(head[6:10]))


def image_length(source: object) -> int:
    """Return how many bytes of a body are the base64 of an image, given what holds it as `data`."""
    return _plain_length(source.get("data") if isinstance(source, dict) else None)


def image_url_length(url: object) -> int:
    """Return how many bytes of a body are an image within a URL."""
    is_image = isinstance(url, str) and url.startswith("data:image/")
    return _plain_length(url) if is_image else 0


def _plain_length(data: object) -> int:
    # Only what is one byte each in JSON, so that no text can hide behind the subtraction.
    if not isinstance(data, str) or not data.isascii() or not data.isprintable():
        return 0
    return 0 if '"' in data or "\\" in data else len(data)


def _bytes_at(data: str, begin: int, position: int) -> bytes:
    """Return a dozen bytes of what is in base64 from `begin` on, none where it is not."""
    start = begin + position // 3 * 4
    try:
        return base64.b64decode(data[start : start + 20], validate=True)[position % 3 :]
    except (binascii.Error, ValueError):
        return b""


def data_url(media_type: str, data: str) -> str:
    """Return the URL that holds these bytes."""
    return f"{_SCHEME}{media_type}{_BASE64},{data}"


def document_text(document: Document) -> str:
    """Return a document of plain text as a text, under its title."""
    told = (document.title, document.context, document.text)
    return "\n\n".join(line for line in told if line)
