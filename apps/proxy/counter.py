"""Has tokens counted by a process of its own: started at the first question, bounded in time.

Only calls whose provider reported no usage ask. An answer that is late, or a process that fails,
is None, and the caller keeps its cheap estimate: a settlement never depends on this.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

COUNT_SECONDS: Final = 3.0
"""How long the end of an answer may wait for its count."""

# A process that has answered nothing for so long is ended; loading takes a second where the
# machine is busy.
_SILENT_SECONDS: Final = 20.0
_WAITING_MAX: Final = 100
# After a failure nobody tries for so long.
_PAUSE_SECONDS: Final = 60.0
_ANSWER_BYTES_MAX: Final = 1 << 16
_ROOT: Final = Path(__file__).parents[2]

logger = logging.getLogger(__name__)


class TokenCounter:
    """The one tokenizer of a gateway process. Belongs to the event loop."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._number = 0
        self._answered = 0  # the number of the latest question that was answered
        self._silent_since = 0.0  # monotonic; the latest answer, or the first question after it
        self._paused_until = 0.0  # monotonic

    async def count(self, encoding: str, groups: Sequence[Sequence[str]]) -> list[int] | None:
        """Return the number of tokens of each group of texts, None where it cannot be had in
        time.
        """
        if self._waiting >= _WAITING_MAX or time.monotonic() < self._paused_until:
            return None
        self._waiting += 1
        try:
            async with asyncio.timeout(COUNT_SECONDS), self._turn:
                return await self._ask(encoding, groups)
        except TimeoutError:
            if time.monotonic() - self._silent_since > _SILENT_SECONDS:
                self._fail("it has been silent for too long")
        except (OSError, ValueError, EOFError) as error:
            self._fail(f"its process ended ({type(error).__name__})")
        finally:
            self._waiting -= 1
        return None

    async def stop(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        self._paused_until = float("inf")
        if process is not None:
            _kill(process)
            await process.wait()

    async def _ask(self, encoding: str, groups: Sequence[Sequence[str]]) -> list[int]:
        process = self._process
        if process is not None and process.returncode is not None:
            process = None
        if process is None or self._answered == self._number:
            # The one before will answer nothing any more, or this one had nothing to do.
            self._answered, self._silent_since = self._number, time.monotonic()
        if process is None:
            process = self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "apps.proxy.tokenizer",
                cwd=_ROOT,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                limit=_ANSWER_BYTES_MAX,
            )
        writer, reader = process.stdin, process.stdout
        if writer is None or reader is None:
            raise EOFError
        self._number += 1
        request = {"number": self._number, "encoding": encoding, "groups": groups}
        # In a thread: it may be megabytes.
        writer.write((await asyncio.to_thread(json.dumps, request)).encode() + b"\n")
        await writer.drain()
        while True:
            line = await reader.readline()
            if not line:
                raise EOFError
            answer = json.loads(line)
            self._answered, self._silent_since = answer["number"], time.monotonic()
            # What comes before is for those who did not wait for it.
            if answer["number"] == self._number:
                tokens: list[int] = answer["tokens"]
                return tokens

    def _fail(self, reason: str) -> None:
        logger.error("tokens cannot be counted, and are estimated by characters: %s", reason)
        self._paused_until = time.monotonic() + _PAUSE_SECONDS
        if self._process is not None:
            _kill(self._process)
        self._process = None


def _kill(process: asyncio.subprocess.Process) -> None:
    # It may have ended by itself, and nobody may have noticed yet.
    with suppress(ProcessLookupError):
        process.kill()
