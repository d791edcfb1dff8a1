"""Tests of the control plane's bounds: who gets in, and what is said to the others."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from pytest_django import Settings

from auditing import control_plane
from auditing.control_plane import ControlPlane, Shares


async def test_an_address_waits_for_its_own_and_for_nobody_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(control_plane, "WAIT_SECONDS", 0.05)
    shares = Shares(2)
    async with shares.one_of("192.0.2.1"), shares.one_of("192.0.2.1"):
        async with shares.one_of("192.0.2.2"):
            pass

        with pytest.raises(Exception, match="Too much is asked for at once"):
            async with shares.one_of("192.0.2.1"):
                pass


async def test_a_place_that_is_given_back_goes_to_who_waits() -> None:
    shares = Shares(1)
    order: list[int] = []

    async def take(number: int) -> None:
        async with shares.one_of("192.0.2.1"):
            order.append(number)
            await asyncio.sleep(0)

    await asyncio.gather(*(take(number) for number in range(5)))

    assert order == [0, 1, 2, 3, 4]


class _Client:
    """A connection whose client takes nothing."""

    is_dropped = False

    def drop(self) -> None:
        """Remember it."""
        self.is_dropped = True

    async def take(self, message: object) -> None:
        """Take for ever."""
        await asyncio.Event().wait()


async def test_a_client_that_takes_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_plane, "SEND_SECONDS", 0.05)
    client = _Client()
    application = ControlPlane(_answer_something)
    scope = {
        "path": "/api/user/profile/",
        "headers": [],
        "client": ("192.0.2.1", 1),
        "extensions": {"gateway.connection": client},
    }

    await application(scope, asyncio.Event().wait, client.take)  # type: ignore[arg-type]  # never called

    assert client.is_dropped


async def _answer_something(scope: object, receive: object, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})


async def test_nothing_is_kept_of_addresses_that_have_gone() -> None:
    shares = Shares(1)

    for number in range(100):
        async with shares.one_of(f"192.0.2.{number}"):
            pass

    assert shares.addresses == 0


async def told_at_the_end(
    application: Callable[..., Awaitable[None]],
    receive: Callable[[], Awaitable[Any]],
    begun: asyncio.Event,
) -> list[Any]:
    """Return what is said to a client whose gateway ends meanwhile; what follows comes to it."""
    said: list[Any] = []

    async def send(message: Any) -> None:
        said.append(message)

    scope = {"path": "/api/user/profile/", "headers": [], "client": ("192.0.2.1", 1)}
    call = asyncio.create_task(ControlPlane(application)(scope, receive, send))
    await begun.wait()
    await asyncio.sleep(0.05)
    call.cancel("timeout graceful shutdown exceeded")
    await call
    return said


async def test_a_page_that_the_end_of_the_gateway_does_not_wait_for_is_answered_and_forgotten() -> (
    None
):
    begun, left = asyncio.Event(), asyncio.Event()
    tasks: list[asyncio.Task[None]] = []

    async def hang(scope: object, receive: Any, send: Any) -> None:
        """Do as Django does: listen, and work in a task of its own that nobody ends."""

        async def listen() -> None:
            await receive()
            raise RuntimeError("told that the client has left")

        async def work() -> None:
            await left.wait()
            await send({"type": "http.response.start", "status": 200, "headers": []})

        tasks.extend([asyncio.create_task(listen()), asyncio.create_task(work())])
        begun.set()
        await asyncio.wait(tasks)

    async def receive() -> dict[str, Any]:
        await left.wait()
        return {"type": "http.disconnect"}

    said = await told_at_the_end(hang, receive, begun)
    left.set()
    await asyncio.wait(tasks)

    assert [message.get("status") for message in said] == [503, None]
    assert b"service_restarting" in said[1]["body"]
    assert [task.cancelled() for task in tasks] == [True, True]


async def test_an_answer_that_waits_to_give_its_connection_back_has_not_begun() -> None:
    released = threading.Event()
    begun = asyncio.Event()
    tasks: list[asyncio.Future[Any]] = []

    async def answer(scope: object, receive: Any, send: Any) -> None:
        """Answer while another request's statement keeps the thread."""

        async def work() -> None:
            begun.set()
            headers = [(b"content-length", b"2")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b"ok"})

        tasks.append(asyncio.ensure_future(sync_to_async(released.wait)(10)))
        tasks.append(asyncio.create_task(work()))
        await asyncio.wait(tasks)

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    said = await told_at_the_end(answer, receive, begun)
    released.set()
    await asyncio.wait(tasks)

    assert [message.get("status") for message in said] == [503, None]
    assert b"service_restarting" in said[1]["body"]
    assert tasks[1].cancelled()


CONSOLE = "https://console.example.com"


async def _refusal(
    path: str = "/api/auth/login/",
    *,
    origin: str = CONSOLE,
    charset: bytes = b"",
    body: bytes = b"",
) -> tuple[int, dict[str, str]]:
    """Return status and headers of what never gets into Django; no body never comes."""
    said: list[Any] = []

    async def receive() -> dict[str, Any]:
        if not body:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": body, "more_body": True}

    async def send(message: Any) -> None:
        said.append(message)

    headers = [(b"origin", origin.encode()), (b"content-length", b"9")]
    if charset:
        headers.append((b"content-type", b"application/json; charset=" + charset))
    scope = {"path": path, "headers": headers, "client": ("192.0.2.1", 1)}
    await ControlPlane(_answer_something)(scope, receive, send)
    told = {name.decode(): value.decode() for name, value in said[0]["headers"]}
    return said[0]["status"], told


async def test_pages_of_a_configured_origin_can_read_why_they_did_not_get_in(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.CORS_ALLOWED_ORIGINS = [CONSOLE]
    monkeypatch.setattr(control_plane, "BODY_SECONDS", 0.01)
    monkeypatch.setattr(control_plane, "BODY_BYTES_MAX", 4)
    monkeypatch.setattr(control_plane, "WAIT_SECONDS", 0.01)

    refusals = [await _refusal(), await _refusal(body=b"12345"), await _refusal(charset=b"utf-7")]
    monkeypatch.setattr(control_plane, "OPEN_PER_ADDRESS_MAX", 0)
    refusals.append(await _refusal())

    assert [status for status, _ in refusals] == [408, 413, 415, 503]
    for _, told in refusals:
        assert told["access-control-allow-origin"] == CONSOLE
        assert told["access-control-allow-credentials"] == "true"
        assert told["access-control-expose-headers"] == (
            "allow, content-disposition, retry-after, x-request-id"
        )
        assert told["cross-origin-resource-policy"] == "cross-origin"
        assert told["vary"] == "Origin"


async def test_nobody_else_can_read_why(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.CORS_ALLOWED_ORIGINS = [CONSOLE]
    monkeypatch.setattr(control_plane, "BODY_SECONDS", 0.01)

    _, of_another = await _refusal(origin="https://evil.example.net")
    _, of_the_admin = await _refusal("/admin/login/")

    assert not [name for name in (*of_another, *of_the_admin) if name.startswith("access-control")]
    assert of_another["vary"] == "Origin"
    assert "vary" not in of_the_admin
