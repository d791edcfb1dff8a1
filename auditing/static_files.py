"""Static files as they are collected: named by their content, compressed, without source maps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from whitenoise.storage import CompressedManifestStaticFilesStorage

_MAPS: Final = (".map", ".map.gz", ".map.br")
_FILE_MODE: Final = 0o644
_FOLDER_MODE: Final = 0o755


class MaplessStorage(CompressedManifestStaticFilesStorage):  # type: ignore[misc]  # ships no types
    """Removes source maps at the end: until then the files that name them must find them.

    Leaves what is kept readable: `manage.py up` makes everything for its own user's eyes only, and
    a web server in front of it serves these files.
    """

    def post_process(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """Yield what was done to each file."""
        yield from super().post_process(*args, **kwargs)
        _let_all_read(Path(self.location))
        for path in Path(self.location).rglob("*"):
            if path.name.endswith(_MAPS):
                path.unlink()
            else:
                _let_all_read(path)


def _let_all_read(path: Path) -> None:
    mode = path.stat().st_mode
    wanted = mode | (_FOLDER_MODE if path.is_dir() else _FILE_MODE)
    # Asked first: what another user made, and all can read, may not be changed.
    if wanted != mode:
        path.chmod(wanted)
