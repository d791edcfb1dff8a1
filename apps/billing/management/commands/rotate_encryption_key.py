"""`manage.py rotate_encryption_key`: makes the first encryption key the only one that is needed."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from datetime import UTC, datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from apps.billing.anchors import AnchorsBusy
from apps.billing.sealing_keys import AnchorsUnsound, KeyUse, list_key_uses, vouch_for_anchors
from apps.billing.verification import anchors_path
from apps.providers.rotation import KeysUnreadable, first_key_id, reseal_provider_keys


class Command(BaseCommand):
    """Safe to run while gateways serve, and to run again."""

    help = (
        "Seal all provider keys with the first key of ENCRYPTION_KEY, and vouch with it for the "
        "anchors that others signed (see docs/operations.md)."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take whether only to look."""
        parser.add_argument(
            "--check",
            action="store_true",
            help="change nothing; list the keys in use, and exit with 1 while another than the "
            "first one is needed",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Rotate, then list what depends on which key."""
        if not options["check"]:
            self._rotate()
        uses = list_key_uses(anchors_path())
        for use in uses:
            self.stdout.write(_describe(use))
        if any(use.provider_keys or use.anchors for use in uses if use.place != 0):
            if not options["check"]:
                raise CommandError("Something was changed meanwhile: run this again.")
            sys.exit(1)

    def _rotate(self) -> None:
        try:
            done = reseal_provider_keys()
        except KeysUnreadable as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"sealed anew with {first_key_id()}: {done.resealed} provider keys")
        if done.skipped:
            self.stdout.write(f"changed meanwhile and left alone: {done.skipped}")
        try:
            last = vouch_for_anchors(anchors_path(), now=datetime.now(UTC))
        except AnchorsUnsound as error:
            raise CommandError(str(error)) from error
        except AnchorsBusy as error:
            raise CommandError(f"{error} is in use by another process: run this again.") from error
        if last:
            self.stdout.write(f"vouched with {first_key_id()} for the anchors up to {last}")


def _describe(use: KeyUse) -> str:
    place = "MISSING" if use.place is None else "seals" if use.place == 0 else "opens only"
    return (
        f"key {use.key or '(not sealed)'} ({place}): {use.provider_keys} provider keys, "
        f"{use.anchors} anchors"
    )
