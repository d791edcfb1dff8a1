"""The file that says that a restore has begun and not ended.

A database whose restore died on the way looks whole: its old sessions are valid, and nothing has
proven its ledger. While the file is there no gateway starts, and the same restore can be ended.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import connection

from apps.billing.archives import DATABASE, Manifest
from apps.core.folders import sync_folder

_NAME: Final = "restore-not-ended.json"


@dataclass(frozen=True, slots=True)
class Beginning:
    """Which backup was being restored into which database."""

    made_at: str
    database: str  # where it is
    sha256: str  # of the backup's copy of the database


def describe_beginning(manifest: Manifest) -> Beginning:
    """Return what the marker says while `manifest` is restored into the database in use."""
    part = manifest.find(DATABASE)
    return Beginning(manifest.made_at, _describe_database(), "" if part is None else part.sha256)


def marker_path() -> Path:
    """Return where the marker is."""
    return Path(settings.DATA_DIR) / _NAME


def find_beginning() -> Beginning | None:
    """Return what an unfinished restore has left. One that cannot be read fits no backup."""
    try:
        return Beginning(**json.loads(marker_path().read_bytes()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        return Beginning("an unknown time", "", "")


def write_marker(beginning: Beginning) -> None:
    """Write the marker, whole and durable."""
    path = marker_path()
    aside = path.with_suffix(".new")
    with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(asdict(beginning), file)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
    sync_folder(path.parent)


def remove_marker() -> None:
    """Take the marker away: the restore has ended, or has changed nothing."""
    marker_path().unlink(missing_ok=True)
    sync_folder(marker_path().parent)


def refuse_unfinished_restore() -> None:
    """Refuse to serve a database whose restore has not ended. Raises ImproperlyConfigured."""
    found = find_beginning()
    if found is not None:
        raise ImproperlyConfigured(
            f"A restore of the backup of {found.made_at} was begun and has not ended "
            f"({marker_path()}): its sessions are not ended and its ledger is not proven. Run "
            "`manage.py restore FILE` again with the same file."
        )


def _describe_database() -> str:
    """Return where the database is, without a password."""
    found = connection.settings_dict
    if connection.vendor == "sqlite":
        return str(Path(found["NAME"]).absolute())
    return f"{found['HOST']}:{found['PORT']}/{found['NAME']}"
