"""The embedded broker: folders in DATA_DIR, with a file for each task and each exchange.

Kombu leaves a file empty that it cannot write since the disk is full, and can read one before it is
written. Either ends the worker: with a task, and with an exchange each time it is started.
"""

from __future__ import annotations

from typing import Any

from kombu.transport import filesystem


class Channel(filesystem.Channel):
    """Passes over files that are not whole."""

    def _get(self, queue: str) -> Any:  # type: ignore[override]  # As Kombu's own.
        # Bounded by the files: each that cannot be read has been removed.
        while True:
            try:
                return super()._get(queue)
            except ValueError:
                continue  # The next period does the work of a task that is lost.

    def _queue_bind(self, exchange: str, *binding: Any) -> None:
        try:
            super()._queue_bind(exchange, *binding)
        except ValueError:
            (self.control_folder / f"{exchange}.exchange").unlink(missing_ok=True)
            super()._queue_bind(exchange, *binding)


class Transport(filesystem.Transport):
    """Kombu's, with channels that pass over what is not whole."""

    Channel = Channel
