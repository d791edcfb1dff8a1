"""Static files as they are collected: named by their content, compressed, without source maps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from whitenoise.storage import CompressedManifestStaticFilesStorage

_MAPS: Final = (".map", ".map.gz", ".map.br")


class MaplessStorage(CompressedManifestStaticFilesStorage):  # type: ignore[misc]  # ships no types
    """Removes source maps at the end: until then the files that name them must find them."""

    def post_process(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """Yield what was done to each file."""
        yield from super().post_process(*args, **kwargs)
        for path in Path(self.location).rglob("*"):
            if path.name.endswith(_MAPS):
                path.unlink()
