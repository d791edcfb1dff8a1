"""An administrator who gives and takes money, and funds quotas, whatever the database does."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Final

from django.db import Error, connection

from apps.billing.adjustments import InsufficientBalance
from tests.faults.site import DOLLAR, Payer
from tests.nemesis.menu import POOR_NANOS, QUOTA_NANOS, Menu, add_to_quota, pay_in

_PAUSE_SECONDS: Final = (0.5, 2.5)
_TRIES_AT_THE_END: Final = 30


class Desk:
    """Pays in and out on a thread. What the database did not answer is asked again."""

    def __init__(self, menu: Menu, seed: int) -> None:
        self._menu = menu
        self._random = Random(f"desk {seed}")
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._work, name="desk", daemon=True)
        self._next = 0
        self.done: dict[int, int] = {}  # nanos by customer
        self.failures = 0

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Finish what was begun, and end."""
        self._is_over.set()
        self._thread.join(120)
        if self._thread.is_alive():
            raise TimeoutError("an adjustment of a balance is not answered")

    def _work(self) -> None:
        try:
            while not self._is_over.wait(self._random.uniform(*_PAUSE_SECONDS)):
                self._adjust_one()
        finally:
            connection.close()

    def _adjust_one(self) -> None:
        menu, random = self._menu, self._random
        self._next += 1
        assert menu.poor is not None
        cause = f"desk {self._next}"
        chance = random.random()
        if chance < 0.4:
            payer, nanos = menu.poor, random.randint(1, POOR_NANOS // 2)
            pay = partial(pay_in, payer, nanos, cause)
        elif chance < 0.6:
            payer, quota_id = random.choice(menu.quota_ids)
            nanos = random.randint(1, QUOTA_NANOS // 10)
            pay = partial(add_to_quota, quota_id, nanos, cause)
        else:
            payer = random.choice(menu.payers)
            nanos = random.choice((1, -1)) * random.randint(1, DOLLAR // 100)
            pay = partial(pay_in, payer, nanos, cause)
        self._do(pay, payer, nanos)

    def _do(self, pay: Callable[[], None], payer: Payer, nanos: int) -> None:
        """Pay, whatever it takes: once."""
        tries = 0
        while True:
            try:
                pay()
            except InsufficientBalance:
                return
            except Error:
                self.failures += 1
                connection.close()
                tries += self._is_over.is_set()
                if tries > _TRIES_AT_THE_END:
                    raise
                # Whether it was committed is unknown: the same cause again moves nothing then.
                threading.Event().wait(0.5)
            else:
                self.done[payer.customer_id] = self.done.get(payer.customer_id, 0) + nanos
                return
