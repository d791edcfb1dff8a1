"""`manage.py erase_payloads`: erases stored bodies, never the records of the calls."""

from __future__ import annotations

import argparse
from argparse import ArgumentParser
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError

from apps.audit.retention import Selection, erase_payloads

_DAYS_MAX: Final = 36_500


class Command(BaseCommand):
    """Erases what all given options together select."""

    help = "Erase stored request and response bodies. The records of the calls stay."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take which bodies are meant."""
        age = parser.add_mutually_exclusive_group()
        age.add_argument(
            "--before", type=_moment, help="of calls begun before this date or time (UTC)"
        )
        age.add_argument(
            "--days",
            type=_days,
            help="of calls begun longer ago than so many days, 1 or more; --before with the "
            "present time erases all",
        )
        parser.add_argument("--user", type=int, help="of this user's calls (the user's id)")
        parser.add_argument("--request", type=UUID, help="of this call (its request id)")

    def handle(self, *args: Any, **options: Any) -> None:
        """Erase and say how much."""
        now = datetime.now(UTC)
        before = options["before"]
        if options["days"] is not None:
            before = now - timedelta(days=options["days"])
        if before is not None and before > now:
            raise CommandError("--before lies in the future.")
        selection = Selection(before=before, user_id=options["user"], request_id=options["request"])
        if selection == Selection():
            raise CommandError("Say which: --before, --days, --user or --request.")
        done = erase_payloads(selection, reason="manage.py erase_payloads")
        self.stdout.write(f"erased {done.count} payloads")
        if done.count:
            self.stdout.write(f"from request {done.first} to {done.last}")


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError("not a date such as 2026-01-31") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _days(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= _DAYS_MAX):
        raise argparse.ArgumentTypeError(f"not a whole number from 1 to {_DAYS_MAX}")
    days = int(text)
    # `--days "$PAYLOAD_DAYS"` must not erase what that setting keeps.
    if days == 0:
        raise argparse.ArgumentTypeError(
            "0 keeps bodies for ever, as PAYLOAD_DAYS=0 does; to erase all of them give --before "
            "the present time"
        )
    return days
