"""Ends a process whose event loop stands still for good, so that whoever keeps it starts it again.

A thread looks on, in steps: a process that was merely stopped meanwhile (SIGSTOP, a paused virtual
machine) has missed one of them, and goes on to settle what it has. Where one expression lets no
other thread run, the interpreter's own timer ends the process, much later, for that timer goes on
while a process is stopped.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import threading
import time
from typing import Final

# Its lease has run out by then, and others have taken over what it left.
HANG_SECONDS: Final = 120.0
# Of one expression, or of being stopped: providers and clients have given up by then.
LOCKED_SECONDS: Final = 600.0
STEPS: Final = 12


class StandstillWatch:
    """Watches one event loop until the process ends. What hangs is told on stderr."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._signs = 0  # of life, so far

    def start(self) -> None:
        """Begin to watch. Belongs to the event loop."""
        self._show_life()
        threading.Thread(target=self._look_on, name="standstill", daemon=True).start()

    def _show_life(self) -> None:
        self._signs += 1
        faulthandler.dump_traceback_later(LOCKED_SECONDS, exit=True)
        self._loop.call_later(HANG_SECONDS / STEPS, self._show_life)

    def _look_on(self) -> None:
        seen = missed = 0
        # One more, since both take steps of the same length.
        while missed <= STEPS:
            time.sleep(HANG_SECONDS / STEPS)
            missed = missed + 1 if self._signs == seen else 0
            seen = self._signs
        faulthandler.dump_traceback()
        os._exit(1)
