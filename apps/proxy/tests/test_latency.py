"""Latencies of routes: an average that forgets, and new routes that are tried by few calls."""

from __future__ import annotations

import math

from apps.proxy.latency import FRESH_SECONDS, ROUTES_MAX, Latencies


def test_a_new_route_is_tried_by_one_call_a_second() -> None:
    latencies = Latencies()

    before = latencies.rank(1, True, 100.0)
    latencies.note_try(1, True, 100.0)

    assert before == 0.0
    assert latencies.rank(1, True, 100.5) == math.inf
    assert latencies.rank(1, True, 101.0) == 0.0


def test_the_newest_answer_counts_for_a_fifth() -> None:
    latencies = Latencies()

    for seconds in (1.0, 2.0):
        latencies.observe(1, True, seconds, 100.0)

    assert latencies.rank(1, True, 100.0) == 1.2


def test_streams_and_whole_answers_are_kept_apart() -> None:
    latencies = Latencies()
    latencies.observe(1, True, 0.5, 100.0)
    latencies.observe(1, False, 9.0, 100.0)

    assert latencies.rank(1, True, 100.0) == 0.5
    assert latencies.rank(1, False, 100.0) == 9.0


def test_what_is_old_is_tried_again_and_counts_meanwhile() -> None:
    latencies = Latencies()
    latencies.observe(1, True, 0.5, 100.0)
    later = 100.0 + FRESH_SECONDS

    assert latencies.rank(1, True, later - 0.1) == 0.5
    assert latencies.rank(1, True, later) == 0.0
    latencies.note_try(1, True, later)
    assert latencies.rank(1, True, later + 0.5) == 0.5


def test_no_more_than_so_many_routes_are_kept() -> None:
    latencies = Latencies()

    for number in range(ROUTES_MAX + 1):
        latencies.observe(number, True, 1.0, 100.0)

    assert latencies.rank(0, True, 100.0) == 0.0
    assert latencies.rank(ROUTES_MAX, True, 100.0) == 1.0
