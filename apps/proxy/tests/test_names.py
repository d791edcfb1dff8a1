"""Names of providers: looked up once at a time, and what was found last where that is in vain."""

from __future__ import annotations

import socket
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from apps.proxy import names
from apps.proxy.names import Address, AddressRefused, GuardedNames


class Resolver:
    """Stands for the system's: names ending in `silent` wait until the test lets them go."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.address = "192.0.2.1"
        self.is_silent = False
        self.failure = socket.EAI_AGAIN
        self.let_go = threading.Event()

    def __call__(self, host: str, port: int, *_: Any, **__: Any) -> list[Address]:
        """Look a name up."""
        self.asked.append(host)
        if self.is_silent or host.endswith("silent"):
            self.let_go.wait(30)
            raise socket.gaierror(self.failure, "no answer")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (self.address, port))]


@pytest.fixture
async def resolver(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Resolver]:
    made = Resolver()
    monkeypatch.setattr(socket, "getaddrinfo", made)
    monkeypatch.setattr(names, "LATE_SECONDS", 0.02)
    yield made
    made.let_go.set()


async def find(guarded: GuardedNames, host: str) -> str:
    """Return the address of a name."""
    found = await guarded.resolve(host, 443, is_private_only=False)
    return str(found[0][4][0])


async def find_once(resolver: Resolver, monkeypatch: pytest.MonkeyPatch) -> GuardedNames:
    """Find a name that is looked up anew each time, and fails from now on."""
    monkeypatch.setattr(names, "NAME_SECONDS", -1.0)
    guarded = GuardedNames(())
    resolver.address = "93.184.216.34"
    await find(guarded, "good")
    monkeypatch.setattr(names, "LATE_SECONDS", 5.0)
    resolver.is_silent = True
    resolver.let_go.set()
    return guarded


async def test_names_whose_server_is_silent_keep_no_other_waiting(
    resolver: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    guarded = GuardedNames(())
    resolver.address = "93.184.216.34"

    with monkeypatch.context() as hurried:
        hurried.setattr(names, "_DNS_SECONDS", 0.02)
        for number in (*range(10), *range(10)):
            with pytest.raises(TimeoutError):
                await find(guarded, f"{number}.silent")
    found = await find(guarded, "good")

    assert found == "93.184.216.34"
    # However often it was wanted: who comes later waits for what is under way.
    assert len(resolver.asked) == 11


async def test_what_was_found_last_is_used_while_a_look_up_is_late(
    resolver: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(names, "NAME_SECONDS", -1.0)
    guarded = GuardedNames(())
    resolver.address = "93.184.216.34"
    await find(guarded, "good")
    resolver.is_silent = True

    late = [await find(guarded, "good") for _ in range(2)]
    monkeypatch.setattr(names, "LAST_SECONDS", -1.0)
    monkeypatch.setattr(names, "_DNS_SECONDS", 0.02)
    with pytest.raises(TimeoutError):
        await find(guarded, "good")

    assert late == ["93.184.216.34"] * 2
    assert resolver.asked == ["good"] * 2


@pytest.mark.parametrize("failure", [socket.EAI_AGAIN, socket.EAI_FAIL])
async def test_what_was_found_last_is_used_where_a_look_up_fails(
    resolver: Resolver, monkeypatch: pytest.MonkeyPatch, failure: int
) -> None:
    guarded = await find_once(resolver, monkeypatch)
    resolver.failure = failure

    found = await find(guarded, "good")
    monkeypatch.setattr(names, "LAST_SECONDS", -1.0)
    with pytest.raises(socket.gaierror):
        await find(guarded, "good")

    assert found == "93.184.216.34"
    assert resolver.asked == ["good"] * 3


@pytest.mark.parametrize("failure", [socket.EAI_NONAME, socket.EAI_NODATA])
async def test_a_name_that_does_not_exist_any_more_is_not_found(
    resolver: Resolver, monkeypatch: pytest.MonkeyPatch, failure: int
) -> None:
    guarded = await find_once(resolver, monkeypatch)
    resolver.failure = failure

    with pytest.raises(socket.gaierror):
        await find(guarded, "good")


async def test_what_was_found_is_checked_each_time(resolver: Resolver) -> None:
    guarded = GuardedNames(())
    resolver.address = "127.0.0.1"

    for _ in range(2):
        with pytest.raises(AddressRefused):
            await find(guarded, "good")

    assert resolver.asked == ["good"]
