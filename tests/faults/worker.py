"""A Celery worker with its beat, on a schedule of seconds, with faults planted by a test.

`python -m tests.faults.worker PLANT…`: a PLANT is the name of a function of this module.
"""

from __future__ import annotations

import os
import sys
from typing import Any, Final

import django

EXIT_CODE: Final = 9
BATCH: Final = 5
PERIODS: Final = {"billing.reap": 1.0, "billing.anchor_heads": 1.0}


def die_in_the_middle() -> None:
    """Die when the first of several batches of holds has been resolved."""
    from apps.billing.flushing import Flusher

    flush = Flusher.flush

    def flush_and_die(self: Flusher, *arguments: Any) -> Any:
        flush(self, *arguments)
        os._exit(EXIT_CODE)

    Flusher.flush = flush_and_die  # type: ignore[method-assign,assignment]  # so planted


def main() -> None:
    """Plant what was asked for and work until the end."""
    django.setup()
    from apps.billing import reaper, tasks
    from auditing.celery import app

    vars(tasks)["GRACE_SECONDS"] = 0
    vars(reaper)["REAP_BATCH"] = BATCH
    for name in sys.argv[1:]:
        globals()[name]()
    for name, seconds in PERIODS.items():
        entry = app.conf.beat_schedule[name]
        entry["schedule"] = entry["options"]["expires"] = seconds
    app.worker_main(["--quiet", "worker", "-B", "--pool=threads"])


if __name__ == "__main__":
    main()
