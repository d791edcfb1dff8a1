"""Runs commands at once: `python scripts/at_once.py "make a" "make b"`.

What the first one prints is seen as it comes; what the others print follows as a whole when they
have ended, in their order. Ends as the first one that failed did.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from typing import IO


def main(commands: list[str]) -> int:
    """Run all commands to their end, whatever becomes of the others; return the exit status."""
    with ExitStack() as files:
        kept: list[IO[bytes] | None] = [None]
        kept += [files.enter_context(tempfile.TemporaryFile()) for _ in commands[1:]]
        processes = [
            subprocess.Popen(  # noqa: S603  # lines of the Makefile
                shlex.split(command), stdout=file, stderr=file and subprocess.STDOUT
            )
            for command, file in zip(commands, kept, strict=True)
        ]
        statuses = [_wait(process) for process in processes]
        for command, file in zip(commands, kept, strict=True):
            if file is not None:
                sys.stdout.write(f"\n{command}\n")
                sys.stdout.flush()
                file.seek(0)
                shutil.copyfileobj(file, sys.stdout.buffer)
                sys.stdout.flush()
    return next((status for status in statuses if status), 0)


def _wait(process: subprocess.Popen[bytes]) -> int:
    """Return how a process ended: more than 0 where it failed."""
    while True:
        try:
            return abs(process.wait())
        except KeyboardInterrupt:
            continue  # It is told, too, and ends in its own way.


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
