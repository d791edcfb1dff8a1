"""When everything was last verified here, in a file of DATA_DIR.

Who can write the database alone could note there that it was just now, again and again.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Final

from django.conf import settings

_NAME: Final = "verified-everything-at"


def note_full_run(started_at: datetime) -> None:
    """Remember a verification of everything, also over a restart of the worker."""
    path = _path()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    aside = path.with_suffix(".new")
    aside.write_text(f"{started_at.isoformat()}\n")
    aside.replace(path)


def find_full_run() -> datetime | None:
    """Return when the last one began, None where there is none or the file cannot be read.

    Where it is lost one more is made.
    """
    try:
        found = datetime.fromisoformat(_path().read_text().strip())
    except (FileNotFoundError, ValueError):
        return None
    return found if found.tzinfo else None


def _path() -> Path:
    return Path(settings.DATA_DIR) / _NAME
