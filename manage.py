#!/usr/bin/env python
"""The command line of the gateway."""

import os
import sys


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "auditing.settings")

    from django.core.exceptions import ImproperlyConfigured
    from django.core.management import execute_from_command_line
    from django.db.utils import OperationalError

    try:
        execute_from_command_line(sys.argv)
    except ImproperlyConfigured as error:
        # One clear line instead of a traceback: the operator has to change a setting.
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)
    except OperationalError as error:
        # The same for a database that is not there, or cannot be opened.
        reason = " ".join(str(error).split())
        sys.stderr.write(f"error: the database of DATABASE_URL: {reason}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
