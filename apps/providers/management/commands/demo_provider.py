"""`manage.py demo_provider`: the demo provider under Django's command line."""

from __future__ import annotations

import argparse
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from apps.providers.demo import command_line


class Command(BaseCommand):
    """Serves until it is told to stop."""

    help = command_line.DESCRIPTION
    # It uses neither the database nor the settings.
    requires_system_checks = []
    requires_migrations_checks = False

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        """Return the parser, with the list of options and faults below the arguments."""
        return super().create_parser(
            prog_name,
            subcommand,
            epilog=command_line.list_faults(),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            **kwargs,
        )

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the command's arguments."""
        command_line.add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        """Serve until SIGINT or SIGTERM."""
        try:
            command_line.serve(
                host=options["host"],
                port=options["port"],
                log=options["log"],
                api_key=options["api_key"],
            )
        except (ValueError, OSError) as error:
            raise CommandError(f"demo provider: {error}") from error
