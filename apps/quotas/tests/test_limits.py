"""The limits of one process, by a clock that stands still until told."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.quotas import limits
from apps.quotas.limits import (
    UNLIMITED,
    Headroom,
    LimitMet,
    LocalLimiter,
    Scope,
)
from apps.quotas.tests.redis_kit import scope
from tests.support.clocks import Clock


def admit(
    limiter: LocalLimiter, request_id: str, *scopes: Scope, tokens: int = 0
) -> Headroom | LimitMet:
    return limiter.admit_now(request_id=request_id, scopes=scopes, tokens=tokens)


def finish(limiter: LocalLimiter, request_id: str, *, reserved: int = 0, used: int = 0) -> None:
    limiter.finish(request_id=request_id, scopes=(), tokens_reserved=reserved, tokens_used=used)


async def test_without_scopes_nothing_is_limited_or_remembered() -> None:
    limiter = LocalLimiter(Clock())

    first = await limiter.admit(request_id="a", scopes=(), tokens=5)
    second = await limiter.admit(request_id="a", scopes=(), tokens=5)

    assert first is UNLIMITED
    assert second is UNLIMITED


def test_the_request_after_the_limit_is_refused_until_the_window_has_room() -> None:
    clock = Clock(1000.25)
    limiter = LocalLimiter(clock)
    limited = scope(rpm=2)

    first = admit(limiter, "a", limited)
    clock.now = 1010.25
    second = admit(limiter, "b", limited)
    third = admit(limiter, "c", limited)
    clock.now = 1060.75
    still_refused = admit(limiter, "c", limited)
    clock.now = 1061.0
    after_the_first_left = admit(limiter, "c", limited)

    assert first == Headroom(2, 1, 60.75, None, None, None)
    assert second == Headroom(2, 0, 60.75, None, None, None)
    assert third == LimitMet("requests", "key:1", 51, 2, 0, 60.75)
    assert still_refused == LimitMet("requests", "key:1", 1, 2, 0, 10.25)
    assert after_the_first_left == Headroom(2, 0, 61.0, None, None, None)


def test_the_first_request_of_all_counts_in_each_of_its_scopes() -> None:
    limiter = LocalLimiter(Clock(1000.0))
    key, user = Scope("key:1", 1, None, None), Scope("user:1", 3, None, None)

    first = admit(limiter, "a", key, user)
    finish(limiter, "a")
    second = admit(limiter, "b", key, user)

    assert isinstance(first, Headroom)
    assert isinstance(second, LimitMet)
    assert (second.scope, second.limit) == ("key:1", 1)


def test_bursts_on_both_sides_of_a_minute_do_not_meet_within_sixty_seconds() -> None:
    clock = Clock(1000.99)
    limiter = LocalLimiter(clock)
    limited = scope(rpm=1)

    first = admit(limiter, "a", limited)
    clock.now = 1060.0
    after_59_seconds = admit(limiter, "b", limited)
    clock.now = 1060.98
    just_under_60_seconds = admit(limiter, "b", limited)
    clock.now = 1061.0
    after_60_seconds = admit(limiter, "b", limited)

    assert isinstance(first, Headroom)
    assert isinstance(after_59_seconds, LimitMet)
    assert isinstance(just_under_60_seconds, LimitMet)
    assert isinstance(after_60_seconds, Headroom)


@settings(max_examples=200, deadline=None)
@given(
    limit=st.integers(1, 5),
    gaps=st.lists(st.floats(0, 30, allow_nan=False), min_size=1, max_size=80),
)
def test_no_sixty_seconds_let_through_more_requests_than_the_limit(
    limit: int, gaps: list[float]
) -> None:
    clock = Clock(0.0)
    limiter = LocalLimiter(clock)
    admitted_at: list[float] = []

    for index, gap in enumerate(gaps):
        clock.now += gap
        if isinstance(admit(limiter, str(index), scope(rpm=limit)), Headroom):
            admitted_at.append(clock.now)

    for start in admitted_at:
        assert sum(1 for at in admitted_at if start <= at <= start + 60) <= limit


@settings(max_examples=200, deadline=None)
@given(
    limit=st.integers(1, 100),
    steps=st.lists(
        st.tuples(st.floats(0, 20, allow_nan=False), st.integers(0, 120), st.integers(0, 120)),
        min_size=1,
        max_size=60,
    ),
)
def test_no_sixty_seconds_start_with_more_tokens_than_the_limit(
    limit: int, steps: list[tuple[float, int, int]]
) -> None:
    clock = Clock(0.0)
    limiter = LocalLimiter(clock)
    used_at: list[tuple[float, int]] = []

    for index, (gap, reserved, reported) in enumerate(steps):
        clock.now += gap
        used = min(reported, reserved)
        if isinstance(admit(limiter, str(index), scope(tpm=limit), tokens=reserved), Headroom):
            in_window = sum(tokens for at, tokens in used_at if at >= clock.now - 60)
            assert in_window == 0 or in_window + reserved <= limit
            finish(limiter, str(index), reserved=reserved, used=used)
            used_at.append((clock.now, used))


def test_a_request_larger_than_the_token_limit_runs_alone() -> None:
    clock = Clock()
    limiter = LocalLimiter(clock)
    limited = scope(tpm=100)

    alone = admit(limiter, "large", limited, tokens=500)
    small = admit(limiter, "small", limited, tokens=1)
    clock.now = 1061.0
    admit(limiter, "small", limited, tokens=1)
    large_again = admit(limiter, "large again", limited, tokens=500)

    assert alone == Headroom(None, None, None, 100, 0, 61.0)
    assert small == LimitMet("tokens", "key:1", 60, 100, 0, 61.0)
    assert large_again == LimitMet("tokens", "key:1", 60, 100, 99, 61.0)


def test_tokens_not_used_are_given_back_to_the_window() -> None:
    clock = Clock()
    limiter = LocalLimiter(clock)
    limited = scope(tpm=100)
    admit(limiter, "a", limited, tokens=80)

    finish(limiter, "a", reserved=80, used=10)
    headroom = admit(limiter, "b", limited, tokens=20)

    assert headroom == Headroom(None, None, None, 100, 70, 61.0)


def test_tokens_given_back_late_are_not_taken_from_newer_requests() -> None:
    clock = Clock()
    limiter = LocalLimiter(clock)
    limited = scope(tpm=100)
    admit(limiter, "old", limited, tokens=60)
    clock.now = 1061.0
    admit(limiter, "new", limited, tokens=40)

    finish(limiter, "old", reserved=60, used=0)
    headroom = admit(limiter, "newest", limited, tokens=0)

    assert headroom == Headroom(None, None, None, 100, 60, 61.0)


def test_tokens_beyond_the_reservation_count_from_the_end_of_the_request() -> None:
    clock = Clock()
    limiter = LocalLimiter(clock)
    limited = scope(tpm=100)
    admit(limiter, "a", limited, tokens=10)
    clock.now = 1030.0

    finish(limiter, "a", reserved=10, used=150)
    refused = admit(limiter, "b", limited, tokens=1)
    clock.now = 1091.0
    admitted = admit(limiter, "b", limited, tokens=1)

    assert refused == LimitMet("tokens", "key:1", 60, 100, 0, 61.0)
    assert admitted == Headroom(None, None, None, 100, 99, 61.0)


@pytest.mark.parametrize("used", [-600, -(2**63)])
def test_negative_usage_never_becomes_a_credit(used: int) -> None:
    limiter = LocalLimiter(Clock())
    limited = scope(tpm=100)
    admit(limiter, "a", limited, tokens=10)

    finish(limiter, "a", reserved=10, used=used)
    headroom = admit(limiter, "b", limited, tokens=100)

    assert headroom == Headroom(None, None, None, 100, 0, 61.0)


def test_absurd_usage_is_clamped() -> None:
    limiter = LocalLimiter(Clock())
    limited = scope(tpm=100)
    admit(limiter, "a", limited, tokens=10)

    finish(limiter, "a", reserved=10, used=2**200)

    assert admit(limiter, "b", limited, tokens=1) == LimitMet("tokens", "key:1", 60, 100, 0, 61.0)


def test_a_running_request_holds_its_slot_until_it_is_finished_once() -> None:
    limiter = LocalLimiter(Clock())
    limited = scope(concurrency=1)
    admit(limiter, "a", limited)

    while_running = admit(limiter, "b", limited)
    finish(limiter, "a")
    finish(limiter, "a")
    after = admit(limiter, "b", limited)
    one_more = admit(limiter, "c", limited)

    assert while_running == LimitMet("concurrency", "key:1", 1, 1, 0, 1.0)
    assert after == UNLIMITED
    assert isinstance(one_more, LimitMet)


@pytest.mark.parametrize(
    ("full", "kind"),
    [
        (scope("user:1", rpm=0), "requests"),
        (scope("user:1", tpm=0), "tokens"),
        (scope("user:1", concurrency=0), "concurrency"),
    ],
)
def test_a_refusal_by_one_scope_takes_nothing_from_the_others(full: Scope, kind: str) -> None:
    limiter = LocalLimiter(Clock())
    open_scope = scope("key:1", rpm=1, tpm=50, concurrency=1)

    refused = [admit(limiter, str(i), open_scope, full, tokens=50) for i in range(3)]
    admitted = admit(limiter, "a", open_scope, tokens=50)

    assert [(r.kind, r.scope) for r in refused if isinstance(r, LimitMet)] == [(kind, "user:1")] * 3
    assert admitted == Headroom(1, 0, 61.0, 50, 0, 61.0)


def test_the_headroom_is_that_of_the_tightest_scope_for_each_kind() -> None:
    limiter = LocalLimiter(Clock())

    headroom = admit(
        limiter,
        "a",
        scope("key:1", rpm=10, tpm=1000),
        scope("user:1", rpm=5, tpm=2000),
        scope("user_group:1"),
        tokens=100,
    )

    assert headroom == Headroom(5, 4, 61.0, 1000, 900, 61.0)


def test_a_withdrawn_request_leaves_no_trace() -> None:
    limiter = LocalLimiter(Clock())
    limited = scope(rpm=1, tpm=100, concurrency=1)
    admit(limiter, "a", limited, tokens=100)

    limiter.withdraw("a")
    limiter.withdraw("a")

    assert admit(limiter, "b", limited, tokens=1) == Headroom(1, 0, 61.0, 100, 99, 61.0)


def test_a_request_that_runs_already_and_a_negative_estimate_are_errors() -> None:
    limiter = LocalLimiter(Clock())
    admit(limiter, "a", scope(rpm=5))

    with pytest.raises(ValueError, match="admitted before"):
        admit(limiter, "a", scope(rpm=5))
    with pytest.raises(ValueError, match="negative"):
        admit(limiter, "b", scope(rpm=5), tokens=-1)


async def test_idle_scopes_are_forgotten_and_running_ones_are_kept() -> None:
    clock = Clock()
    limiter = LocalLimiter(clock)
    running = scope("key:0", concurrency=1)
    admit(limiter, "running", running)
    for number in range(1, 50):
        admit(limiter, str(number), scope(f"key:{number}", rpm=1))
        finish(limiter, str(number))

    clock.now = 1061.0
    await limiter.renew()

    assert list(limiter._windows) == ["key:0"]
    assert isinstance(admit(limiter, "second", running), LimitMet)


def test_further_scopes_are_refused_when_all_are_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SCOPES_MAX", 3)
    clock = Clock()
    limiter = LocalLimiter(clock)
    for number in range(3):
        admit(limiter, str(number), scope(f"key:{number}", rpm=5))
        finish(limiter, str(number))

    refused = admit(limiter, "a", scope("key:3", rpm=5))
    known = admit(limiter, "b", scope("key:0", rpm=5))
    clock.now = 1061.0
    later = admit(limiter, "a", scope("key:3", rpm=5))

    assert refused == LimitMet("requests", "key:3", 1, 5, 0, 1.0)
    assert known == Headroom(5, 3, 61.0, None, None, None)
    assert later == Headroom(5, 4, 61.0, None, None, None)


def test_a_request_that_is_never_finished_does_not_hold_memory_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "LIVE_REQUESTS_MAX", 2)
    limiter = LocalLimiter(Clock())
    limited = scope(concurrency=3)

    for request_id in ("a", "b", "c", "d"):
        admit(limiter, request_id, limited)

    assert list(limiter._live) == ["c", "d"]
    assert limiter._windows["key:1"].running == 2


def test_a_busy_scope_keeps_at_most_sixty_one_buckets() -> None:
    clock = Clock()
    limiter = LocalLimiter(clock)

    for number in range(200):
        clock.now = 1000.0 + number
        admit(limiter, str(number), scope(rpm=1000))

    assert len(limiter._windows["key:1"].buckets) == 61


def test_looking_for_a_limit_met_takes_nothing() -> None:
    limiter = LocalLimiter(clock=lambda: 1_000.0)
    scopes = (Scope("key:1", 1, None, None),)

    looks = [limiter.find_limit_met(scopes=scopes, tokens=1) for _ in range(3)]
    limiter.admit_now(request_id="a", scopes=scopes, tokens=1)
    met = limiter.find_limit_met(scopes=scopes, tokens=1)

    assert looks == [None, None, None]
    assert met is not None
    assert (met.kind, met.scope, met.retry_after_seconds) == ("requests", "key:1", 60)
