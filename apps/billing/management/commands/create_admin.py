"""`manage.py create_admin`: makes an administrator, or lets an existing one in again."""

from __future__ import annotations

import getpass
import secrets
import sys
from argparse import ArgumentParser
from typing import Any, Final

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.core.validators import validate_email

from apps.billing.administrators import (
    NotAnAdministrator,
    create_administrator,
    readmit_administrator,
)
from apps.core.domain_errors import DomainError

_PASSWORD_LENGTH_MAX: Final = 4_096
_RANDOM_BYTES: Final = 18


class Command(BaseCommand):
    """Takes the password from a prompt or from stdin, never from the command line."""

    help = "Create an administrator; with --reset, give an existing one a new password."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take who, and where the password comes from."""
        parser.add_argument("--username", required=True)
        parser.add_argument("--email", help="needed for a new administrator")
        parser.add_argument(
            "--reset",
            action="store_true",
            help="set a new password of an existing administrator, activate it, end its sessions",
        )
        source = parser.add_mutually_exclusive_group()
        source.add_argument(
            "--password-stdin", action="store_true", help="read the password from stdin, one line"
        )
        source.add_argument(
            "--generate", action="store_true", help="make a random password and print it once"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Create or reset."""
        username, email = options["username"], options["email"]
        if options["reset"] == bool(email):
            raise CommandError("Give --email for a new administrator, and none with --reset.")
        try:
            if email:
                validate_email(email)
            password = self._read_password(options)
            if options["reset"]:
                user = readmit_administrator(username=username, password=password)
            else:
                user = create_administrator(username=username, email=email, password=password)
        except ValidationError as error:
            raise CommandError(" ".join(error.messages)) from error
        except (DomainError, NotAnAdministrator) as error:
            raise CommandError(str(error)) from error
        done = "has a new password" if options["reset"] else "was created"
        self.stdout.write(f"Administrator {user.username} {done}.")
        if options["generate"]:
            self.stdout.write(f"Password, shown only now: {password}")

    def _read_password(self, options: dict[str, Any]) -> str:
        if options["generate"]:
            return secrets.token_urlsafe(_RANDOM_BYTES)
        if options["password_stdin"]:
            # One line more than allowed, so that a longer one is seen to be too long.
            line = sys.stdin.readline(_PASSWORD_LENGTH_MAX + 2)
            password = line.removesuffix("\n").removesuffix("\r")
        else:
            if not sys.stdin.isatty():
                raise CommandError("No terminal: use --password-stdin or --generate.")
            password = getpass.getpass("Password: ")
            if getpass.getpass("Again: ") != password:
                raise CommandError("The two passwords differ.")
        if not password or len(password) > _PASSWORD_LENGTH_MAX:
            raise CommandError(f"A password has 1 to {_PASSWORD_LENGTH_MAX} characters.")
        return password
