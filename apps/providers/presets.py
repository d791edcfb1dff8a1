"""Known providers: what a form can be filled with. No keys, and only dialects that are spoken."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import orjson

from apps.core.domain_errors import DomainError
from apps.providers.models import Dialect, KeyHeader

# What stands in an address for what only its owner knows.
_BLANKS: Final = ("/PROJECT/", "//NAME.")
_FILE: Final = Path(__file__).with_name("presets.json")


class UnknownPreset(DomainError):
    """There is no preset of this slug."""

    code = "unknown_preset"
    message = "There is no such preset."


@dataclass(frozen=True, slots=True)
class Preset:
    """A provider as the world knows it."""

    slug: str
    name: str
    base_url: str
    dialect: Dialect
    key_header: KeyHeader
    documentation_url: str
    models: tuple[str, ...]  # what it offers where that is fixed, else nothing

    @property
    def is_complete(self) -> bool:
        """Whether its base URL can be used as it is; else PROJECT or NAME is to be replaced."""
        return not any(blank in self.base_url for blank in _BLANKS)

    @property
    def is_local(self) -> bool:
        """Whether it runs on one's own machines: PRIVATE_UPSTREAMS must list its address."""
        return self.base_url.startswith("http://")


@functools.cache
def list_presets() -> tuple[Preset, ...]:
    """Return all presets, in the order of the file."""
    return tuple(
        Preset(
            slug=entry["slug"],
            name=entry["name"],
            base_url=entry["base_url"],
            dialect=Dialect(entry["dialect"]),
            key_header=KeyHeader(entry.get("key_header", "")),
            documentation_url=entry["documentation_url"],
            models=tuple(entry["models"]),
        )
        for entry in orjson.loads(_FILE.read_bytes())
    )


def get_preset(slug: str) -> Preset:
    """Return one preset. Raises UnknownPreset."""
    for preset in list_presets():
        if preset.slug == slug:
            return preset
    raise UnknownPreset
