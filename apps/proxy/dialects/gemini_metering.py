"""Whole answers of Google's generateContent, as far as their charge goes.

Source: https://ai.google.dev/api/generate-content#generatecontentresponse. What a part says that
nobody knows here is the client's business: it passes.
"""

from collections.abc import Iterator
from typing import Any, Final

from apps.core.errors import GatewayError
from apps.core.usage import Usage
from apps.proxy.dialects import gemini_embedding
from apps.proxy.dialects.gemini_answer import block_reason
from apps.proxy.dialects.gemini_parameters import member, word
from apps.proxy.dialects.gemini_searches import count_searches, with_searches
from apps.proxy.dialects.gemini_stream import called_texts, said_texts
from apps.proxy.dialects.gemini_usage import parse_gemini_usage
from apps.proxy.dialects.metered_answer import MeteredAnswer, load_answer
from apps.proxy.dialects.parsed_request import Endpoint
from apps.proxy.dialects.stream_meter import clean_label
from apps.proxy.estimate import Excerpt, excerpt
from apps.proxy.media import streamed_tokens

_INLINE: Final = b'"inlineData"'
_GROUNDING: Final = b"rounding"  # of groundingMetadata, in either spelling


def read_metered_answer(endpoint: Endpoint, body: bytes) -> MeteredAnswer:
    """Return what a response holds; raises E49 if it is none."""
    if endpoint in gemini_embedding.ENDPOINTS:
        return gemini_embedding.read_embeddings(endpoint, body)
    document = load_answer(body)
    candidates = document.get("candidates", [])
    if not isinstance(candidates, list):
        raise GatewayError("E49")
    declined = block_reason(document)
    if not all(isinstance(candidate, dict) for candidate in candidates) or not (
        candidates or declined
    ):
        raise GatewayError("E49")
    reported = member(document, "usageMetadata")
    reported = reported if isinstance(reported, dict) else None
    usage = None if reported is None else parse_gemini_usage(reported)
    if _GROUNDING in body:
        # Beside a usage that tells nothing of tokens, too.
        found = with_searches(usage or Usage(source="reported"), count_searches(document))
        usage = found if usage is not None or found.web_search else None
    reasons = [word(candidate, "finishReason") for candidate in candidates]
    parts = [part for candidate in candidates for part in _parts(candidate)]
    has_media = _INLINE in body
    sounds = _media(parts, "audio/") if has_media else []
    images = len(_media(parts, "image/")) if has_media else 0
    return MeteredAnswer(
        usage=usage,
        is_usage_unusable=usage is None and reported is not None,
        finish_reason=clean_label(next(filter(None, reasons), declined)),
        has_content=any(map(_says_something, parts)),
        excerpts=lambda: list(_excerpts(candidates)),
        document=document,
        choices=len(candidates) or 1,
        characters=sum(map(len, _texts(parts))),
        images=images,
        count_spoken=(lambda: streamed_tokens(sum(map(len, sounds)) * 3 // 4)) if sounds else None,
        service_tier=None if reported is None else clean_label(reported.get("serviceTier")),
    )


def _parts(candidate: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the parts of a candidate. Raises E49."""
    content = candidate.get("content", {})
    parts = content.get("parts", []) if isinstance(content, dict) else None
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        raise GatewayError("E49")
    return parts


def _says_something(part: dict[str, Any]) -> bool:
    return any(part.get(name) for name in ("text", "functionCall", "inlineData", "executableCode"))


def _texts(parts: list[dict[str, Any]]) -> list[str]:
    return [part["text"] for part in parts if isinstance(part.get("text"), str)]


def _media(parts: list[dict[str, Any]], kind: str) -> list[str]:
    """Return the data of all images, or of all sounds, in base64."""
    blobs = [part["inlineData"] for part in parts if isinstance(part.get("inlineData"), dict)]
    return [word(blob, "data") for blob in blobs if word(blob, "mimeType").startswith(kind)]


def _excerpts(candidates: list[dict[str, Any]]) -> Iterator[Excerpt]:
    for candidate in candidates:
        for text, is_thought in said_texts(candidate):
            yield excerpt(text, is_thought=is_thought)
        yield from map(excerpt, called_texts(candidate))
