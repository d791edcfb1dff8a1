"""`manage.py first_run`: what a new installation needs, created once."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser

from apps.proxy import first_run, installation


class Command(BaseCommand):
    """Creates the administrator and the demo, unless there are users already."""

    help = "Create the administrator and a demo that can be called, unless there are users already."

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the command's arguments."""
        parser.add_argument("--no-demo", action="store_true", help="create the administrator only")
        parser.add_argument("--url", help="where the gateway will be reached")
        parser.add_argument("--demo-port", type=int, help="loopback port of the demo provider")

    def handle(self, *args: Any, **options: Any) -> None:
        """Create what is missing and say where the credentials are."""
        demo_port = options["demo_port"] or installation.take_free_port()
        with installation.sole_setup():
            made = first_run.perform_first_run(
                wishes=first_run.read_wishes(demo_port=None if options["no_demo"] else demo_port),
                url=options["url"] or f"http://127.0.0.1:{settings.ENVIRONMENT.port}",
                data_dir=settings.DATA_DIR,
            )
        if made is None:
            self.stdout.write("There are users already: nothing to do.")
        else:
            self.stdout.write(f"Created; see {settings.DATA_DIR / first_run.FILE_NAME}")
