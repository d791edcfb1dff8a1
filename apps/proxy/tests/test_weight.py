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
    one, other = Weight(gateway, 1), Weight(gateway, 1)

    one.reserve(MIB, MIB)
    other.reserve(0, 0)
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
    one = Weight(gateway, 1)

    await one.reserve_answer(MIB, 2 * MIB)
    await one.reserve_answer(MIB, MIB)
    again = gateway.answer_bytes_in_flight
    await one.reserve_answer(3 * MIB, 3 * MIB)

    assert again == 12 * MIB
    assert gateway.answer_bytes_in_flight == 18 * MIB


async def test_an_answer_of_unknown_length_is_taken_for_four_mebibytes() -> None:
    gateway = Gateway()
    one = Weight(gateway, 1)

    await one.reserve_answer(MIB, 0)
    at_first = gateway.answer_bytes_in_flight
    await one.reserve_answer(5 * MIB, 0)

    assert (at_first, gateway.answer_bytes_in_flight) == (24 * MIB, 30 * MIB)


async def test_an_answer_waits_until_others_have_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight, "ANSWER_BYTES_IN_FLIGHT_MAX", 12 * MIB)
    gateway = Gateway()
    one, other, small = Weight(gateway, 1), Weight(gateway, 1), Weight(gateway, 1)
    await one.reserve_answer(MIB, 2 * MIB)

    waiting = asyncio.create_task(other.reserve_answer(MIB, MIB))
    await asyncio.sleep(0.05)
    was_done = waiting.done()
    # Who has room already goes on, and calls are taken meanwhile.
    await one.reserve_answer(3 * MIB, 2 * MIB)
    small.reserve(1_000, 1_000)
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
    one, other = Weight(gateway, 1), Weight(gateway, 1)
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


def test_what_is_announced_of_a_body_takes_no_room_before_it_comes() -> None:
    gateway = Gateway()
    announced, unknown = Weight(gateway, 1), Weight(gateway, 1)

    announced.reserve(0, 32 * MIB)
    unknown.reserve(MIB, None)
    announced.reserve(3 * MIB, 32 * MIB)
    under_way = gateway.bytes_in_flight
    announced.reserve(32 * MIB, 32 * MIB)
    unknown.reserve(2 * MIB, 2 * MIB)
    whole = gateway.bytes_in_flight
    announced.give_back()
    unknown.give_back()

    assert under_way == 4 * MIB + 2 * (64 << 10)
    assert whole == 4 * 34 * MIB + 2 * (64 << 10)
    assert (gateway.bytes_in_flight, gateway.arriving_bytes) == (0, {})


def test_a_user_has_a_quarter_of_all_under_way_and_others_have_theirs() -> None:
    gateway = Gateway()
    first, second, third, other = (Weight(gateway, user_id) for user_id in (1, 1, 1, 2))
    first.reserve(31 * MIB, 32 * MIB)
    second.reserve(31 * MIB, None)

    with pytest.raises(GatewayError) as raised:
        third.reserve(3 * MIB, None)
    other.reserve(3 * MIB, None)
    third.reserve(1_000, 1_000)
    first.reserve(32 * MIB, 32 * MIB)
    third.reserve(3 * MIB, None)

    assert raised.value.row == "E37"
    assert gateway.arriving_bytes == {1: 34 * MIB, 2: 3 * MIB}


def test_a_body_for_all_of_which_there_is_no_room_is_refused_before_it_comes() -> None:
    gateway = Gateway()
    one, other = Weight(gateway, 1), Weight(gateway, 2)
    one.reserve(32 * MIB, 32 * MIB)

    with pytest.raises(GatewayError) as raised:
        other.reserve(0, 32 * MIB)
    other.give_back()

    assert raised.value.row == "E37"
    assert gateway.bytes_in_flight == 4 * 32 * MIB + (64 << 10)
