"""What is set aside for requests and answers, and given back."""

from __future__ import annotations

import pytest

from apps.core.errors import GatewayError
from apps.proxy import weight
from apps.proxy.gateway import Gateway
from apps.proxy.weight import Weight

MIB = 1 << 20


def test_a_request_and_its_answer_are_set_aside_and_given_back_together() -> None:
    gateway = Gateway()
    one, other = Weight(gateway), Weight(gateway)

    one.reserve(MIB)
    other.reserve(0)
    one.reserve_answer(MIB)
    one.reserve_answer(2 * MIB)
    during = gateway.bytes_in_flight
    one.give_back()

    assert during == 4 * MIB + 2 * (64 << 10) + 12 * MIB
    assert gateway.bytes_in_flight == 64 << 10
    other.give_back()
    one.give_back()
    assert gateway.bytes_in_flight == 0


def test_an_answer_takes_the_room_of_one_that_failed_before_it() -> None:
    gateway = Gateway()
    one = Weight(gateway)

    one.reserve_answer(2 * MIB)
    one.reserve_answer(MIB)
    again = gateway.bytes_in_flight
    one.reserve_answer(3 * MIB)

    assert again == 12 * MIB
    assert gateway.bytes_in_flight == 18 * MIB


def test_what_has_no_room_is_refused_and_takes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight, "BYTES_IN_FLIGHT_MAX", 12 * MIB)
    gateway = Gateway()
    one, other = Weight(gateway), Weight(gateway)
    one.reserve_answer(MIB)
    other.reserve_answer(MIB)

    with pytest.raises(GatewayError) as refused:
        one.reserve_answer(MIB + 1)

    assert refused.value.row == "E37"
    assert gateway.bytes_in_flight == 12 * MIB
    one.give_back()
    other.reserve_answer(2 * MIB)
    assert gateway.bytes_in_flight == 12 * MIB
