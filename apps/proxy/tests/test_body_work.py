"""Who gets the threads in which large bodies are worked on."""

from __future__ import annotations

import asyncio
import threading

import pytest

from apps.core.errors import GatewayError
from apps.proxy.body_work import IN_LOOP_BYTES_MAX, WAITING_BYTES_MAX, BodyWork

LARGE = IN_LOOP_BYTES_MAX + 1


class Job:
    """Work that says when it has begun, and ends when it is told to."""

    def __init__(self) -> None:
        self.has_begun = threading.Event()
        self.may_end = threading.Event()

    def __call__(self) -> int:
        self.has_begun.set()
        assert self.may_end.wait(30)
        return threading.get_ident()


async def begun(job: Job) -> None:
    assert await asyncio.to_thread(job.has_begun.wait, 30)


async def test_a_small_body_is_worked_on_at_once_and_a_large_one_in_a_thread() -> None:
    work = BodyWork()

    small = await work.run(1, IN_LOOP_BYTES_MAX, threading.get_ident)
    large = await work.run(1, LARGE, threading.get_ident)

    work.close()
    assert small == threading.get_ident()
    assert large != threading.get_ident()


async def test_a_user_has_one_thread_and_another_user_the_next() -> None:
    work = BodyWork()
    first, second, others = Job(), Job(), Job()

    one = asyncio.create_task(work.run(1, LARGE, first))
    await begun(first)
    two = asyncio.create_task(work.run(1, LARGE, second))
    other = asyncio.create_task(work.run(2, LARGE, others))
    await begun(others)
    has_second_begun = second.has_begun.is_set()
    others.may_end.set()
    await other
    still = second.has_begun.is_set()
    first.may_end.set()
    await begun(second)
    second.may_end.set()
    await asyncio.gather(one, two)

    work.close()
    assert (has_second_begun, still) == (False, False)


async def test_what_waits_of_a_user_is_bounded_and_takes_nothing_of_others() -> None:
    work = BodyWork()
    largest, small, others = Job(), Job(), Job()
    for job in (small, others):
        job.may_end.set()
    running = asyncio.create_task(work.run(1, WAITING_BYTES_MAX, largest))
    await begun(largest)

    with pytest.raises(GatewayError) as refused:
        await work.run(1, LARGE, small)
    await work.run(2, WAITING_BYTES_MAX, others)
    largest.may_end.set()
    await running
    await work.run(1, LARGE, small)

    work.close()
    assert refused.value.row == "E37"
    assert small.has_begun.is_set()


async def test_what_work_raises_is_raised_and_its_user_goes_on() -> None:
    work = BodyWork()

    def refuse() -> None:
        raise GatewayError("E11")

    for _ in range(2):
        with pytest.raises(GatewayError) as raised:
            await work.run(1, WAITING_BYTES_MAX, refuse)
        assert raised.value.row == "E11"
    work.close()
