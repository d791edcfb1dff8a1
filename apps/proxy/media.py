"""What an image or a sound costs in tokens, by the formulas that the vendors publish. Pure.

Sizes come from the first bytes of a file: nothing is decoded. Whoever sends an image by its
address, or in a format that is not known here, is estimated at the model's own maximum.

Sources, as of November 2026:
https://developers.openai.com/api/docs/guides/images-vision (tiles of 512, patches of 32 pixels; of
the multipliers of GPT-5 those of its price calculator), https://ai.google.dev/gemini-api/docs/tokens
and …/media-resolution, https://platform.claude.com/docs/en/build-with-claude/vision,
https://help.aliyun.com/zh/model-studio/vision (what it reads at most unless it is asked for more)
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from apps.proxy.dialects.media_sources import is_mp3, is_wav, notes_length
from apps.proxy.families import Family, is_older_claude

# Photographs carry up to 64 KiB of notes before their size, seldom more than once.
_HEAD_CHARACTERS: Final = 256 << 10
_DATA_URL: Final = re.compile(r"data:[a-z0-9.+/-]*(?:;[a-z0-9=.-]+)*;base64,", re.IGNORECASE)

_TILE: Final = 512
_PATCH: Final = 32
_SQUARE_MAX: Final = 2048
_SHORT_SIDE_MAX: Final = 768
_CLAUDE_PATCH: Final = 28
_GEMINI_TILE_TOKENS: Final = 258

# OpenAI: tokens of an image, and of each of its tiles.
_TILES: Final = (
    (re.compile(r"gpt-?4o-mini"), (2833, 5667)),
    (re.compile(r"(?<![a-z])o[13](?!\d)"), (75, 150)),
    (re.compile(r"gpt-?5(?:\.1)?(?:-(?:chat|pro|codex|20)|$)"), (70, 140)),
    (re.compile(r"gpt-?4|chatgpt-4"), (85, 170)),
)
# OpenAI: hundredths of a token for each patch, and the most patches.
_PATCHES: Final = (
    (re.compile(r"gpt-?4\.1-mini"), (162, 1536)),
    (re.compile(r"gpt-?4\.1-nano"), (246, 1536)),
    (re.compile(r"o4-mini|codex-mini"), (172, 1536)),
    (re.compile(r"gpt-?5-nano"), (150, 1536)),
    (re.compile(r"gpt-?5(?:\.[0-3])?-mini|gpt-?5\.4-(?:mini|nano)|gpt-?5\.[23]"), (120, 1536)),
    (re.compile(r"gpt-?(?:5\.[4-9]|[6-9])"), (120, 2500)),
)
# Alibaba: the side of a patch, and the most patches. A name without a date is that of the latest.
_QWEN_PATCHES: Final = (
    (
        re.compile(r"qvq|qwen-?2(?:\.5)?-vl|qwen-vl-(?:max|plus)-(?:202[34]|2025-0[1-6])"),
        (28, 1280),
    ),
    (re.compile(r"qwen-?3(?:-vl|\.[5-9])|qwen-vl-(?:max|plus)"), (32, 2560)),
)
_QWEN_PATCHES_MIN: Final = 4
_QWEN_MARKS: Final = 2  # before an image, and behind it
_AUDIO_PER_SECOND: Final = {"gemini": 32}
_OPENAI_AUDIO_PER_SECOND: Final = 10
# What it speaks: a token for each 50 ms. https://platform.openai.com/docs/guides/realtime-costs
_OPENAI_SPOKEN_PER_SECOND: Final = 20
_PCM_BYTES_PER_SECOND: Final = 48_000  # 24 kHz, 16 bits, one channel
# Of an MPEG layer III frame, kbit/s: version 1, then versions 2 and 2.5.
_MP3_RATES: Final = (
    (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
)
# What a sound in another format is taken for: 128 kbit/s.
_BYTES_PER_SECOND: Final = 16_000


class Size(NamedTuple):
    """Pixels."""

    width: int
    height: int


def image_tokens(part: dict[str, Any], family: Family, model: str, maximum: int) -> int:
    """Return the tokens of an `image_url` part; `maximum` where nothing is known of it."""
    image = part.get("image_url")
    url, detail = (image.get("url"), image.get("detail")) if isinstance(image, dict) else (image, 0)
    formula = _FORMULAS.get(family.name)
    size = image_size(_head(url)) if isinstance(url, str) else None
    if formula is None or size is None:
        return maximum
    tokens = formula(model.casefold(), size, is_low=detail == "low")
    return maximum if tokens is None else tokens


def openai_tokens(model: str, size: Size, *, is_low: bool) -> int | None:
    """Return OpenAI's tokens of an image, None for a model whose formula is not published."""
    for pattern, (hundredths, budget) in _PATCHES:
        if pattern.search(model) is not None:
            return -(-_patches(size, budget) * hundredths // 100)
    for pattern, (base, tile) in _TILES:
        if pattern.search(model) is not None:
            return base if is_low else base + tile * _tiles(size)
    return None


def _tiles(size: Size) -> int:
    """Return the tiles of an image that fits into a square, its short side made smaller."""
    width, height = _fit(size, _SQUARE_MAX)
    shrink = min(1.0, _SHORT_SIDE_MAX / min(width, height))
    return _grid(width * shrink, height * shrink, _TILE)


def _patches(size: Size, budget: int) -> int:
    """Return the patches of an image that is scaled down until they are no more than `budget`.

    The scaled width is that of a whole number of patches, as in the guide's example.
    """
    width, height = _fit(size, _SQUARE_MAX) if budget > 1536 else size
    patches = _grid(width, height, _PATCH)
    if patches <= budget:
        return patches
    shrink = math.sqrt(budget * _PATCH**2 / (width * height))
    columns, rows = width * shrink / _PATCH, height * shrink / _PATCH
    shrink *= min(max(math.floor(columns), 1) / columns, max(math.floor(rows), 1) / rows)
    return min(_grid(width * shrink, height * shrink, _PATCH), budget)


def claude_tokens(model: str, size: Size, *, is_low: bool = False) -> int:
    """Return Claude's tokens of an image: patches of 28 pixels of what is left after scaling."""
    edge, budget = (1568, 1568) if is_older_claude(model) else (2576, 4784)
    width, height = _fit(size, edge)
    patches = _grid(width, height, _CLAUDE_PATCH)
    if patches <= budget:
        return patches
    shrink = math.sqrt(budget * _CLAUDE_PATCH**2 / (width * height))
    return min(_grid(width * shrink, height * shrink, _CLAUDE_PATCH), budget)


def gemini_tokens(model: str, size: Size, *, is_low: bool) -> int | None:
    """Return Gemini's tokens of an image: tiles until version 2.5, then by its resolution.

    None for Gemma, which has the same vocabulary and other eyes.
    """
    if "gemini" not in model:
        return None
    if re.search(r"gemini-(?:1|2|pro)", model) is None:
        return 280 if is_low else 1120
    if max(size) <= 384:
        return _GEMINI_TILE_TOKENS
    unit = min(max(math.floor(min(size) / 1.5), 256), 768)
    return _GEMINI_TILE_TOKENS * _grid(*size, unit)


def qwen_tokens(model: str, size: Size, *, is_low: bool = False) -> int | None:
    """Return Qwen's tokens of an image: patches of 28 or 32 pixels of what is left after scaling.

    None for a model whose formula is not published.
    """
    for pattern, (side, budget) in _QWEN_PATCHES:
        if pattern.search(model) is not None:
            return _qwen_patches(size, side, budget) + _QWEN_MARKS
    return None


def _qwen_patches(size: Size, side: int, budget: int) -> int:
    columns, rows = round(size.width / side), round(size.height / side)
    if columns * rows > budget:
        shrink = math.sqrt(budget * side**2 / (size.width * size.height))
        columns = math.floor(size.width * shrink / side)
        rows = math.floor(size.height * shrink / side)
    elif columns * rows < _QWEN_PATCHES_MIN:
        stretch = math.sqrt(_QWEN_PATCHES_MIN * side**2 / (size.width * size.height))
        columns = math.ceil(size.width * stretch / side)
        rows = math.ceil(size.height * stretch / side)
    return max(columns * rows, _QWEN_PATCHES_MIN)


_FORMULAS: Final[Mapping[str, Callable[..., int | None]]] = {
    "openai": openai_tokens,
    "claude": claude_tokens,
    "gemini": gemini_tokens,
    "qwen": qwen_tokens,
}


def _fit(size: Size, edge: int) -> tuple[float, float]:
    shrink = min(1.0, edge / max(size))
    return size.width * shrink, size.height * shrink


def _grid(width: float, height: float, unit: int) -> int:
    # Rounded first, so that an error in the last place adds no row.
    return math.ceil(round(width / unit, 6)) * math.ceil(round(height / unit, 6))


def audio_tokens(part: dict[str, Any], family: Family) -> int:
    """Return the tokens of an `input_audio` part, for each begun second."""
    audio = part.get("input_audio")
    data = audio.get("data") if isinstance(audio, dict) else None
    if not isinstance(data, str):
        return 0
    seconds = audio_seconds(_decoded(data), len(data) * 3 // 4)
    return seconds * _AUDIO_PER_SECOND.get(family.name, _OPENAI_AUDIO_PER_SECOND)


def spoken_tokens(data: str) -> int:
    """Return the tokens of an answer that was spoken, whole and in base64."""
    return audio_seconds(_decoded(data), len(data) * 3 // 4) * _OPENAI_SPOKEN_PER_SECOND


def streamed_tokens(length: int) -> int:
    """Return the tokens of `length` bytes of a spoken answer in a stream: always PCM."""
    return -(-length * _OPENAI_SPOKEN_PER_SECOND // _PCM_BYTES_PER_SECOND)


def audio_seconds(head: bytes, length: int) -> int:
    """Return how long a sound of `length` bytes is, in begun seconds, by its first bytes."""
    rate = _BYTES_PER_SECOND
    if is_wav(head):
        position = head.find(b"fmt ", 12)
        if 0 <= position <= len(head) - 20:
            rate = int.from_bytes(head[position + 16 : position + 20], "little") or rate
    else:
        start = notes_length(head)
        frame = head[start : start + 4]
        if is_mp3(frame):
            index = frame[2] >> 4
            if 0 < index < 15:
                rate = _MP3_RATES[frame[1] & 0x18 != 0x18][index - 1] * 125
    return -(-length // rate)


def _head(url: str) -> bytes:
    prefix = _DATA_URL.match(url[:200])
    return _decoded(url[prefix.end() : prefix.end() + _HEAD_CHARACTERS]) if prefix else b""


def _decoded(text: str) -> bytes:
    """Return the beginning of what is written in base64, nothing if it is something else."""
    head = text[:_HEAD_CHARACTERS]
    try:
        return base64.b64decode(head[: len(head) // 4 * 4])
    except (binascii.Error, ValueError):
        return b""


def image_size(head: bytes) -> Size | None:
    """Return the size of a PNG, JPEG, GIF or WebP, None for anything else."""
    size: Size | None = None
    if head[:8] == b"\x89PNG\r\n\x1a\n" and len(head) >= 24:
        size = Size(int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big"))
    elif head[:6] in (b"GIF87a", b"GIF89a") and len(head) >= 10:
        size = Size(int.from_bytes(head[6:8], "little"), int.from_bytes(head[8:10], "little"))
    elif head[:2] == b"\xff\xd8":
        size = _jpeg_size(head)
    elif head[:4] == b"RIFF" and head[8:12] == b"WEBP" and len(head) >= 30:
        size = _webp_size(head)
    return size if size is not None and min(size) > 0 else None


def _jpeg_size(head: bytes) -> Size | None:
    position = 2
    # Each turn goes on by at least four bytes.
    while position + 9 <= len(head) and head[position] == 0xFF:
        marker = head[position + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height = int.from_bytes(head[position + 5 : position + 7], "big")
            return Size(int.from_bytes(head[position + 7 : position + 9], "big"), height)
        position += 2 + max(int.from_bytes(head[position + 2 : position + 4], "big"), 2)
    return None


def _webp_size(head: bytes) -> Size | None:
    kind = head[12:16]
    if kind == b"VP8X":
        width = int.from_bytes(head[24:27], "little") + 1
        return Size(width, int.from_bytes(head[27:30], "little") + 1)
    if kind == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return Size((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
    if kind == b"VP8 ":
        width = int.from_bytes(head[26:28], "little") & 0x3FFF
        return Size(width, int.from_bytes(head[28:30], "little") & 0x3FFF)
    return None
