"""`manage.py verify_ledger`: proves the ledger, or says what is off, by how much, and where."""

from __future__ import annotations

import dataclasses
import json
import sys
from argparse import ArgumentParser
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand

from apps.billing.proof import record_verification
from apps.billing.verification import Report, anchors_path, report


class Command(BaseCommand):
    """Exits with 1 if anything is off."""

    help = "Verify the ledger: what is new since the last clean verification, or everything."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument(
            "--full", action="store_true", help="verify everything, not only what is new"
        )
        parser.add_argument("--json", action="store_true", help="print one JSON object")
        parser.add_argument(
            "--anchors", type=Path, help="the anchor file; without it, the one in DATA_DIR"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Verify and print."""
        started_at = datetime.now(UTC)
        found = report(
            is_full=options["full"],
            anchors_path=options["anchors"] or anchors_path(),
            now=started_at,
        )
        finished_at = datetime.now(UTC)
        if options["json"]:
            values = dataclasses.asdict(found) | {"is_clean": found.is_clean}
            self.stdout.write(json.dumps(values, indent=2))
        else:
            self._print(found)
        # After the verdict is out: a database that takes no note must not keep it from anybody.
        record_verification(
            found, started_by="command", started_at=started_at, finished_at=finished_at
        )
        if not found.is_clean:
            sys.exit(1)

    def _print(self, found: Report) -> None:
        for finding in found.findings:
            self.stdout.write(str(finding))
        if found.omitted:
            self.stdout.write(f"… and {found.omitted} more")
        extent = "everything" if found.is_full else "what is new"
        verdict = "clean" if found.is_clean else f"{len(found.findings) + found.omitted} findings"
        self.stdout.write(
            f"verified {extent}: {found.entries} entries, {found.requests} requests, "
            f"{found.anchors} anchors: {verdict}"
        )
