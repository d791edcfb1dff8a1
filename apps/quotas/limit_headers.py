"""The headers that tell of limits, as OpenAI and as Anthropic write them.

Sources: https://platform.openai.com/docs/guides/rate-limits and
https://platform.claude.com/docs/en/api/rate-limits
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from apps.quotas.limits import Headroom, LimitMet


def ratelimit_headers(
    outcome: Headroom | LimitMet, *, anthropic_at: datetime | None = None
) -> list[tuple[bytes, bytes]]:
    """Return the headers of all limits that exist.

    `anthropic_at`: now, where they are told in Anthropic's way, by the moment of the reset.
    Concurrency has no such headers; Retry-After is not among them.
    """
    told = _told(outcome)
    if anthropic_at is None:
        return [header for limit in told for header in _openai_headers(*limit)]
    return [header for limit in told for header in _anthropic_headers(*limit, anthropic_at)]


_Limit = tuple[str, int, int, float]  # what, how much in all and still, seconds to the reset


def _told(outcome: Headroom | LimitMet) -> list[_Limit]:
    if isinstance(outcome, LimitMet):
        if outcome.kind == "concurrency":
            return []
        return [(outcome.kind, outcome.limit, outcome.remaining, outcome.reset_seconds)]
    of = outcome
    known = (
        ("requests", of.limit_requests, of.remaining_requests, of.reset_requests_seconds),
        ("tokens", of.limit_tokens, of.remaining_tokens, of.reset_tokens_seconds),
    )
    return [
        (kind, limit, remaining, reset)
        for kind, limit, remaining, reset in known
        if limit is not None and remaining is not None and reset is not None
    ]


def _openai_headers(
    kind: str, limit: int, remaining: int, reset_seconds: float
) -> list[tuple[bytes, bytes]]:
    return [
        (f"x-ratelimit-limit-{kind}".encode(), str(limit).encode()),
        (f"x-ratelimit-remaining-{kind}".encode(), str(remaining).encode()),
        (f"x-ratelimit-reset-{kind}".encode(), go_duration(reset_seconds).encode()),
    ]


def _anthropic_headers(
    kind: str, limit: int, remaining: int, reset_seconds: float, now: datetime
) -> list[tuple[bytes, bytes]]:
    # Whole seconds, never before the limit is really whole again.
    at = (now + timedelta(seconds=reset_seconds)).astimezone(UTC)
    if at.microsecond:
        at = at.replace(microsecond=0) + timedelta(seconds=1)
    name = f"anthropic-ratelimit-{kind}"
    return [
        (f"{name}-limit".encode(), str(limit).encode()),
        (f"{name}-remaining".encode(), str(remaining).encode()),
        (f"{name}-reset".encode(), at.strftime("%Y-%m-%dT%H:%M:%SZ").encode()),
    ]


def go_duration(seconds: float) -> str:
    """Return the duration as Go writes it, rounded up to milliseconds: `12ms`, `1.5s`, `6m0s`.

    Source: https://pkg.go.dev/time#Duration.String
    """
    # Rounded to microseconds first: 0.012 s must not become 13 ms by a float's last bit.
    milliseconds = max(0, -(-round(seconds * 1_000_000) // 1000))
    if 0 < milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, milliseconds = divmod(milliseconds, 60_000)
    whole, fraction = divmod(milliseconds, 1000)
    text = f"{whole}.{fraction:03d}".rstrip("0").rstrip(".") if fraction else str(whole)
    return f"{minutes}m{text}s" if minutes else f"{text}s"
