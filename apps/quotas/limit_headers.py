"""The x-ratelimit-* headers, as OpenAI writes them."""

from __future__ import annotations

from apps.quotas.limits import Refusal, Standing


def ratelimit_headers(standing: Standing | Refusal) -> list[tuple[bytes, bytes]]:
    """Return the x-ratelimit-* headers, without those of limits that do not exist.

    Concurrency has no such headers; Retry-After is not among them.
    """
    if isinstance(standing, Refusal):
        if standing.kind == "concurrency":
            return []
        refused = standing
        return _headers_of(refused.kind, refused.limit, refused.remaining, refused.reset_seconds)
    of = standing
    return [
        *_headers_of(
            "requests", of.limit_requests, of.remaining_requests, of.reset_requests_seconds
        ),
        *_headers_of("tokens", of.limit_tokens, of.remaining_tokens, of.reset_tokens_seconds),
    ]


def _headers_of(
    kind: str, limit: int | None, remaining: int | None, reset_seconds: float | None
) -> list[tuple[bytes, bytes]]:
    if limit is None or remaining is None or reset_seconds is None:
        return []
    return [
        (f"x-ratelimit-limit-{kind}".encode(), str(limit).encode()),
        (f"x-ratelimit-remaining-{kind}".encode(), str(remaining).encode()),
        (f"x-ratelimit-reset-{kind}".encode(), go_duration(reset_seconds).encode()),
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
