"""`manage.py rotate_encryption_key`: seals all provider keys with the first encryption key."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from apps.billing.sealing_keys import KeyUse, list_key_uses
from apps.billing.verification import anchors_path
from apps.providers.rotation import KeysUnreadable, first_key_id, reseal_provider_keys


class Command(BaseCommand):
    """Safe to run while gateways serve, and to run again."""

    help = "Seal all provider keys with the first key of ENCRYPTION_KEY (see docs/operations.md)."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take whether only to look."""
        parser.add_argument(
            "--check",
            action="store_true",
            help="change nothing; list the keys in use, and exit with 1 while another than the "
            "first one still seals",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Rotate, then list what depends on which key."""
        if not options["check"]:
            try:
                done = reseal_provider_keys()
            except KeysUnreadable as error:
                raise CommandError(str(error)) from error
            self.stdout.write(f"sealed anew with {first_key_id()}: {done.resealed} provider keys")
            if done.skipped:
                self.stdout.write(f"changed meanwhile and left alone: {done.skipped}")
        uses = list_key_uses(anchors_path())
        for use in uses:
            self.stdout.write(_describe(use))
        if any(use.provider_keys for use in uses if use.place != 0):
            if not options["check"]:
                raise CommandError("Some provider keys were changed meanwhile: run this again.")
            sys.exit(1)


def _describe(use: KeyUse) -> str:
    place = "MISSING" if use.place is None else "seals" if use.place == 0 else "opens only"
    return (
        f"key {use.key or '(not sealed)'} ({place}): {use.provider_keys} provider keys, "
        f"{use.anchors} anchors"
    )
