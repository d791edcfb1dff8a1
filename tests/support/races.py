"""Threads that do something at the same moment; each closes its Django connections at its end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from django.db import connections

BARRIER_SECONDS: Final = 30
CROWD: Final = 8  # where any number will do
Answer = TypeVar("Answer")


def race(count: int, act: Callable[[threading.Barrier, int], Answer]) -> list[Answer]:
    """Run `act` in as many threads and return what each returned, by number.

    Each prepares itself and then waits at the barrier; what one raises is raised here.
    """
    barrier = threading.Barrier(count, timeout=BARRIER_SECONDS)

    def run(number: int) -> Answer:
        try:
            return act(barrier, number)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(count) as threads:
        futures = [threads.submit(run, number) for number in range(count)]
        return [future.result() for future in futures]


def at_once(count: int, act: Callable[[int], Answer]) -> list[Answer]:
    """Do the same with what needs no preparation."""

    def wait_and_act(barrier: threading.Barrier, number: int) -> Answer:
        barrier.wait()
        return act(number)

    return race(count, wait_and_act)
