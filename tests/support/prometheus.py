"""Reads the text format of Prometheus, and refuses what a scraper would."""

from __future__ import annotations

import re
from typing import Final

_SAMPLE: Final = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(\{[^{}]*\})? (-?[0-9.e+-]+|\+Inf)")
_LABEL: Final = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="([^"\\\n]*)"')
_SUFFIXES: Final = ("_bucket", "_sum", "_count")

Samples = dict[str, float]


def parse(text: str) -> tuple[dict[str, str], Samples]:
    """Return the type of each metric, and each sample by its name with its labels as written."""
    types: dict[str, str] = {}
    samples: Samples = {}
    assert text.endswith("\n")
    for line in text.splitlines():
        if line.startswith("# HELP "):
            assert len(line.split(" ", 3)) == 4, line
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name not in types, line
            assert kind in ("counter", "gauge", "histogram"), line
            types[name] = kind
        else:
            _take_sample(line, types, samples)
    return types, samples


def _take_sample(line: str, types: dict[str, str], samples: Samples) -> None:
    match = _SAMPLE.fullmatch(line)
    assert match is not None, line
    name, labels, value = match.groups()
    owner = name
    for suffix in _SUFFIXES:
        if types.get(name.removesuffix(suffix)) == "histogram":
            owner = name.removesuffix(suffix)
    assert owner in types, f"{line} comes before its type"
    for label in (labels or "{}")[1:-1].split(",") if labels else ():
        assert _LABEL.fullmatch(label), line
    assert name + (labels or "") not in samples, line
    samples[name + (labels or "")] = float(value)
