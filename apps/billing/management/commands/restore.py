"""`manage.py restore FILE`: a backup into an empty database, ending with the ledger's proof."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from apps.billing.archives import ArchiveDamaged
from apps.billing.backups import BackupRefused
from apps.billing.dumps import DumpFailed
from apps.billing.restoring import Restored, restore_backup


class Command(BaseCommand):
    """Exits with 1 and the findings where the restored ledger is not proven."""

    help = "Restore a backup into an empty database, then verify the ledger and its anchors."
    # The database is empty: nothing that looks into it can be asked before.
    requires_system_checks: list[str] = []
    requires_migrations_checks = False

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take where from."""
        parser.add_argument("file", type=Path)
        parser.add_argument("--pg-bin", type=Path, help="the folder of pg_restore")

    def handle(self, *args: Any, **options: Any) -> None:
        """Restore, verify, and say what was found."""
        try:
            restored = restore_backup(
                options["file"].absolute(), pg_bin=options["pg_bin"], now=datetime.now(UTC)
            )
        except (BackupRefused, ArchiveDamaged, DumpFailed) as error:
            raise CommandError(str(error)) from error
        except OSError as error:
            raise CommandError(f"The backup cannot be restored: {error}.") from error
        self._print(restored)
        if not restored.report.is_clean:
            sys.exit(1)

    def _print(self, restored: Restored) -> None:
        found = restored.report
        self.stdout.write(f"restored the backup of {restored.manifest.made_at}")
        self.stdout.write(f"ended {restored.sessions_ended} sessions")
        if found.orphaned_holds:
            self.stdout.write(
                f"{found.orphaned_holds} calls were running then: the next start ends them"
            )
        for finding in found.findings:
            self.stdout.write(str(finding))
        if found.omitted:
            self.stdout.write(f"… and {found.omitted} more")
        verdict = "clean" if found.is_clean else "NOT CLEAN"
        self.stdout.write(
            f"verified everything: {found.entries} entries, {found.requests} requests, "
            f"{found.anchors} anchors: {verdict}"
        )
