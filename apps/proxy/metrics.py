"""What a gateway process tells Prometheus about itself, and who may ask.

METRICS is the one list of names; the table in docs/operations.md is made from it. Counts are kept
where things happen, as plain numbers; everything that can be looked up is looked up when somebody
asks. No label has values that a client or an administrator can make up.

Over 400 lines because it is one table.
"""

from __future__ import annotations

import asyncio
import os
import resource
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from hmac import compare_digest
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from apps.core.instruments import Counter, Histogram
from apps.proxy.http import Headers, Scope, Send, header_map

if TYPE_CHECKING:
    from apps.proxy.gateway import Gateway

PATH: Final = "/metrics"
_FORWARDED: Final = (b"x-forwarded-for", b"forwarded", b"x-real-ip", b"via")
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_BEGUN: Final = time.monotonic()
_CIRCUIT_LEVELS: Final = {"resting": 2, "probing": 1, "closed": 0}


@dataclass(frozen=True, slots=True)
class Metric:
    """One name that is told, and what an operator should know about it."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    meaning: str
    alert: str
    read: Callable[[Gateway], float | Counter | Histogram]
    labels: tuple[str, ...] = ()


METRICS: Final = (
    Metric(
        "gateway_ready",
        "gauge",
        "1 while `/readyz` answers 200",
        "0 for 30 s",
        lambda gateway: gateway.is_ready,
    ),
    Metric(
        "gateway_draining",
        "gauge",
        "1 from SIGTERM to the end of the process",
        "1 for longer than `DRAIN_SECONDS` + 10 s",
        lambda gateway: gateway.is_draining,
    ),
    Metric(
        "gateway_calls_total",
        "counter",
        "settled calls; `state` as in the call's record, `status` is 2xx, 4xx, 5xx",
        "5xx above 5 % for 5 min; `upstream_interrupted` above 1 %",
        lambda gateway: gateway.counts.calls,
        ("endpoint", "state", "status"),
    ),
    Metric(
        "gateway_refusals_total",
        "counter",
        "calls refused before a provider was asked, or for want of room for its answer, by row "
        "and code of errors.md, but not those whose head was never complete",
        "E32, E34, E35 or E37 at all; E33 for 1 min; a jump of E02",
        lambda gateway: gateway.counts.refusals,
        ("row", "code"),
    ),
    Metric(
        "gateway_rule_matches_total",
        "counter",
        "calls that a risk rule found, by its id; `action` is block or record",
        "a jump: somebody tries, or the rule is wrong",
        lambda gateway: gateway.guard.matches,
        ("rule", "action"),
    ),
    Metric(
        "gateway_rule_findings_dropped_total",
        "counter",
        "of these, what is not in the list of findings since there were too many",
        "",
        lambda gateway: gateway.guard.findings.dropped,
    ),
    Metric(
        "gateway_replays_total",
        "counter",
        "calls answered with what the first call with their idempotency key was answered",
        "",
        lambda gateway: gateway.counts.replays,
        ("status",),
    ),
    Metric(
        "gateway_internal_errors_total",
        "counter",
        "calls that met a bug; each is in the log with its id",
        "any increase",
        lambda gateway: gateway.counts.internal_errors,
    ),
    Metric(
        "gateway_call_duration_seconds",
        "histogram",
        "from the head of a call to its settlement",
        "p99 above what your models need",
        lambda gateway: gateway.counts.durations,
    ),
    Metric(
        "gateway_time_to_first_token_seconds",
        "histogram",
        "from the head of a streamed call to the first event that goes to its client",
        "p95 above 10 s for 5 min",
        lambda gateway: gateway.counts.first_tokens,
    ),
    Metric(
        "gateway_calls_in_flight",
        "gauge",
        "calls that are being worked on",
        "",
        lambda gateway: len(gateway.calls),
    ),
    Metric(
        "gateway_streams_open",
        "gauge",
        "streams that have begun and not ended",
        "",
        lambda gateway: gateway.count_streams(),
    ),
    Metric(
        "gateway_bytes_in_flight",
        "gauge",
        "memory set aside for the bodies of running calls: of those under way what has come, of "
        "others four times their size; E37 at 268435456",
        "above 200000000 for 1 min",
        lambda gateway: gateway.bytes_in_flight,
    ),
    Metric(
        "gateway_answer_bytes_in_flight",
        "gauge",
        "memory set aside for answers above 256 KiB, six times their size; from 402653184 others "
        "wait, at most 30 s, then E37",
        "above 300000000 for 5 min: add a gateway",
        lambda gateway: gateway.answer_bytes_in_flight,
    ),
    Metric(
        "gateway_upstream_attempts_total",
        "counter",
        "attempts at providers by outcome: `answered`, an error code, or `interrupted_…`",
        "`answered` below 90 % for 5 min",
        lambda gateway: gateway.counts.attempts,
        ("outcome",),
    ),
    Metric(
        "gateway_suspect_usages_total",
        "counter",
        "calls whose provider reported numbers that cannot be true, by its id; they cost at most "
        "their hold",
        "any increase: ask the provider",
        lambda gateway: gateway.counts.suspect_usages,
        ("provider",),
    ),
    Metric(
        "gateway_upstream_retries_total",
        "counter",
        "further attempts after one that failed before the first byte",
        "above a tenth of `gateway_calls_total` for 5 min",
        lambda gateway: gateway.counts.retries,
    ),
    Metric(
        "gateway_retry_budget_exhausted_total",
        "counter",
        "further attempts that were not made, since a fifth of the running calls (or three) were "
        "in one already",
        "any increase for 1 min",
        lambda gateway: gateway.counts.retries_refused,
    ),
    Metric(
        "gateway_circuits_open",
        "gauge",
        "routes, and keys on routes, that are passed over because they failed or were asked to "
        "rest",
        "above 0 for 5 min",
        lambda gateway: sum(level == 2 for level in _read_circuits(gateway).counts.values()),
    ),
    Metric(
        "gateway_circuit_state",
        "gauge",
        "2 rests, 1 the next call is a probe, 0 closed lately; of what is or was in trouble; "
        "`provider_key` 0 is the route as a whole",
        "2 for 5 min",
        lambda gateway: _read_circuits(gateway),  # noqa: PLW0108 (it is defined below)
        ("route", "provider_key"),
    ),
    Metric(
        "gateway_provider_keys_refused_total",
        "counter",
        "keys that this gateway uses no more since their provider refused them, by error",
        "any increase",
        lambda gateway: gateway.counts.bad_keys,
        ("code",),
    ),
    Metric(
        "gateway_provider_keys_unreported",
        "gauge",
        "refused keys that could not be marked in the database yet",
        "above 0 for 1 min",
        lambda gateway: gateway.sharing.count_unreported(),
    ),
    Metric(
        "gateway_database_available",
        "gauge",
        "1 while holds can be placed",
        "0 for 5 s",
        lambda gateway: gateway.writer.is_available,
    ),
    Metric(
        "gateway_database_answer_age_seconds",
        "gauge",
        "since the ledger's connection last had an answer; not ready from 1.6",
        "above 5",
        lambda gateway: gateway.writer.answer_age,
    ),
    Metric(
        "gateway_clock_offset_seconds",
        "gauge",
        "how far the host's clock is ahead of the database's, below 0 behind, at the last "
        "heartbeat of the ledger (every 10 s); prices begin and keys expire by the host's",
        "above 5 or below -5",
        lambda gateway: gateway.writer.clock_offset_seconds,
    ),
    Metric(
        "gateway_writer_holds_waiting",
        "gauge",
        "holds that wait for their commit; E37 at 5000",
        "above 500 for 1 min",
        lambda gateway: gateway.writer.figures()["holds_waiting"],
    ),
    Metric(
        "gateway_writer_settlements_waiting",
        "gauge",
        "settlements that are neither committed nor in the journal",
        "above 500 for 1 min",
        lambda gateway: gateway.writer.figures()["settlements_waiting"],
    ),
    Metric(
        "gateway_writer_batch_commands",
        "histogram",
        "holds and settlements in one transaction",
        "",
        lambda gateway: gateway.writer.batch_commands,
    ),
    Metric(
        "gateway_writer_commit_seconds",
        "histogram",
        "one transaction of the ledger, from its first statement to the end of its commit",
        "p99 above 0.25 for 5 min",
        lambda gateway: gateway.writer.commit_seconds,
    ),
    Metric(
        "gateway_holds_open",
        "gauge",
        "calls of this process that may hold money",
        "far above `gateway_calls_in_flight` for 5 min",
        lambda gateway: gateway.writer.figures()["holds_open"],
    ),
    Metric(
        "gateway_journal_settlements",
        "gauge",
        "settlements on disk that are not in the database yet, also of gateways that died",
        "above 0 for 1 min after the database is back",
        lambda gateway: gateway.writer.figures()["journal"],
    ),
    Metric(
        "gateway_journal_bytes",
        "gauge",
        "what they take; the file of a gateway is full at 1073741824",
        "above 500000000",
        lambda gateway: gateway.writer.figures()["journal_bytes"],
    ),
    Metric(
        "gateway_settlements_quarantined",
        "gauge",
        "settlements that cannot be settled and went to the quarantine, since the start",
        "above 0",
        lambda gateway: gateway.writer.figures()["quarantined"],
    ),
    Metric(
        "gateway_snapshot_age_seconds",
        "gauge",
        "since the configuration was known to be current; calls get 503 from 15",
        "above 5",
        lambda gateway: min(gateway.monotonic() - gateway.polled_at, 1e9),
    ),
    Metric(
        "gateway_snapshot_version",
        "gauge",
        "version of the configuration in memory; the same in all gateways after a second",
        "differs between gateways for 10 s",
        lambda gateway: gateway.snapshot.version if gateway.snapshot else 0,
    ),
    Metric(
        "gateway_limiter_degraded",
        "gauge",
        "1 while Redis does not answer, so that limits hold per gateway",
        "1 for 1 min",
        lambda gateway: gateway.is_limiter_degraded,
    ),
    Metric(
        "gateway_asyncio_tasks",
        "gauge",
        "tasks of the event loop: a few for each running call, and those that never end",
        "far above three times `gateway_calls_in_flight` and 50, and growing for an hour",
        lambda _: len(asyncio.all_tasks()),
    ),
    Metric(
        "gateway_event_loop_lag_seconds",
        "histogram",
        "how late a timer ran, twice a second",
        "p99 above 0.1 for 5 min",
        lambda gateway: gateway.counts.loop_lag,
    ),
    Metric(
        "gateway_uptime_seconds",
        "gauge",
        "since the process began",
        "falls without a restart by you",
        lambda _: time.monotonic() - _BEGUN,
    ),
    Metric(
        "process_resident_memory_bytes",
        "gauge",
        "memory of the process",
        "above 1000000000, or growing for an hour at an even load",
        lambda _: _resident_bytes(),
    ),
    Metric(
        "process_cpu_seconds_total",
        "counter",
        "processor time of the process",
        "rate above 0.9 for 5 min: add a gateway",
        lambda _: _cpu_seconds(),
    ),
    Metric(
        "process_open_fds",
        "gauge",
        "open files and connections",
        "above 80 % of `ulimit -n`",
        lambda _: len(os.listdir("/proc/self/fd")),
    ),
)


def may_read(scope: Scope, token: str) -> bool:
    """Return whether a request may see the metrics.

    With a token: whoever sends it. Without: who is on this machine, and is not a proxy there that
    passes on what comes from elsewhere.
    """
    if scope["method"] not in ("GET", "HEAD"):
        return False
    headers = header_map(scope)
    if token:
        scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
        return scheme.lower() == b"bearer" and compare_digest(given, token.encode())
    peer = scope.get("client")
    if peer is None or any(name in headers for name in _FORWARDED):
        return False
    try:
        address = ip_address(peer[0])
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


async def answer(gateway: Gateway, scope: Scope, send: Send) -> None:
    """Answer a request for the metrics."""
    body = render(gateway).encode()
    headers: Headers = [
        (b"content-type", b"text/plain; version=0.0.4; charset=utf-8"),
        (b"cache-control", b"no-store"),
        (b"content-length", b"%d" % len(body)),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    is_head = scope["method"] == "HEAD"
    await send({"type": "http.response.body", "body": b"" if is_head else body})


def render(gateway: Gateway) -> str:
    """Return all metrics in the text format of Prometheus."""
    return "".join(f"{line}\n" for metric in METRICS for line in _lines(metric, gateway))


def _lines(metric: Metric, gateway: Gateway) -> Iterator[str]:
    name = metric.name
    yield f"# HELP {name} {metric.meaning}"
    yield f"# TYPE {name} {metric.kind}"
    found = metric.read(gateway)
    if isinstance(found, Counter):
        counts: Mapping[tuple[str, ...], int] = found.counts
        for values, count in sorted((counts if metric.labels else {(): 0, **counts}).items()):
            labels = ",".join(
                f'{label}="{value}"' for label, value in zip(metric.labels, values, strict=True)
            )
            yield f"{name}{{{labels}}} {count}" if labels else f"{name} {count}"
    elif isinstance(found, Histogram):
        counted = 0
        for bound, count in zip(found.bounds, found.counts, strict=False):
            counted += count
            yield f'{name}_bucket{{le="{bound:g}"}} {counted}'
        counted += found.counts[-1]
        yield f'{name}_bucket{{le="+Inf"}} {counted}'
        yield f"{name}_sum {found.total:.9g}"
        yield f"{name}_count {counted}"
    else:
        yield f"{name} {_number(found)}"


def _read_circuits(gateway: Gateway) -> Counter:
    found = Counter()
    for (route_id, key_id), state in gateway.health.circuits.states(gateway.monotonic()):
        found.counts[str(route_id), str(key_id)] = _CIRCUIT_LEVELS[state]
    return found


def _number(value: float) -> str:
    """Return an exact integer, or a fraction in as few digits as tell it."""
    return str(int(value)) if value == int(value) else repr(float(value))


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
