"""Restores backups: into an empty database only, ending with the proof of the ledger (I-74).

Everything that can be known to be wrong is found before anything is changed. The database is loaded
whole or not at all; a restore that died after that is ended by running it again, which changes
nothing that is there already. Until then no gateway starts (`restore_marker`). What the backup does
not know any more has not happened: keys and users that were disabled since are active again, so all
sessions end, and the rest is for the operator to look through.
"""

from __future__ import annotations

import secrets
import shutil
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from django.conf import settings
from django.contrib.sessions.models import Session as BrowserSession
from django.core.management import call_command
from django.db import DatabaseError, connection, transaction
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder

from apps.audit.events import record_event
from apps.audit.partitions import ensure_partitions
from apps.billing import archives, dumps
from apps.billing.archives import Manifest
from apps.billing.backups import BackupRefused, encryption_keys, secret_key_fingerprint
from apps.billing.restore_marker import (
    Beginning,
    describe_beginning,
    find_beginning,
    marker_path,
    remove_marker,
    write_marker,
)
from apps.billing.verification import Report, anchors_path, report
from apps.core.folders import sync_folder
from apps.users.models import Session

_ANALYZE_TIMEOUT: Final = "30min"


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore brought back, and what the verification of it found."""

    manifest: Manifest
    report: Report
    sessions_ended: int


def restore_backup(source: Path, *, pg_bin: Path | None, now: datetime) -> Restored:
    """Make the empty database, the anchors and the journal what the backup holds, and verify.

    A restore of the same backup into the same database that died is ended. Raises BackupRefused,
    ArchiveDamaged and DumpFailed before anything is changed.
    """
    manifest = archives.read_manifest(source, keys=encryption_keys())
    _check_fits(manifest)
    beginning = describe_beginning(manifest)
    if not _is_loaded(manifest, beginning):
        dumps.check_tools(pg_bin=pg_bin)
        _load(source, manifest, beginning, pg_bin=pg_bin)
    call_command("migrate", interactive=False, verbosity=0)
    ended = _finish(manifest, now)
    found = report(is_full=True, anchors_path=anchors_path(), now=now, is_just_restored=True)
    remove_marker()
    return Restored(manifest, found, ended)


def _load(source: Path, manifest: Manifest, beginning: Beginning, *, pg_bin: Path | None) -> None:
    """Put files and database where they belong, and leave the marker that it has not ended."""
    data_dir = Path(settings.DATA_DIR)
    staging = data_dir / f".restore.{secrets.token_hex(4)}"
    staging.mkdir(parents=True, mode=0o700)
    try:
        archives.extract(source, manifest, staging)
        write_marker(beginning)
        placed: list[Path] = []
        try:
            placed += _place_files(manifest, staging, data_dir)
            dumps.load(staging / archives.DATABASE, pg_bin=pg_bin)
        except BaseException:
            # Where it was loaded in spite of that, or nobody knows, it has to be ended.
            if _is_empty_still():
                for path in placed:
                    path.unlink(missing_ok=True)
                remove_marker()
            raise
    finally:
        shutil.rmtree(staging)


def _check_fits(manifest: Manifest) -> None:
    """Refuse a backup that this deployment could not use."""
    if manifest.engine != connection.vendor:
        raise BackupRefused(
            f"This is a backup of {manifest.engine}; DATABASE_URL names {connection.vendor}."
        )
    if manifest.secret_key != secret_key_fingerprint():
        hint = (
            " The backup holds them: (umask 077; tar -xzOf FILE secrets.env > DATA_DIR/secrets.env)"
            if manifest.find(archives.SECRETS)
            else ""
        )
        raise BackupRefused(
            "The backup was made with another SECRET_KEY: no API key would be valid. Set the "
            f"SECRET_KEY and ENCRYPTION_KEY of that time first.{hint}"
        )
    known = _known_migrations()
    newer = [
        f"{app}.{name}"
        for app, names in manifest.migrations.items()
        for name in names
        if (app, name) not in known
    ]
    if newer:
        raise BackupRefused(
            f"The backup is of a newer version ({manifest.version}): this one does not know "
            f"{', '.join(newer[:5])}."
        )


def _known_migrations() -> set[tuple[str, str]]:
    loader = MigrationLoader(None)
    replaced = {name for found in loader.disk_migrations.values() for name in found.replaces}
    return set(loader.disk_migrations) | replaced


def _is_loaded(manifest: Manifest, beginning: Beginning) -> bool:
    """Return whether an earlier run has loaded this backup; else the database must be empty.

    It was empty when the marker was written, so that tables in it were loaded by that run.
    """
    tables = dumps.count_tables()
    earlier = find_beginning()
    if earlier is None and tables:
        raise BackupRefused(
            f"The database is not empty: it has {tables} tables. A restore never overwrites; "
            "make a new database, or move the SQLite file away."
        )
    is_other = earlier is not None and earlier.database != beginning.database
    if earlier is not None and (is_other or (tables and earlier != beginning)):
        raise BackupRefused(
            f"{marker_path()}: a restore of the backup of {earlier.made_at} into "
            f"{earlier.database} has not ended. Run it again with the same file and DATABASE_URL; "
            "or move DATA_DIR away and restore into a new database."
        )
    if tables and not _holds_older_migrations(manifest):
        raise BackupRefused(
            f"The database has {tables} tables that were not restored: somebody has migrated it. "
            "Make a new database of the same name."
        )
    return bool(tables)


def _holds_older_migrations(manifest: Manifest) -> bool:
    """Return whether the database was first migrated before the backup was made."""
    recorder = MigrationRecorder(connection)
    first = recorder.migration_qs.order_by("applied").first() if recorder.has_table() else None
    return first is not None and first.applied < datetime.fromisoformat(manifest.made_at)


def _is_empty_still() -> bool:
    """Return whether it is certain that nothing was loaded."""
    connection.close()
    try:
        return not dumps.count_tables()
    except DatabaseError:
        return False


def _place_files(manifest: Manifest, staging: Path, data_dir: Path) -> list[Path]:
    """Put anchors and journal where the gateway looks for them and return what was put there.

    Before the database: a gateway that waits for it must not begin a second anchor file.
    """
    targets = {
        part.name: anchors_path() if part.name == archives.ANCHORS else data_dir / part.name
        for part in manifest.parts
        if part.name not in (archives.DATABASE, archives.SECRETS)
    }
    journal = data_dir / archives.JOURNAL
    strangers = (
        {path for path in journal.iterdir() if path.stat().st_size} if journal.is_dir() else set()
    )
    for name, target in targets.items():
        strangers.discard(target)
        part = manifest.find(name)
        if target.exists() and target.stat().st_size and archives.measure(name, target) != part:
            strangers.add(target)
    if strangers:
        raise BackupRefused(
            f"{', '.join(sorted(map(str, strangers)))}: of the installation that is to be "
            "replaced. Move it away and keep it (see docs/operations.md)."
        )
    placed = []
    for name, target in targets.items():
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        (staging / name).replace(target)
        placed.append(target)
    for folder in {target.parent for target in placed}:
        sync_folder(folder)
    return placed


def _finish(manifest: Manifest, now: datetime) -> int:
    """Prepare the restored database for use, on record, and return how many sessions were ended."""
    with transaction.atomic():
        ended = Session.objects.filter(ended_at__isnull=True).update(ended_at=now)
        browsers, _ = BrowserSession.objects.all().delete()
        record_event(
            actor=None,
            action="backup.restored",
            subject=None,
            after={
                "made_at": manifest.made_at,
                "version": manifest.version,
                "sessions_ended": ended + browsers,
            },
            reason="manage.py restore",
        )
        with connection.cursor() as cursor:
            if connection.vendor == "postgresql":
                ensure_partitions(cursor, now=now)
                cursor.execute(f"SET LOCAL statement_timeout = '{_ANALYZE_TIMEOUT}'")
            cursor.execute("ANALYZE")
    return ended + browsers
