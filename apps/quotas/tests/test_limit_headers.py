"""What clients are told about their limits."""

from datetime import UTC, datetime

import pytest

from apps.quotas.limit_headers import go_duration, ratelimit_headers
from apps.quotas.limits import UNLIMITED, Headroom, LimitMet, retry_after_seconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (-1, "0s"),
        (0.0001, "1ms"),
        (0.012, "12ms"),
        (0.9999, "1s"),
        (1, "1s"),
        (1.5, "1.5s"),
        (59.75, "59.75s"),
        (60.3, "1m0.3s"),
        (61, "1m1s"),
        (360, "6m0s"),
    ],
)
def test_durations_are_written_as_go_writes_them(seconds: float, text: str) -> None:
    assert go_duration(seconds) == text


@pytest.mark.parametrize(("wait", "told"), [(0, 1), (0.2, 1), (1.01, 2), (60, 60), (61, 60)])
def test_retry_after_is_a_whole_number_from_1_to_60(wait: float, told: int) -> None:
    assert retry_after_seconds(wait) == told


def test_headers_tell_requests_and_tokens_and_nothing_that_is_unlimited() -> None:
    assert ratelimit_headers(UNLIMITED) == []
    assert ratelimit_headers(Headroom(10, 9, 0.012, 1000, 900, 60.0)) == [
        (b"x-ratelimit-limit-requests", b"10"),
        (b"x-ratelimit-remaining-requests", b"9"),
        (b"x-ratelimit-reset-requests", b"12ms"),
        (b"x-ratelimit-limit-tokens", b"1000"),
        (b"x-ratelimit-remaining-tokens", b"900"),
        (b"x-ratelimit-reset-tokens", b"1m0s"),
    ]


def test_a_refusal_tells_the_headers_of_its_kind() -> None:
    tokens = ratelimit_headers(LimitMet("tokens", "key:1", 7, 100, 3, 6.5))
    concurrency = ratelimit_headers(LimitMet("concurrency", "key:1", 1, 4, 0, 1.0))

    assert tokens == [
        (b"x-ratelimit-limit-tokens", b"100"),
        (b"x-ratelimit-remaining-tokens", b"3"),
        (b"x-ratelimit-reset-tokens", b"6.5s"),
    ]
    assert concurrency == []


def test_anthropics_clients_are_told_the_moment_of_the_reset() -> None:
    now = datetime(2026, 11, 29, 12, 0, 0, 250_000, tzinfo=UTC)

    told = ratelimit_headers(Headroom(10, 9, 0.012, 1000, 900, 60.0), anthropic_at=now)

    assert told == [
        (b"anthropic-ratelimit-requests-limit", b"10"),
        (b"anthropic-ratelimit-requests-remaining", b"9"),
        (b"anthropic-ratelimit-requests-reset", b"2026-11-29T12:00:01Z"),
        (b"anthropic-ratelimit-tokens-limit", b"1000"),
        (b"anthropic-ratelimit-tokens-remaining", b"900"),
        (b"anthropic-ratelimit-tokens-reset", b"2026-11-29T12:01:01Z"),
    ]
    assert ratelimit_headers(UNLIMITED, anthropic_at=now) == []
