"""Calls of the ledger's writer alone, without HTTP: holds and settlements, as many as it takes.

`python -m bench.writer_load '{"customers": 16, "calls_at_once": 128, "seconds": 4}'` prints as JSON
what this process did with the database of the environment. A warm-up of a second comes first.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import django

_WALLET_NANOS = 10**15
_HOLD_NANOS = 1_000
_WARM_UP_SECONDS = 1.0


async def measure(*, customers: int, calls_at_once: int, seconds: float) -> dict[str, float]:
    """Hold and settle calls of one token, `calls_at_once` at a time, and return the figures."""
    from asgiref.sync import sync_to_async
    from django.db import connection

    from apps.billing.connections import connect
    from apps.billing.journal import Journal
    from apps.billing.ledger.commands import Held
    from apps.billing.tests.writer_kit import hold_of, resolve_of
    from apps.billing.writer import LedgerWriter
    from tests.support.world import make_world

    make = sync_to_async(make_world)
    worlds = [await make(_WALLET_NANOS) for _ in range(customers)]
    with tempfile.TemporaryDirectory(prefix="bench-journal-") as folder:
        writer = LedgerWriter(
            connect=connect,
            journal=Journal(Path(folder)),
            is_only_owner=connection.vendor == "sqlite",
        )
        writer.start()
        while not writer.is_available:  # noqa: ASYNC110 (bounded by whoever started this)
            await asyncio.sleep(0.01)
        calls = 0
        is_over = False

        async def call_again_and_again(number: int) -> None:
            nonlocal calls
            world = worlds[number % customers]
            while not is_over:
                held = await writer.place(hold_of(world, _HOLD_NANOS))
                if not isinstance(held, Held):
                    raise RuntimeError(f"a hold was refused: {held}")
                await writer.resolve(resolve_of(world, held, 1))
                calls += 1

        async with asyncio.TaskGroup() as group:
            for number in range(calls_at_once):
                group.create_task(call_again_and_again(number))
            await asyncio.sleep(_WARM_UP_SECONDS)
            first = (calls, sum(writer.batch_commands.counts), time.process_time())
            begun = time.monotonic()
            await asyncio.sleep(seconds)
            took = time.monotonic() - begun
            last = (calls, sum(writer.batch_commands.counts), time.process_time())
            is_over = True
        await writer.stop()
    made = last[0] - first[0]
    return {
        "per_second": made / took,
        "commands_a_batch": 2 * made / max(1, last[1] - first[1]),
        "cpu_ms": (last[2] - first[2]) / made * 1_000,
        "cores": (last[2] - first[2]) / took,
    }


def main() -> None:
    """Measure what the argument asks for."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "auditing.settings")
    django.setup()
    print(json.dumps(asyncio.run(measure(**json.loads(sys.argv[1])))))


if __name__ == "__main__":
    main()
