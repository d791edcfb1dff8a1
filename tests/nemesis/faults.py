"""One small class for each kind of fault: how it harms, and how it is healed.

`tick` is called ten times a second while the fault lasts. Healing may fail and is tried again.
"""

from __future__ import annotations

import contextlib
import signal
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Final, Protocol

import psycopg

from tests.faults.site import Site
from tests.nemesis.keeper import Keeper, can_fake_time
from tests.nemesis.schedule import Kind
from tests.support.chaos_proxy import ChaosProxy
from tests.support.databases import Database
from tests.support.disk import SmallDisk
from tests.support.postgres import PostgresServer
from tests.support.redis import RedisServer

_HOUR: Final = 3600
_JUMPS: Final = (_HOUR, -_HOUR, 24 * _HOUR, -24 * _HOUR)
# With SQLite a gateway's clock is the only one there is: idempotency keys are kept for a day by it,
# which has passed where a gateway is started while it is wrong. From one to the other of these less
# than a day passes.
_JUMPS_ALONE: Final = (_HOUR, -_HOUR, 11 * _HOUR, -11 * _HOUR)
_TICKS_PER_STEP: Final = 30


@dataclass(slots=True)
class World:
    """What can be harmed."""

    site: Site
    keepers: Mapping[str, Keeper]
    far: ChaosProxy  # between the gateways and one provider
    redis: RedisServer
    disk: SmallDisk | None  # the database's
    lease_seconds: float

    @property
    def server(self) -> PostgresServer:
        """The database's server."""
        assert self.site.database.server is not None
        return self.site.database.server


class Fault(Protocol):
    """Something that goes wrong for a while."""

    def inject(self) -> None:
        """Do harm."""

    def tick(self) -> None:
        """Go on doing harm."""

    def heal(self) -> None:
        """Make it whole again."""


@dataclass(frozen=True, slots=True)
class Simple:
    """A fault that begins and ends, and needs nothing in between."""

    begin: Callable[[], object]
    end: Callable[[], object]

    def inject(self) -> None:
        """Begin."""
        self.begin()

    def tick(self) -> None:
        """Do nothing more."""

    def heal(self) -> None:
        """End."""
        self.end()


# ---- gateways


class SteppingClock:
    """A wall clock that is set forth and back every three seconds."""

    def __init__(self, keeper: Keeper, random: Random, jumps: Sequence[int]) -> None:
        self._keeper = keeper
        self._random = random
        self._jumps = jumps
        self._ticks = 0

    def inject(self) -> None:
        """Set it."""
        self._keeper.shift_clock(self._random.choice(self._jumps))

    def tick(self) -> None:
        """Set it again when it is time."""
        self._ticks += 1
        if self._ticks % _TICKS_PER_STEP == 0:
            self.inject()

    def heal(self) -> None:
        """Set it right."""
        self._keeper.shift_clock(0)


# ---- databases


class ConnectionsCut:
    """Sessions of PostgreSQL that are ended at random, ten a second."""

    def __init__(self, server: PostgresServer, database: str, random: Random) -> None:
        self._server = server
        self._database = database
        self._random = random
        self._executioner: psycopg.Connection[Any] | None = None

    def inject(self) -> None:
        """Connect, as soon as that is possible: another fault may keep the server busy."""
        with contextlib.suppress(psycopg.OperationalError):
            self._executioner = psycopg.connect(
                **self._server.parameters("postgres"), autocommit=True
            )

    def tick(self) -> None:
        """End a session."""
        if self._executioner is None:
            self.inject()
            return
        found = self._executioner.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = %s ORDER BY pid", (self._database,)
        ).fetchall()
        if found:
            self._executioner.execute("SELECT pg_terminate_backend(%s)", self._random.choice(found))

    def heal(self) -> None:
        """Leave them alone."""
        if self._executioner is not None:
            self._executioner.close()


class DatabaseLocked:
    """Somebody who keeps the table of accounts, or SQLite's only lock."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._holder: Any = None

    def inject(self) -> None:
        """Take it, unless a gateway keeps it that is frozen in the middle of a transaction."""
        if self._database.server is None:
            self._holder = sqlite3.connect(
                self._database.name, isolation_level=None, timeout=20, check_same_thread=False
            )
            with contextlib.suppress(sqlite3.OperationalError):
                self._holder.execute("BEGIN IMMEDIATE")
            return
        # The server may still be recovering from what came before.
        with contextlib.suppress(psycopg.OperationalError), contextlib.ExitStack() as stack:
            holder = psycopg.connect(**self._database.server.parameters(self._database.name))
            stack.callback(holder.close)
            holder.execute("LOCK TABLE billing_account IN ACCESS EXCLUSIVE MODE")
            stack.pop_all()
            self._holder = holder

    def tick(self) -> None:
        """Keep it, or take it if that was not possible."""
        if self._holder is None:
            self.inject()

    def heal(self) -> None:
        """Give it back."""
        if self._holder is not None:
            self._holder.rollback()
            self._holder.close()


class DiskFull:
    """A database without a page to write on."""

    def __init__(self, disk: SmallDisk, server: PostgresServer | None) -> None:
        self._disk = disk
        self._server = server

    def inject(self) -> None:
        """Fill it."""
        self._disk.fill()

    def tick(self) -> None:
        """Fill what has been freed."""
        self._disk.fill()

    def heal(self) -> None:
        """Free it. A server that gave up is started, as its process manager would."""
        self._disk.free()
        if self._server is not None:
            start_again(self._server)


def start_again(server: PostgresServer) -> None:
    """Start a server that is not there."""
    if not server.is_running():
        server.restart()


# ---- what there is


def list_kinds(world: World) -> list[Kind]:
    """Return the kinds of faults that can happen here."""
    gateways = tuple(f"gateway {name}" for name in world.keepers)
    clocks = tuple(f"clock {name}" for name in world.keepers)
    frozen = world.lease_seconds * 1.2 + 2.0
    kinds = [
        Kind("kill", gateways, 1.0, 8.0),
        Kind("freeze", gateways, frozen, frozen + 8.0),
        Kind("restart", gateways, 1.0, 4.0),
        Kind("kill", ("redis",), 2.0, 15.0),
        Kind("freeze", ("redis",), 2.0, 15.0),
        Kind("empty", ("redis",), 1.0, 1.0),
        Kind("freeze", ("provider",), 2.0, 9.0),
        Kind("cut", ("way to a provider",), 2.0, 10.0),
        Kind("blackhole", ("way to a provider",), 2.0, 10.0),
        Kind("reset", ("way to a provider",), 1.0, 1.0),
        Kind("slow", ("way to a provider",), 5.0, 15.0),
        Kind("lock", ("database",), 2.0, 8.0),
    ]
    if can_fake_time():
        kinds += [Kind("jump", clocks, 5.0, 20.0), Kind("step", clocks, 10.0, 25.0)]
    if world.site.database.server is not None:
        kinds += [
            Kind("kill", ("database",), 2.0, 12.0),
            Kind("freeze", ("database",), 2.0, 20.0),
            Kind("cut", ("database",), 4.0, 10.0),
        ]
    if world.disk is not None:
        kinds.append(Kind("fill", ("database",), 4.0, 15.0))
    return kinds


def make_fault(world: World, kind: str, target: str, random: Random) -> Fault:
    """Return a fault that is ready to happen."""
    what, _, name = target.partition(" ")
    if what in ("gateway", "clock"):
        jumps = _JUMPS if world.site.database.server is not None else _JUMPS_ALONE
        return _make_of_gateway(world.keepers[name], kind, random, jumps)
    if what == "redis":
        return _make_of_redis(world, kind)
    if what == "provider":
        return Simple(
            lambda: world.site.signal_provider(signal.SIGSTOP),
            lambda: world.site.signal_provider(signal.SIGCONT),
        )
    if what == "way":
        return _make_of_way(world.far, kind)
    return _make_of_database(world, kind, random)


def _make_of_gateway(keeper: Keeper, kind: str, random: Random, jumps: Sequence[int]) -> Fault:
    jump = random.choice(jumps)
    faults: dict[str, Callable[[], Fault]] = {
        "kill": lambda: Simple(keeper.kill, keeper.want),
        "freeze": lambda: Simple(keeper.freeze, keeper.thaw),
        "restart": lambda: Simple(keeper.stop_in_order, keeper.want),
        "jump": lambda: Simple(lambda: keeper.shift_clock(jump), lambda: keeper.shift_clock(0)),
        "step": lambda: SteppingClock(keeper, random, jumps),
    }
    return faults[kind]()


def _make_of_redis(world: World, kind: str) -> Fault:
    process = world.redis.process

    def start_another() -> None:
        world.redis = RedisServer.start(world.redis.directory, world.redis.port)

    if kind == "kill":
        return Simple(world.redis.stop, start_another)
    if kind == "freeze":
        return Simple(
            lambda: process.send_signal(signal.SIGSTOP), lambda: process.send_signal(signal.SIGCONT)
        )
    return Simple(world.redis.empty, lambda: None)


def _make_of_way(way: ChaosProxy, kind: str) -> Fault:
    def slow_down(seconds: float) -> None:
        way.latency_seconds = seconds

    faults = {
        "cut": Simple(way.cut, way.heal),
        "blackhole": Simple(way.blackhole, way.heal),
        "reset": Simple(way.reset, way.heal),
        "slow": Simple(lambda: slow_down(0.3), lambda: slow_down(0.0)),
    }
    return faults[kind]


def _make_of_database(world: World, kind: str, random: Random) -> Fault:
    database = world.site.database
    if kind == "lock":
        return DatabaseLocked(database)
    if kind == "fill":
        assert world.disk is not None
        return DiskFull(world.disk, database.server)
    server = world.server
    if kind == "kill":
        return Simple(lambda: server.stop("immediate"), lambda: start_again(server))
    if kind == "cut":
        return ConnectionsCut(server, database.name, random)
    return Simple(
        lambda: server.signal_all(signal.SIGSTOP), lambda: server.signal_all(signal.SIGCONT)
    )


def heal_all(world: World) -> None:
    """Make whole whatever a run that broke off has left harmed."""
    for keeper in world.keepers.values():
        with contextlib.suppress(ProcessLookupError):
            keeper.thaw()
    if world.disk is not None:
        world.disk.free()
    if world.site.database.server is not None and world.server.is_running():
        world.server.signal_all(signal.SIGCONT)
    with contextlib.suppress(ProcessLookupError):
        world.site.signal_provider(signal.SIGCONT)
    world.redis.process.send_signal(signal.SIGCONT)
