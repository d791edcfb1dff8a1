import threading
import uuid
from datetime import UTC, datetime, timedelta, timezone

import pytest

from apps.core.ids import Uuid7Source, new_uuid7, uuid7, uuid7_lower_bound


def test_the_layout_is_that_of_the_rfc_example() -> None:
    # RFC 9562, appendix A.6: rand_a 0xCC3, rand_b 0x18C4DC0C0C07398F.
    tail = (0xCC3 << 62) | 0x18C4DC0C0C07398F

    made = uuid7(0x017F22E279B0, tail.to_bytes(10, "big"))

    assert made == uuid.UUID("017f22e2-79b0-7cc3-98c4-dc0c0c07398f")
    assert made.version == 7
    assert made.variant == uuid.RFC_4122


def test_a_time_beyond_48_bits_or_too_little_randomness_is_refused() -> None:
    with pytest.raises(ValueError, match="48 bits"):
        uuid7(1 << 48, bytes(10))
    with pytest.raises(ValueError, match="10 random bytes"):
        uuid7(0, bytes(9))


def test_ids_increase_within_a_millisecond_and_when_the_clock_steps_back() -> None:
    ticks = iter([5_000_000, 5_000_000, 5_999_999, 1_000_000, 6_000_000])
    source = Uuid7Source(clock_ns=lambda: next(ticks))

    made = [source.next_id() for _ in range(5)]

    assert made == sorted(set(made))
    assert [identifier.int >> 80 for identifier in made] == [5, 5, 5, 5, 6]


def test_a_full_millisecond_borrows_the_next_one() -> None:
    source = Uuid7Source(clock_ns=lambda: 5_000_000, random=lambda count: b"\xff" * count)
    source.next_id()
    source._tail = (1 << 74) - 1

    assert source.next_id().int >> 80 == 6


def test_threads_share_one_increasing_series() -> None:
    made: list[list[uuid.UUID]] = [[] for _ in range(4)]

    def make(into: list[uuid.UUID]) -> None:
        into.extend(new_uuid7() for _ in range(2_000))

    threads = [threading.Thread(target=make, args=(into,)) for into in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert all(series == sorted(series) for series in made)
    assert len({identifier for series in made for identifier in series}) == 8_000


def test_a_forked_child_draws_its_own_randomness() -> None:
    draws: list[int] = []

    def random(count: int) -> bytes:
        draws.append(count)
        return bytes(count)

    source = Uuid7Source(clock_ns=lambda: 5_000_000, random=random)
    source.next_id()
    source.next_id()
    assert len(draws) == 1

    source.forget()
    source.next_id()

    assert len(draws) == 2


def test_the_lower_bound_is_at_most_every_id_of_its_month_and_above_the_month_before() -> None:
    bound = uuid7_lower_bound(datetime(2026, 12, 1, tzinfo=UTC))

    assert str(bound) == "01a22ee6-b000-7000-8000-000000000000"
    first = int(datetime(2026, 12, 1, tzinfo=UTC).timestamp() * 1000)
    assert bound <= uuid7(first, bytes(10))
    assert bound > uuid7(first - 1, b"\xff" * 10)


def test_the_lower_bound_needs_a_zone_and_respects_it() -> None:
    in_utc = datetime(2026, 11, 30, 22, tzinfo=UTC)
    further_east = datetime(2026, 12, 1, tzinfo=timezone(timedelta(hours=2)))

    assert uuid7_lower_bound(in_utc) == uuid7_lower_bound(further_east)
    with pytest.raises(ValueError, match="time zone"):
        uuid7_lower_bound(in_utc.replace(tzinfo=None))
