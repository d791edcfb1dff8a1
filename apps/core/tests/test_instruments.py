"""Counters count by labels; histograms sort into buckets."""

from __future__ import annotations

from apps.core.instruments import Counter, Histogram


def test_a_counter_counts_by_its_labels() -> None:
    counter = Counter()

    for code in ("a", "b", "a"):
        counter.add("E19", code)

    assert counter.counts == {("E19", "a"): 2, ("E19", "b"): 1}


def test_a_histogram_puts_a_value_on_a_bound_below_it() -> None:
    histogram = Histogram((1, 5))

    for value in (0.5, 1, 1.5, 5, 5.5, 1000):
        histogram.observe(value)

    assert histogram.counts == [2, 2, 2]
    assert histogram.total == 1013.5
