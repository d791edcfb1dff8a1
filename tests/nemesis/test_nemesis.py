"""The exam: any faults in any order under load, and every nano explained afterwards.

`make nemesis SEED=… SECONDS=… ENGINES=…` plays one schedule; a failure prints its seed.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Final
from uuid import UUID

import pytest
from django.db import connection

from apps.billing.models import Account, Hold
from tests.faults.site import Payer
from tests.nemesis import books
from tests.nemesis.calling import Door
from tests.nemesis.clients import Clients
from tests.nemesis.desk import Desk
from tests.nemesis.faults import World, list_kinds, make_fault
from tests.nemesis.join import Joined, Upstream, check_keys, join, mark_repeats
from tests.nemesis.menu import CAPPED_NANOS, MISBEHAVIOURS, make_menu
from tests.nemesis.pace import check_pace
from tests.nemesis.play import Play, worst_recovery
from tests.nemesis.schedule import plan_faults
from tests.nemesis.seen import Diary, Seen
from tests.nemesis.surfaces import DIALECTS, SURFACES
from tests.nemesis.watch import GatewayWatch, HoldWatch, count_connections
from tests.support.processes import NotReady, wait_until

pytestmark = pytest.mark.long

# From here on after everything is healed, ordinary calls have to succeed.
WELL_AFTER_SECONDS: Final = 30.0
WELL_SECONDS: Final = 15.0
SUCCESS_MIN: Final = 0.999
RECOVERY_SECONDS_MAX: Final = 60.0
_WARM_UP_SECONDS: Final = 8.0
_CALLS_END_SECONDS: Final = 100.0
_PROBLEMS_SHOWN: Final = 25
# In so long a run all that is tried has been reached.
_REACH_SECONDS: Final = 60.0
_KINDS: Final = (
    *(f"plain {surface.name}" for surface in SURFACES),
    *(f"sdk {dialect}" for dialect in DIALECTS),
    *("keyed", "quoted", "conversation"),
)


def test_nemesis(
    world: World, seed: int, seconds: float, directory: Path, report: list[str]
) -> None:
    schedule = plan_faults(seed, seconds, list_kinds(world))
    engine = world.site.database.engine
    report.append(f"nemesis: make nemesis ENGINES={engine} SEED={seed} SECONDS={seconds:g}")
    _keep(directory, "schedule", schedule)
    menu = make_menu(world.site, world.far.port)
    at_first = {payer.customer_id: _balance(payer) for payer in menu.payers}
    for keeper in world.keepers.values():
        keeper.start()
    connection.close()  # It would not survive what comes.
    doors = [Door(keeper.port) for keeper in world.keepers.values()]
    diary, holds = Diary(), HoldWatch(world.site.database)
    lives = GatewayWatch(list(world.keepers.values()), world.site.database)
    clients = Clients(world.site.crowd, menu, doors, diary, seed)
    desk, play = Desk(menu, seed), Play(schedule, seed, partial(make_fault, world))

    clients.start()
    holds.start()
    lives.start()
    time.sleep(_WARM_UP_SECONDS)
    harmed_at = time.monotonic()
    desk.start()
    play.start()
    play.wait(seconds)
    healed_at = max((one.healed_at for one in play.happened), default=time.monotonic())
    clients.calm_down()
    well_at = max(healed_at, _wait_for_gateways(world))
    time.sleep(max(0.0, well_at + WELL_AFTER_SECONDS + WELL_SECONDS - time.monotonic()))
    desk.stop()
    clients.stop(_CALLS_END_SECONDS)

    problems = [*play.problems, *_wait_for_holds(diary, healed_at)]
    holds.stop()
    lives.stop()
    problems += _check_gateways(world, lives, report)
    upstream = books.read_provider(world.site)
    recorded = mark_repeats(books.read_recorded())
    joined = join(diary.seen, upstream, recorded)
    problems += check_keys(clients.keyed.answered, recorded)
    problems += joined.problems + books.check_records(recorded) + books.check_site(world.site)
    for payer in menu.payers:
        paid_in = at_first[payer.customer_id] + desk.done.get(payer.customer_id, 0)
        problems += books.check_balance(payer, paid_in)
    for payer in menu.capped:
        problems += books.check_cap(payer, CAPPED_NANOS, recorded.values())
    problems += _check_success(diary.seen, well_at)
    problems += check_pace(diary.seen, harmed_at, well_at + WELL_AFTER_SECONDS, report)
    problems += _check_reach(diary.seen, upstream) if seconds >= _REACH_SECONDS else []
    recovery = worst_recovery(play.happened, lambda moment: _first_success(diary.seen, moment))
    _describe(report, play, diary, joined, upstream)
    report.append(
        f"oldest hold {holds.worst_seconds:.1f} s, worst recovery {recovery:.1f} s, "
        f"adjustments failed and repeated {desk.failures}, "
        f"kept answers that could not be named {clients.conversing.forgotten}"
    )
    report.append(_describe_room(world, directory))
    _keep(directory, "problems", problems)
    _keep(directory, "clients", diary.seen)
    _keep(directory, "records", recorded.items())
    shown = "\n".join(problems[:_PROBLEMS_SHOWN])
    assert not problems, f"seed {seed} on {engine}, {len(problems)} problems:\n{shown}"


def _keep(directory: Path, name: str, things: Iterable[object]) -> None:
    """Write things beside the logs, one a line, for whoever looks into a failure."""
    (directory / name).write_text("".join(f"{thing}\n" for thing in things))


def _balance(payer: Payer) -> int:
    return sum(
        Account.objects.filter(customer_id=payer.customer_id).values_list("posted_nanos", flat=True)
    )


def _wait_for_holds(diary: Diary, healed_at: float) -> list[str]:
    """Wait until nothing is held. A stream that runs on when all is well holds, as it should."""
    over_at = max([healed_at, *(one.began + one.seconds for one in diary.seen)])
    with suppress(NotReady):
        wait_until(
            lambda: not Hold.objects.exists(),
            timeout_seconds=max(1.0, over_at + RECOVERY_SECONDS_MAX - time.monotonic()),
            what="the end of all holds",
        )
    return [f"still held: {hold.pk} {hold.detail}" for hold in Hold.objects.all()[:10]]


def _check_gateways(world: World, lives: GatewayWatch, report: list[str]) -> list[str]:
    """See that the gateways come to rest with what they began with, then stop them in order."""
    keepers = list(world.keepers.values())
    problems = count_connections(world.site.database, keepers)
    for keeper in keepers:
        problems += lives.check(keeper, report)
        keeper.stop_in_order()
        problems += keeper.problems
        if "quarantined" in keeper.log:
            problems.append(f"{keeper.name} has put a settlement into quarantine")
        if "Traceback" in keeper.log:
            problems.append(f"{keeper.name} has logged a stack trace")
    return problems


def _wait_for_gateways(world: World) -> float:
    """Return when every gateway that is to run takes calls.

    The last one may have been started a moment ago, and takes long where the machine has other
    work. Raises NotReady for one that does not come.
    """
    for keeper in world.keepers.values():
        keeper.wait()
    return time.monotonic()


def _check_success(seen: Sequence[Seen], well_at: float) -> list[str]:
    """Return what did not succeed though all had been well for a while."""
    from_there = [
        one for one in seen if one.is_ordinary and one.began >= well_at + WELL_AFTER_SECONDS
    ]
    failed = [one for one in from_there if not one.is_whole]
    if len(failed) > len(from_there) * (1 - SUCCESS_MIN) or not from_there:
        return [f"{len(failed)} of {len(from_there)} calls failed after all was well: {failed[:3]}"]
    return []


def _check_reach(seen: Sequence[Seen], upstream: Mapping[UUID, Sequence[Upstream]]) -> list[str]:
    """Return which clients were never answered, and which dialects never met: all that was said of
    them would be empty.
    """
    answered = {one.client for one in seen if one.is_whole}
    met = set(_pairs(seen, upstream))
    problems = [f"{kind}: never answered" for kind in _KINDS if kind not in answered]
    return problems + [
        f"a client of {one} was never answered by a provider of {other}"
        for one in DIALECTS
        for other in DIALECTS
        if (one, other) not in met
    ]


def _first_success(seen: Sequence[Seen], moment: float) -> float | None:
    ends = (one.began + one.seconds for one in seen
            if one.is_ordinary and one.status == 200 and one.began >= moment)  # fmt: skip
    return min(ends, default=None)


def _describe(
    report: list[str],
    play: Play,
    diary: Diary,
    joined: Joined,
    upstream: Mapping[UUID, Sequence[Upstream]],
) -> None:
    """Say what the run was."""
    calls = list(chain.from_iterable(upstream.values()))
    answers = Counter(one.status for one in diary.seen)
    clients = Counter(one.client for one in diary.seen)
    refusals = Counter(one.error for one in diary.seen if one.error)
    faults = Counter(f"{one.planned.kind} {one.planned.target}" for one in play.happened)
    wishes = {(call.dialect, call.model.partition("fault=")[2]) for call in calls}
    met = [pair for pair in wishes if pair[1] in MISBEHAVIOURS]
    offered = len(MISBEHAVIOURS) * len(DIALECTS)
    pairs = Counter(_pairs(diary.seen, upstream))
    passed = sum(count for (one, other), count in pairs.items() if one == other)
    report += [
        f"{len(diary.seen)} answers {dict(sorted(answers.items()))}, {len(calls)} upstream, "
        f"{len(play.happened)} faults, {len(met)} of {offered} misbehaviours met",
        f"answered as they are {passed}, converted {sum(pairs.values()) - passed} "
        f"in {sum(one != other for one, other in pairs)} directions",
        "faults: " + _list(faults),
        f"left out, as the one before took too long: {[str(one) for one in play.left_out]}",
        "clients: " + _list(clients),
        "errors: " + _list(refusals),
        *joined.lines(),
    ]


def _describe_room(world: World, directory: Path) -> str:
    """Say how much of the small disk the database has taken, and how much was logged."""
    logs = sum(path.stat().st_size for path in directory.rglob("*.log")) + (
        world.site.log.stat().st_size
    )
    told = f"{logs >> 20} MiB of logs"
    if world.disk is None:
        return told
    disk = os.statvfs(world.disk.directory)
    used = (disk.f_blocks - disk.f_bfree) * disk.f_frsize
    return f"{told}, {used >> 20} of {disk.f_blocks * disk.f_frsize >> 20} MiB of the disk"


def _pairs(
    seen: Iterable[Seen], upstream: Mapping[UUID, Sequence[Upstream]]
) -> Iterator[tuple[str, str]]:
    """Yield the dialects of client and provider of each call that was answered whole."""
    for one in seen:
        calls = upstream.get(UUID(one.request_id), ()) if one.request_id and one.is_whole else ()
        if calls:
            yield one.dialect, calls[-1].dialect


def _list(counts: Counter[str]) -> str:
    return ", ".join(f"{count} x {name}" for name, count in sorted(counts.items()))
