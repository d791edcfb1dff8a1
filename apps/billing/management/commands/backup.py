"""`manage.py backup FILE`: the whole installation in one file, while the gateway serves."""

from __future__ import annotations

from argparse import ArgumentParser
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from apps.billing.backups import BackupRefused, make_backup
from apps.billing.dumps import DumpFailed


class Command(BaseCommand):
    """Writes the file whole or not at all."""

    help = "Back up database, anchors and settlement journal into one file (mode 0600)."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take where to, and whether secrets go along."""
        parser.add_argument("file", type=Path, help="a new file, for example backup.tar.gz")
        parser.add_argument(
            "--with-secrets",
            action="store_true",
            help="put SECRET_KEY and ENCRYPTION_KEY in as well, in clear",
        )
        parser.add_argument("--pg-bin", type=Path, help="the folder of pg_dump")

    def handle(self, *args: Any, **options: Any) -> None:
        """Back up and say what is in it."""
        target = options["file"].absolute()
        try:
            manifest = make_backup(
                target,
                with_secrets=options["with_secrets"],
                pg_bin=options["pg_bin"],
                now=datetime.now(UTC),
            )
        except (BackupRefused, DumpFailed) as error:
            raise CommandError(str(error)) from error
        except OSError as error:
            raise CommandError(f"The backup cannot be written: {error}.") from error
        for part in manifest.parts:
            self.stdout.write(f"{part.sha256}  {part.size:>12}  {part.name}")
        self.stdout.write(f"wrote {target}")
        if options["with_secrets"]:
            self.stdout.write(
                "It holds SECRET_KEY and ENCRYPTION_KEY in clear: whoever has it has everything."
            )
        else:
            self.stdout.write(
                "It does not hold SECRET_KEY and ENCRYPTION_KEY, without which it is of no use: "
                "keep them elsewhere."
            )
