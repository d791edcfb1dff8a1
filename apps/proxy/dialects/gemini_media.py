"""Images, documents and sounds in Google's form: `inlineData` and `fileData`.

What lies with Google (files that were sent there before, videos of its own) is refused by name.

Sources: https://ai.google.dev/api/caching#Blob, https://ai.google.dev/api/caching#FileData,
https://ai.google.dev/gemini-api/docs/image-understanding (of the kinds of images) and
https://ai.google.dev/gemini-api/docs/file-input-methods (of documents at any URL)
"""

import base64
import binascii
from typing import Any, Final

from apps.proxy.dialects.gemini_parameters import GoogleParameters
from apps.proxy.dialects.gemini_parts import standard_base64
from apps.proxy.dialects.media_sources import usual_type
from apps.proxy.dialects.neutral import Audio, Document, Image
from apps.proxy.dialects.openai_refusals import inexpressible, missing, wrong_value

PDF: Final = "application/pdf"
IMAGE_TYPES: Final = frozenset(
    {"image/heic", "image/heif", "image/jpeg", "image/png", "image/webp"}
)
# The formats that OpenAI has names for.
_SOUNDS: Final = {
    "audio/mp3": "mp3",
    "audio/mpeg": "mp3",
    "audio/wav": "wav",
    "audio/x-wav": "wav",
}
_SOUND_TYPES: Final = {"mp3": "audio/mp3", "wav": "audio/wav"}
_SUFFIXES: Final = {
    "gif": "image/gif",
    "heic": "image/heic",
    "heif": "image/heif",
    "jpeg": "image/jpeg",
    "jpg": "image/jpeg",
    "pdf": PDF,
    "png": "image/png",
    "webp": "image/webp",
}
_SCHEMES: Final = ("http://", "https://")
# Where Google keeps files and videos: nobody else can read them there.
_GOOGLES: Final = (
    "https://generativelanguage.googleapis.com/",
    "https://www.youtube.com/",
    "https://youtu.be/",
)


def read_media(part: GoogleParameters) -> Image | Document | Audio | None:
    """Return what a part holds beside a text, None if it holds none of it."""
    blob, file = part.member("inlineData"), part.member("fileData")
    if blob is not None and file is not None:
        raise wrong_value(part.at, "one kind of data")
    if blob is not None:
        found = _read_blob(blob)
        blob.finish()
        return found
    if file is not None:
        lying = _read_file(file)
        file.finish()
        return lying
    return None


def _read_blob(blob: GoogleParameters) -> Image | Document | Audio:
    media_type = usual_type(blob.require_text("mimeType").partition(";")[0].strip().lower())
    data = standard_base64(blob.require_text("data"))
    # Only tools that Google runs are told it.
    title = blob.text("displayName") or ""
    if media_type.startswith("image/"):
        return Image("", media_type, data, at=blob.at)
    if media_type == PDF:
        return Document(media_type=PDF, data=data, title=title, at=blob.at)
    if media_type in _SOUNDS:
        return Audio(data, _SOUNDS[media_type], at=blob.at)
    if not media_type.startswith("text/"):
        raise blob.refuse("mimeType")
    try:
        text = base64.b64decode(data, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise wrong_value(blob.name("data"), "a text in base64") from None
    return Document(text=text, title=title, at=blob.at)


def _read_file(file: GoogleParameters) -> Image | Document:
    url = file.require_text("fileUri")
    media_type = usual_type(file.text("mimeType") or "") or type_of_url(url)
    title = file.text("displayName") or ""
    if not url.startswith(_SCHEMES) or url.startswith(_GOOGLES):
        raise file.refuse("fileUri")
    if media_type is None:
        raise missing(file.name("mimeType"))
    if media_type.startswith("image/"):
        return Image(url, media_type, at=file.at)
    if media_type == PDF:
        return Document(url=url, media_type=PDF, title=title, at=file.at)
    raise file.refuse("mimeType")


def type_of_url(url: str) -> str | None:
    """Return the media type that the end of a URL's path tells, None if it tells none."""
    path = url.partition("#")[0].partition("?")[0]
    return _SUFFIXES.get(path.rpartition(".")[2].lower())


def media_parts(part: Image | Document | Audio) -> list[dict[str, Any]]:
    """Return a part in Google's form, before it what is told about it; raises E14."""
    if isinstance(part, Image):
        return [_image(part)]
    if isinstance(part, Audio):
        if part.format not in _SOUND_TYPES:
            raise inexpressible(part.at)
        return [_blob(_SOUND_TYPES[part.format], part.data)]
    about = [text for text in (part.title, part.context) if text]
    if part.text:
        # A text is no file here.
        return [{"text": "\n\n".join([*about, part.text])}]
    if part.url:
        document = _file(part.url, part.media_type or PDF)
    elif part.media_type == PDF:
        document = _blob(PDF, part.data)
    else:
        raise inexpressible(part.at)
    return [*([{"text": "\n\n".join(about)}] if about else []), document]


def _image(part: Image) -> dict[str, Any]:
    media_type = part.media_type or type_of_url(part.url)
    if media_type is not None and media_type not in IMAGE_TYPES:
        raise inexpressible(part.at)
    if part.url:
        return _file(part.url, media_type)
    return _blob(part.media_type, part.data)


def _blob(media_type: str, data: str) -> dict[str, Any]:
    return {"inlineData": {"mimeType": media_type, "data": data}}


def _file(url: str, media_type: str | None) -> dict[str, Any]:
    # Vertex AI asks for the type.
    # Source: https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/inference
    told = {} if media_type is None else {"mimeType": media_type}
    return {"fileData": {**told, "fileUri": url}}
