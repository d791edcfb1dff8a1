"""What processes tell each other of trouble with providers, on a real database."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest
from django.db import DatabaseError, connection

from apps.providers.credentials import add_key
from apps.providers.models import Provider, ProviderKey
from apps.providers.tests.listener import Listener, response
from apps.proxy import tasks
from apps.proxy.checks import check_provider, list_due_providers
from apps.proxy.health import Health
from apps.proxy.models import CircuitRest
from apps.proxy.rests import Rest, database_now, prune_rests, read_rests, write_rests
from apps.proxy.sharing import Sharing
from apps.proxy.snapshot import Credential
from apps.proxy.tests.values import ROUTE
from tests.support.databases import Database

DOOR = (ROUTE.id, 0)
OTHER = (99, 0)
SECRET = "sk-provider-0123456789"


class Process:
    """One of several that share."""

    def __init__(self) -> None:
        self.health = Health()
        self.ahead = 0.0  # seconds of its clock
        self.sharing = Sharing(self.health, lambda: time.monotonic() + self.ahead)
        # One that was in trouble itself listens on SQLite, too.
        self.health.circuits.fail(OTHER, 0.0, begun=0.0)

    def open(self, seconds: float = 30.0) -> None:
        """Open the circuit of the route."""
        for _ in range(5):
            self.health.circuits.fail(DOOR, time.monotonic(), begun=time.monotonic())
        self.sharing.note_rest(ROUTE, DOOR, reason="upstream_error", seconds=seconds, openings=1)

    @property
    def is_open(self) -> bool:
        """Whether the route is passed over."""
        return self.health.circuits.is_open(DOOR, time.monotonic())


@pytest.fixture
def pair(committed_db: Database) -> Iterator[tuple[Process, Process]]:
    """Give two processes on one database."""
    both = Process(), Process()
    yield both
    for one in both:
        one.sharing.close()


def _exchange(*processes: Process) -> None:
    """Let each have its turn."""
    for process in processes:
        asyncio.run(process.sharing.exchange())


@contextmanager
def _away(table: str) -> Iterator[None]:
    """Take a table away for a while."""
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {table} RENAME TO elsewhere")
        yield
        cursor.execute(f"ALTER TABLE elsewhere RENAME TO {table}")


def test_a_rest_is_adopted_by_others_and_its_end_as_well(
    pair: tuple[Process, Process],
) -> None:
    mine, other = pair
    mine.open()
    _exchange(mine, other)
    assert (mine.is_open, other.is_open) == (True, True)

    now = time.monotonic()
    mine.sharing.note_ends([DOOR])
    assert mine.health.circuits.succeed(DOOR, now, begun=now)
    _exchange(mine, other)

    assert (mine.is_open, other.is_open) == (False, False)
    # To the other one it is no proof: its next call is a probe.
    other.health.circuits.begin(DOOR, time.monotonic())
    assert other.is_open


def test_what_a_process_learns_after_it_adopted_a_rest_counts_for_more(
    pair: tuple[Process, Process],
) -> None:
    mine, other = pair
    mine.open()
    _exchange(mine, other)
    now = time.monotonic()
    other.health.circuits.succeed(DOOR, now, begun=now)

    _exchange(other)

    assert not other.is_open


def test_without_the_table_everybody_goes_on_alone_and_tells_it_later(
    pair: tuple[Process, Process],
) -> None:
    mine, other = pair
    mine.open()

    with _away("proxy_circuitrest"), pytest.raises(DatabaseError):
        _exchange(mine)
    assert mine.is_open

    _exchange(mine, other)
    assert other.is_open


def test_what_is_told_later_is_what_is_left_of_a_rest(pair: tuple[Process, Process]) -> None:
    mine, _ = pair
    mine.open(60.0)
    mine.sharing.note_rest(ROUTE, OTHER, reason="upstream_error", seconds=30.0, openings=1)
    with _away("proxy_circuitrest"), pytest.raises(DatabaseError):
        _exchange(mine)

    mine.ahead = 40.0
    _exchange(mine)

    (seen,) = read_rests()
    assert seen.door == DOOR
    assert 15 < seen.seconds_left <= 20


def test_a_rest_that_was_over_before_it_was_told_hides_none_of_another_process(
    pair: tuple[Process, Process],
) -> None:
    mine, other = pair
    mine.sharing.note_rest(ROUTE, DOOR, reason="upstream_error", seconds=30.0, openings=1)
    other.open(100.0)
    _exchange(other)

    mine.ahead = 40.0
    _exchange(mine)

    assert mine.is_open
    (seen,) = read_rests()
    assert seen.seconds_left > 60


def test_a_bad_key_is_reported_when_the_database_takes_it_and_holds_until_then(
    pair: tuple[Process, Process],
) -> None:
    mine, other = pair
    key = _make_key()
    for one in pair:
        one.health.note_bad(Credential(id=key.pk, weight=1, secret=SECRET), "E42")

    with _away("providers_providerkey"), pytest.raises(DatabaseError):
        _exchange(mine)
    assert mine.sharing.count_unreported() == 1

    _exchange(mine, other)
    assert mine.sharing.count_unreported() == other.sharing.count_unreported() == 0
    (bad,) = mine.health.bad_keys
    assert bad.version is not None
    assert bad.version > 0
    key.refresh_from_db()
    assert key.disabled_reason == "balance"


def _make_key(base_url: str = "https://api.example.com/v1") -> ProviderKey:
    provider = Provider.objects.create(name="somewhere", base_url=base_url)
    return add_key(provider=provider, secret=SECRET)


# ---- the table and its checks


def _write(provider_id: int, *, seconds: float = 200.0, openings: int = 3) -> CircuitRest:
    write_rests(begun=[Rest(DOOR, provider_id, "upstream_error", seconds, openings)], ended=[])
    return CircuitRest.objects.get()


@pytest.mark.django_db
def test_a_rest_is_one_row_a_door_and_is_read_while_it_lasts() -> None:
    _write(1, openings=1)
    row = _write(1, seconds=60.0, openings=2)

    (seen,) = read_rests()

    assert (seen.door, seen.openings, seen.began_at) == (DOOR, 2, row.began_at)
    assert 55 < seen.seconds_left <= 60

    write_rests(begun=[], ended=[DOOR])

    assert read_rests() == []
    assert CircuitRest.objects.count() == 1
    assert prune_rests(now=database_now()) == 0
    assert prune_rests(now=database_now() + timedelta(hours=2)) == 1


@pytest.mark.django_db
def test_a_check_that_succeeds_ends_the_rests_of_the_provider() -> None:
    with Listener(response()) as listener:
        provider = _make_key(listener.base_url).provider
        row = _write(provider.pk)
        assert list_due_providers(now=row.began_at + timedelta(seconds=59)) == []
        later = row.began_at + timedelta(seconds=61)
        assert list_due_providers(now=later) == [provider]

        assert check_provider(provider=provider, now=later)
        assert not check_provider(provider=provider, now=later)

        assert listener.connections == 1
    row.refresh_from_db()
    assert (row.ends_at, row.failed_checks) == (later, 1)


@pytest.mark.django_db
def test_a_check_that_fails_leaves_the_rest_and_waits_twice_as_long() -> None:
    with Listener(response(b"{}", "500 Oops")) as listener:
        provider = _make_key(listener.base_url).provider
        row = _write(provider.pk, seconds=300.0)
        later = row.began_at + timedelta(seconds=61)

        assert not check_provider(provider=provider, now=later)

    row.refresh_from_db()
    assert row.ends_at == row.began_at + timedelta(seconds=300)
    assert row.next_check_at == later + timedelta(seconds=120)


@pytest.mark.django_db
def test_a_rest_that_the_provider_asked_for_is_not_checked() -> None:
    with Listener(response()) as listener:
        provider = _make_key(listener.base_url).provider
        row = _write(provider.pk, openings=0)
        later = row.began_at + timedelta(seconds=100)

        assert list_due_providers(now=later) == []
        assert not check_provider(provider=provider, now=later)
        assert listener.connections == 0


@pytest.mark.django_db
def test_the_task_asks_the_providers_that_are_due() -> None:
    with Listener(response()) as listener:
        provider = _make_key(listener.base_url).provider
        _write(provider.pk)
        CircuitRest.objects.update(next_check_at=database_now())

        assert [tasks.check_resting(), tasks.check_resting()] == [1, 0]
        assert listener.connections == 1
