"""Very many slow streams at the same time: how late their events come, and what they take of RAM.

The upstream writes into each event the moment at which it was due; all processes of a machine
share the monotonic clock. Lateness therefore includes that of the upstream and of the client,
which the direct streams of the same run show.
"""

from __future__ import annotations

import asyncio
import re
import statistics
import time
from array import array
from dataclasses import dataclass
from typing import Final, cast

import uvloop

from bench import targets
from bench.load import PATH, LoadFailed, make_body
from bench.measure import check_records, percentile, wait_until_quiet
from bench.options import Options
from bench.report import Result, Table, number
from bench.sites import POSTGRES, Bed, Site
from bench.targets import at_most

PER_SECOND: Final = 50
MODEL: Final = "paced"
_STARTED_PER_SECOND: Final = 250
# A server that takes one connection in each turn of its loop answers the last stream so much later.
_LATE_START_SECONDS: Final = 6
_GRACE_SECONDS: Final = 30.0
_SAMPLE_SECONDS: Final = 0.25
_DUE: Final = re.compile(rb"@(\d{19})@")
_DUE_LENGTH: Final = 21
_END: Final = b"0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Lateness:
    """How late events were while all streams ran, in milliseconds."""

    events: int
    p50_ms: float
    p99_ms: float
    max_ms: float
    resident_mb: float  # the most that was seen
    cpu_seconds: float  # of the site, for each second


class _Stream(asyncio.Protocol):
    """One stream that notes what came, and when; to read it during the load would add to that."""

    def __init__(self, request: bytes) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._request = request
        self._pieces: list[bytes] = []
        self._moments = array("d")  # when each piece came
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the request."""
        # uvloop's transport is one in all but its class.
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Note a piece."""
        self._moments.append(time.monotonic())
        self._pieces.append(data)
        if len(self._pieces) == 1 and not data.startswith(b"HTTP/1.1 200 "):
            self._fail(f"a stream was answered {data[:300]!r}")
            return
        if len(data) < len(_END):
            data = b"".join(self._pieces[-len(_END) :])
        if data.endswith(_END) and not self.ended.done():
            self.ended.set_result(None)
            self.close()

    @property
    def answered_at(self) -> float:
        """When the answer began."""
        return self._moments[0]

    def list_late(self) -> list[tuple[float, float]]:
        """Return of each event when it came and how late that was, in seconds."""
        found: list[tuple[float, float]] = []
        rest = b""
        for moment, piece in zip(self._moments, self._pieces, strict=True):
            data = rest + piece
            end = 0
            for due in _DUE.finditer(data):
                found.append((moment, moment - int(due[1]) / 1e9))
                end = due.end()
            rest = data[max(end, len(data) - _DUE_LENGTH) :]
        return found

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail where the stream had not ended."""
        self._fail(f"a stream was cut after {len(self._pieces)} pieces")

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()

    def _fail(self, text: str) -> None:
        if not self.ended.done():
            self.ended.set_exception(LoadFailed(text))
        self.close()


def run(bed: Bed, options: Options) -> Result:
    """Measure direct streams, those of the pass-through and those of the gateway in turns."""
    ramp_seconds = -(-options.streams // _STARTED_PER_SECOND)
    events = (options.seconds + ramp_seconds + _LATE_START_SECONDS) * PER_SECOND
    upstream = bed.start_upstream(model=MODEL, events=events, per_second=PER_SECOND)
    sites = [
        upstream,
        bed.start_passthrough(upstream),
        bed.start_gateway("gateway-postgres", bed.make_database(POSTGRES, "pacing")),
    ]
    result = Result("pacing")
    found: dict[str, list[Lateness]] = {site.name: [] for site in sites}
    for round_ in range(options.rounds):
        for turn in range(len(sites)):
            site = sites[(turn + round_) % len(sites)]
            try:
                one = _measure(site, streams=options.streams, events=events)
            except LoadFailed as error:
                result.failures.append(f"{site.name}: {error}")
                print(f"FAILED  {result.failures[-1]}\n{site.server.log_tail()}", flush=True)
                continue
            found[site.name].append(one)
            print(f"{site.name}: p99 {one.p99_ms:.1f} ms, {one.resident_mb:.0f} MB", flush=True)
    _report(result, found, streams=options.streams)
    return result


def _report(result: Result, found: dict[str, list[Lateness]], *, streams: int) -> None:
    def median(name: str, field: str) -> float | None:
        values = [float(getattr(one, field)) for one in found[name]]
        return statistics.median(values) if values else None

    fields = ("p50_ms", "p99_ms", "max_ms", "resident_mb", "cpu_seconds")
    result.tables = [
        Table(
            f"{streams} streams of {PER_SECOND} events per second",
            ("", "p50 ms late", "p99 ms late", "latest ms", "most MB", "CPU s/s"),
            [[name, *(number(median(name, field)) for field in fields)] for name in found],
        )
    ]
    gateway = "gateway-postgres"
    late = None if result.failures else median(gateway, "p99_ms")
    resident = None if result.failures else median(gateway, "resident_mb")
    result.verdicts = [
        at_most(f"{streams} streams: events late, p99", targets.LATE_P99_MS_MAX, late, "ms"),
        at_most(f"{streams} streams: memory", targets.RESIDENT_MB_MAX, resident, "MB"),
    ]
    result.data = {
        "rounds": {
            name: [
                {"events": one.events, **{field: round(getattr(one, field), 3) for field in fields}}
                for one in taken
            ]
            for name, taken in found.items()
        }
    }


def _measure(site: Site, *, streams: int, events: int) -> Lateness:
    """Run all streams of one site. Raises LoadFailed."""
    wait_until_quiet(site.database)
    since_ms = int(time.time() * 1_000) + 1
    time.sleep(0.002)
    cpu, begun = site.server.cpu_seconds(), time.perf_counter()
    lateness, resident = uvloop.run(_run_streams(site, streams=streams, events=events))
    cpu, elapsed = site.server.cpu_seconds() - cpu, time.perf_counter() - begun
    wait_until_quiet(site.database)
    check_records(site.database, since_ms, answered=streams, open_at_end=0)
    return Lateness(
        events=len(lateness),
        p50_ms=percentile(lateness, 50),
        p99_ms=percentile(lateness, 99),
        max_ms=max(lateness),
        resident_mb=resident,
        cpu_seconds=cpu / elapsed,
    )


async def _run_streams(site: Site, *, streams: int, events: int) -> tuple[list[float], float]:
    """Return the lateness of each event while all streams ran, and the most memory seen."""
    loop = asyncio.get_running_loop()
    request = _make_request(site)
    opened: list[_Stream] = []
    memory = [site.server.resident_mb()]
    sampler = loop.create_task(_sample_memory(site, memory))
    try:
        begun = loop.time()
        connecting: list[asyncio.Task[tuple[asyncio.Transport, _Stream]]] = []
        for place in range(streams):
            # By the clock, and without waiting for one: the later ones meet a busy machine.
            early = begun + place / _STARTED_PER_SECOND - loop.time()
            if early > 0:
                await asyncio.sleep(early)
            connect = loop.create_connection(lambda: _Stream(request), "127.0.0.1", site.port)
            connecting.append(loop.create_task(connect))
        opened += [stream for _, stream in await asyncio.gather(*connecting)]
        first_end = loop.create_future()
        opened[0].ended.add_done_callback(lambda _: first_end.set_result(time.monotonic()))
        async with asyncio.timeout(events / PER_SECOND + _GRACE_SECONDS):
            await asyncio.gather(*(stream.ended for stream in opened))
    except TimeoutError as error:
        raise LoadFailed("streams did not end in time") from error
    except OSError as error:
        raise LoadFailed(f"no connection: {error}") from error
    finally:
        sampler.cancel()
        for stream in opened:
            if stream.ended.done() and not stream.ended.cancelled():
                stream.ended.exception()  # Looked at: only the first one is raised.
            stream.close()
    until = first_end.result()
    all_open_at = max(stream.answered_at for stream in opened)
    noted = [stream.list_late() for stream in opened]
    short = [len(one) for one in noted if len(one) != events]
    if short:
        raise LoadFailed(f"{len(short)} streams with {short[0]} events instead of {events}")
    late = [late * 1e3 for one in noted for moment, late in one if all_open_at <= moment <= until]
    if not late:
        raise LoadFailed("the streams were never open all at the same time")
    return late, max(memory)


async def _sample_memory(site: Site, seen: list[float]) -> None:
    while True:  # cancelled with the streams
        await asyncio.sleep(_SAMPLE_SECONDS)
        seen.append(site.server.resident_mb())


def _make_request(site: Site) -> bytes:
    body = make_body("stream", model=MODEL).encode()
    head = (
        f"POST {PATH} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        f"authorization: Bearer {site.keys[0]}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
