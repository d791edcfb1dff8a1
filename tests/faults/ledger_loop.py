"""Writes through the ledger until it is killed, again and again (see test_disk).

`python -m tests.faults.ledger_loop PATH ACCOUNT ACCOUNT ROUNDS SEED`: in each round a child moves
one nano after the other from the first account to the second, each with its own cause, and tells
through a pipe what has been committed; it is killed at a random moment. Afterwards the file is
checked. Prints one JSON object. On SQLite only, and without Django's connections.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import sys
import time
from datetime import UTC, datetime

import django

ROUND_SECONDS_MAX = 0.06


def main() -> None:
    """Run the rounds."""
    django.setup()
    path, debit, credit, rounds, seed = sys.argv[1], *map(int, sys.argv[2:6])
    chance = random.Random(seed)
    acknowledged, unsound, lost = 0, 0, 0
    for number in range(rounds):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            _write(path, debit, credit, f"loop:{number}", writing)
        os.close(writing)
        told = os.read(reading, 8)  # From the first commit on.
        time.sleep(chance.uniform(0.0, ROUND_SECONDS_MAX))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        while part := os.read(reading, 65_536):
            told += part
        os.close(reading)
        last = len(told) // 8 - 1
        acknowledged += last + 1
        file = sqlite3.connect(path)
        unsound += file.execute("PRAGMA integrity_check").fetchone() != ("ok",)
        (there,) = file.execute(
            "SELECT count(*) FROM billing_transaction WHERE idempotency_key LIKE ?",
            (f"loop:{number}:%",),
        ).fetchone()
        # One more may have been committed and not been told.
        lost += not last + 1 <= there <= last + 2
        file.close()
    sys.stdout.write(
        json.dumps({"acknowledged": acknowledged, "unsound": unsound, "lost": lost}) + "\n"
    )


def _write(path: str, debit: int, credit: int, cause: str, told: int) -> None:
    from apps.billing.ledger.commands import Line, Posting
    from apps.billing.ledger.sqlite import SqliteEngine, connect
    from apps.billing.ledger.store import post
    from apps.core.ids import new_uuid7

    engine = SqliteEngine(connect(path))
    for number in range(1_000_000):
        lines = (Line(credit, "credit", 1), Line(debit, "debit", -1))
        key = f"{cause}:{number}"
        posting = Posting(new_uuid7(), "adjustment", key, None, "tests", "loop", lines)
        with engine.transaction():
            post(engine, posting, now=datetime.now(UTC))
        os.write(told, number.to_bytes(8, "big"))


if __name__ == "__main__":
    main()
