"""Figures are those that the vendors publish, or that were measured against their API."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import Any

import pytest

from apps.proxy.families import find_family
from apps.proxy.media import (
    Size,
    audio_seconds,
    audio_tokens,
    claude_tokens,
    gemini_tokens,
    image_size,
    image_tokens,
    openai_tokens,
    qwen_tokens,
)
from tests.support.cases import for_all

MAXIMUM = 1234


def png(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    return (
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    )


def jpeg(width: int, height: int, notes: int = 100) -> bytes:
    frame = struct.pack(">BBHBHH", 0xFF, 0xC2, 17, 8, height, width) + bytes(10)
    note = struct.pack(">BBH", 0xFF, 0xE1, notes + 2) + b"\xff\xc0" * (notes // 2)
    return b"\xff\xd8" + note + frame


def webp(kind: bytes, data: bytes) -> bytes:
    return b"RIFF\0\0\0\0WEBP" + kind + struct.pack("<I", len(data)) + data


def wav(seconds: float, rate: int) -> bytes:
    data = bytes(int(seconds * rate * 2))
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate, rate * 2, 2, 16)
    return b"RIFF\0\0\0\0WAVE" + form + b"data" + struct.pack("<I", len(data)) + data


def part(data: bytes, detail: str = "auto") -> dict[str, Any]:
    url = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    return {"type": "image_url", "image_url": {"url": url, "detail": detail}}


@pytest.mark.parametrize(
    "head",
    [
        png(640, 480),
        b"GIF89a" + struct.pack("<HH", 640, 480),
        jpeg(640, 480),
        jpeg(640, 480, notes=60_000),
        webp(b"VP8 ", b"\0\0\0\x9d\x01\x2a" + struct.pack("<HH", 640, 480)),
        webp(b"VP8L", b"\x2f" + struct.pack("<I", 639 | 479 << 14) + bytes(8)),
        webp(b"VP8X", bytes(4) + struct.pack("<I", 639)[:3] + struct.pack("<I", 479)[:3]),
    ],
)
def test_the_size_is_read_from_the_first_bytes(head: bytes) -> None:
    assert image_size(head) == (640, 480)
    for end in range(min(len(head) - 1, 200)):
        assert image_size(head[:end]) in (None, (640, 480))


@pytest.mark.parametrize("head", [b"", b"BM", png(0, 10), jpeg(1, 0), b"\xff\xd8\xff\xe1\0\0" * 9])
def test_what_tells_no_size_has_none(head: bytes) -> None:
    assert image_size(head) is None


@for_all(
    ("model", "size", "tokens"),
    [
        # The guide's own examples.
        ("gpt-4o", (1024, 1024), 765),
        ("gpt-4o", (2048, 4096), 1105),
        ("gpt-4.1-mini", (1024, 1024), 1659),
        ("gpt-4.1-mini", (1800, 2400), 2353),
        # Measured by users of the API.
        ("gpt-5-mini", (256, 256), 77),
        ("gpt-5-mini", (768, 1024), 922),
        ("gpt-5-mini", (1280, 720), 1104),
        ("gpt-5-mini", (2048, 768), 1844),
        ("gpt-5", (512, 512), 210),
        ("gpt-5.1", (512, 512), 210),
        ("gpt-5.2", (512, 512), 308),
        ("gpt-6-astra", (1600, 1600), 3000),
        ("o3", (512, 512), 225),
        ("o4-mini", (512, 512), 441),
        ("gpt-4o-mini", (512, 512), 8500),
    ],
)
def test_an_image_costs_openai_s_tiles_or_patches(
    model: str, size: tuple[int, int], tokens: int
) -> None:
    assert openai_tokens(model, Size(*size), is_low=False) == tokens


def test_low_detail_costs_the_base_of_a_model_with_tiles() -> None:
    assert openai_tokens("gpt-4o", Size(2048, 2048), is_low=True) == 85
    assert openai_tokens("gpt-5", Size(2048, 2048), is_low=True) == 70
    assert openai_tokens("gpt-5-mini", Size(256, 256), is_low=True) == 77


@pytest.mark.parametrize(
    ("model", "size", "tokens"),
    [
        ("claude-sonnet-4-5", (200, 200), 64),
        ("claude-sonnet-4-5", (1000, 1000), 1296),
        ("claude-sonnet-4-5", (8000, 6000), 1568),
        ("claude-opus-4-8", (8000, 6000), 4784),
    ],
)
def test_an_image_costs_claude_s_patches(model: str, size: tuple[int, int], tokens: int) -> None:
    # Up to the cap, which no image exceeds.
    assert abs(claude_tokens(model, Size(*size)) - tokens) <= tokens // 20
    assert claude_tokens(model, Size(*size)) <= tokens


@pytest.mark.parametrize(
    ("model", "size", "is_low", "tokens"),
    [
        ("gemini-2.5-flash", (384, 384), False, 258),
        ("gemini-2.5-flash", (960, 540), False, 6 * 258),
        ("gemini-3-pro", (960, 540), False, 1120),
        ("gemini-3-pro", (960, 540), True, 280),
    ],
)
def test_an_image_costs_gemini_s_tiles_or_its_resolution(
    model: str, size: tuple[int, int], is_low: bool, tokens: int
) -> None:
    assert gemini_tokens(model, Size(*size), is_low=is_low) == tokens


@pytest.mark.parametrize(
    ("model", "size", "tokens"),
    [
        # Of 28 pixels, between 4 and 1280 of them, and two marks around them.
        ("qwen2.5-vl-72b-instruct", (336, 336), 144 + 2),
        ("qwen2-vl-7b-instruct", (1280, 720), 46 * 26 + 2),
        ("qwen2.5-vl-72b-instruct", (1024, 1024), 35 * 35 + 2),
        ("qwen-vl-max-2025-04-08", (336, 336), 144 + 2),
        ("qvq-max", (10, 10), 4 + 2),
        # Of 32 pixels, up to 2560 of them.
        ("qwen3-vl-plus", (1024, 1024), 32 * 32 + 2),
        ("qwen/qwen3-vl-235b-a22b-instruct", (4000, 3000), 58 * 43 + 2),
        ("qwen-vl-max", (1024, 1024), 32 * 32 + 2),
        ("qwen-vl-plus-2025-08-15", (1024, 1024), 32 * 32 + 2),
        ("qwen3.6-plus", (1, 20), 1 * 9 + 2),
        ("qwen-plus", (1024, 1024), None),
    ],
)
def test_an_image_costs_qwen_s_patches(
    model: str, size: tuple[int, int], tokens: int | None
) -> None:
    assert qwen_tokens(model, Size(*size)) == tokens


@pytest.mark.parametrize(
    ("image", "model", "tokens"),
    [
        (part(png(1024, 1024)), "gpt-4o", 765),
        (part(png(1024, 1024), "low"), "gpt-4o", 85),
        (
            {"type": "image_url", "image_url": part(png(1024, 1024))["image_url"]["url"]},
            "gpt-4o",
            765,
        ),
        (part(png(1000, 1000)), "claude-sonnet-4-5", 1296),
        (part(png(1024, 1024)), "Qwen/Qwen3-VL-8B-Instruct", 1026),
        # No formula, no size, an address, junk: the model's own maximum.
        (part(png(1024, 1024)), "grok-4", MAXIMUM),
        (part(png(1024, 1024)), "qwen-plus", MAXIMUM),
        (part(png(1024, 1024)), "gemma-3-27b-it", MAXIMUM),
        (part(b"no image"), "gpt-4o", MAXIMUM),
        ({"image_url": {"url": "https://example.com/a.png"}}, "gpt-4o", MAXIMUM),
        ({"image_url": {"url": "data:image/png;base64,\xff\xff"}}, "gpt-4o", MAXIMUM),
        ({"image_url": {"url": 7, "detail": []}}, "gpt-4o", MAXIMUM),
        ({"image_url": None}, "gpt-4o", MAXIMUM),
        ({}, "gpt-4o", MAXIMUM),
    ],
)
def test_an_image_of_unknown_size_counts_as_the_largest(
    image: dict[str, Any], model: str, tokens: int
) -> None:
    assert image_tokens(image, find_family(model), model, MAXIMUM) == tokens


@pytest.mark.parametrize(
    ("head", "length", "seconds"),
    [
        (wav(2.5, 16_000), 80_044, 3),
        (wav(60, 8_000)[:64], 960_000, 60),
        # MPEG 1 layer III with 64 kbit/s, and the same after notes of 300 bytes.
        (b"\xff\xfb\x50\x00" + bytes(60), 80_000, 10),
        (b"ID3\x04\0\0\0\0\x02\x2c" + bytes(300) + b"\xff\xfb\x50\x00", 80_000, 10),
        # MPEG 2 with 64 kbit/s.
        (b"\xff\xf3\x80\x00", 80_000, 10),
        # Unknown: 128 kbit/s.
        (b"OggS", 160_000, 10),
        (b"", 0, 0),
    ],
)
def test_a_sound_is_as_long_as_its_bytes_at_its_rate(
    head: bytes, length: int, seconds: int
) -> None:
    assert audio_seconds(head, length) == seconds


@pytest.mark.parametrize(("model", "tokens"), [("gpt-4o-audio", 20), ("gemini-2.5-pro", 64)])
def test_a_sound_costs_the_vendor_s_tokens_a_second(model: str, tokens: int) -> None:
    data = base64.b64encode(wav(1.9, 8_000)).decode()

    assert audio_tokens({"input_audio": {"data": data}}, find_family(model)) == tokens
    assert audio_tokens({"input_audio": {"data": 7}}, find_family(model)) == 0
