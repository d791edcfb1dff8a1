"""What is set aside for requests and answers, and given back."""

from __future__ import annotations

import asyncio

import pytest

from apps.core.errors import GatewayError
from apps.proxy import weight
from apps.proxy.gateway import Gateway
from apps.proxy.weight import Weight

MIB = 1 << 20


async def test_a_request_and_its_answer_are_set_aside_and_given_back_together() -> None:
    gateway = Gateway()
    one, other = Weight(gateway), Weight(gateway)

    one.reserve(MIB)
    other.reserve(0)
    await one.reserve_answer(MIB, 2 * MIB)
    await one.reserve_answer(2 * MIB, 2 * MIB)
    during = (gateway.bytes_in_flight, gateway.answer_bytes_in_flight)
    one.give_back()

    assert during == (4 * MIB + 2 * (64 << 10), 12 * MIB)
    assert (gateway.bytes_in_flight, gateway.answer_bytes_in_flight) == (64 << 10, 0)
    other.give_back()
    one.give_back()
    assert (gateway.bytes_in_flight, gateway.answer_bytes_in_flight) == (0, 0)


async def test_an_answer_takes_the_room_of_one_that_failed_before_it() -> None:
    gateway = Gateway()
    one = Weight(gateway)

    await one.reserve_answer(MIB, 2 * MIB)
    await one.reserve_answer(MIB, MIB)
    again = gateway.answer_bytes_in_flight
    await one.reserve_answer(3 * MIB, 3 * MIB)

    assert again == 12 * MIB
    assert gateway.answer_bytes_in_flight == 18 * MIB


async def test_an_answer_of_unknown_length_is_taken_for_four_mebibytes() -> None:
    gateway = Gateway()
    one = Weight(gateway)

    await one.reserve_answer(MIB, 0)
    at_first = gateway.answer_bytes_in_flight
    await one.reserve_answer(5 * MIB, 0)

    assert (at_first, gateway.answer_bytes_in_flight) == (24 * MIB, 30 * MIB)


async def test_an_answer_waits_until_others_have_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight, "ANSWER_BYTES_IN_FLIGHT_MAX", 12 * MIB)
    gateway = Gateway()
    one, other, small = Weight(gateway), Weight(gateway), Weight(gateway)
    await one.reserve_answer(MIB, 2 * MIB)

    waiting = asyncio.create_task(other.reserve_answer(MIB, MIB))
    await asyncio.sleep(0.05)
    was_done = waiting.done()
    # Who has room already goes on, and calls are taken meanwhile.
    await one.reserve_answer(3 * MIB, 2 * MIB)
    small.reserve(1_000)
    one.give_back()
    await asyncio.wait_for(waiting, 10)

    assert not was_done
    assert gateway.answer_bytes_in_flight == 6 * MIB


async def test_what_has_no_room_for_long_is_refused_and_takes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(weight, "ANSWER_BYTES_IN_FLIGHT_MAX", 12 * MIB)
    gateway = Gateway()
    now = [1_000.0]
    gateway.monotonic = lambda: now[0]
    one, other = Weight(gateway), Weight(gateway)
    await one.reserve_answer(MIB, 2 * MIB)
    waiting = asyncio.create_task(other.reserve_answer(MIB, MIB))
    await asyncio.sleep(0.05)
    now[0] += weight.ROOM_SECONDS - 1
    await asyncio.sleep(0.05)
    was_done = waiting.done()
    now[0] += 2

    with pytest.raises(GatewayError) as late:
        await asyncio.wait_for(waiting, 10)
    with pytest.raises(GatewayError) as too_large:
        await other.reserve_answer(MIB, 3 * MIB)
    with pytest.raises(GatewayError) as grown:
        await one.reserve_answer(5 * MIB, 2 * MIB)

    assert not was_done
    assert [one.value.row for one in (late, too_large, grown)] == ["E37"] * 3
    assert gateway.answer_bytes_in_flight == 12 * MIB
