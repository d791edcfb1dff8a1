"""Restores backups: into an empty database only, ending with the proof of the ledger (I-74).

Everything that can be known to be wrong is found before anything is changed. What the backup does
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
from django.db import connection, transaction
from django.db.migrations.loader import MigrationLoader

from apps.audit.events import record_event
from apps.audit.partitions import ensure_partitions
from apps.billing import archives, dumps
from apps.billing.archives import Manifest
from apps.billing.backups import BackupRefused, encryption_keys, secret_key_fingerprint
from apps.billing.findings import Finding
from apps.billing.verification import Report, anchors_path, report
from apps.users.models import Session

_ANALYZE_TIMEOUT: Final = "30min"
# Open holds of processes that lived when the backup was made; the next start resolves them.
_ORPHANED: Final = "I-12"


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore brought back, and what the verification of it found."""

    manifest: Manifest
    report: Report
    sessions_ended: int

    @property
    def orphaned_holds(self) -> int:
        """Calls that were running when the backup was made: the next start ends them."""
        return sum(finding.invariant == _ORPHANED for finding in self.report.findings)

    @property
    def faults(self) -> tuple[Finding, ...]:
        """What is not as it must be."""
        return tuple(f for f in self.report.findings if f.invariant != _ORPHANED)

    @property
    def is_clean(self) -> bool:
        """Whether the ledger is proven. Findings beyond the bound cannot be judged."""
        return not self.faults and not self.report.omitted


def restore_backup(source: Path, *, pg_bin: Path | None, now: datetime) -> Restored:
    """Make the empty database, the anchors and the journal what the backup holds, and verify.

    Raises BackupRefused, ArchiveDamaged and DumpFailed before anything is changed.
    """
    manifest = archives.read_manifest(source, keys=encryption_keys())
    _check_fits(manifest)
    _check_empty()
    dumps.check_tools(pg_bin=pg_bin)
    data_dir = Path(settings.DATA_DIR)
    staging = data_dir / f".restore.{secrets.token_hex(4)}"
    staging.mkdir(parents=True, mode=0o700)
    try:
        archives.extract(source, manifest, staging)
        placed = _place_files(manifest, staging, data_dir)
        try:
            dumps.load(staging / archives.DATABASE, pg_bin=pg_bin)
        except BaseException:
            for path in placed:
                path.unlink(missing_ok=True)
            raise
    finally:
        shutil.rmtree(staging)
    call_command("migrate", interactive=False, verbosity=0)
    ended = _finish(manifest, now)
    found = report(is_full=True, anchors_path=anchors_path(), now=now)
    return Restored(manifest, found, ended)


def _check_fits(manifest: Manifest) -> None:
    """Refuse a backup that this deployment could not use."""
    if manifest.engine != connection.vendor:
        raise BackupRefused(
            f"This is a backup of {manifest.engine}; DATABASE_URL names {connection.vendor}."
        )
    if manifest.secret_key != secret_key_fingerprint():
        hint = (
            " The backup holds them: tar -xzOf FILE secrets.env > DATA_DIR/secrets.env"
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


def _check_empty() -> None:
    tables = dumps.count_tables()
    if tables:
        raise BackupRefused(
            f"The database is not empty: it has {tables} tables. A restore never overwrites; "
            "make a new database, or move the SQLite file away."
        )


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
        dumps.sync_folder(folder)
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
