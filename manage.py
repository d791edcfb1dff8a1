#!/usr/bin/env python
"""The command line of the gateway."""

import os
import sys


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "auditing.settings")

    from django.core.exceptions import ImproperlyConfigured
    from django.core.management import execute_from_command_line
    from django.db.utils import OperationalError, ProgrammingError

    try:
        execute_from_command_line(sys.argv)
    except KeyboardInterrupt:
        sys.exit(130)
    except ImproperlyConfigured as error:
        # One clear line instead of a traceback: the operator has to change a setting.
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)
    except (OperationalError, ProgrammingError) as error:
        # The same for a database that is not there, cannot be opened, or has no tables yet.
        reason = " ".join(str(error).split())
        is_empty = "no such table" in reason or "does not exist LINE" in reason
        if isinstance(error, ProgrammingError) and not is_empty:
            raise
        hint = " Run manage.py migrate first." if is_empty else ""
        sys.stderr.write(f"error: the database of DATABASE_URL: {reason}.{hint}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
