"""A gateway's start: how it listens, and a database that goes away meanwhile."""

import asyncio
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import uvicorn
import uvloop
from django.core.management import call_command
from pytest_django import Settings

from apps.billing.connections import connect
from apps.proxy.gateway import Gateway
from apps.proxy.management.commands import serve
from apps.proxy.management.commands.serve import Server
from apps.proxy.protocol import GatewayProtocol


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    """Answer nothing."""


async def count_after(*, turns: int, clients: int) -> int:
    """Connect clients while the loop stands still; return how many are taken some turns later."""
    config = uvicorn.Config(
        nothing, host="127.0.0.1", port=0, http=GatewayProtocol, log_config=None, lifespan="off"
    )
    config.load()
    server = Server(config, Gateway())
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    address = server.servers[0].sockets[0].getsockname()
    with ExitStack() as opened:
        for _ in range(clients):
            opened.enter_context(socket.create_connection(address))
        for _ in range(turns):
            await asyncio.sleep(0)
        taken = len(server.server_state.connections)
    for listener in server.servers:
        listener.close()
    return taken


def test_many_connections_are_taken_in_each_turn() -> None:
    """One in each would be 60 a second where a turn takes 30 ms, as with hundreds of streams."""
    assert uvloop.run(count_after(turns=4, clients=200)) >= 3 * 16


def test_a_database_that_leaves_while_its_durability_is_read_is_waited_for_later(
    committed_db: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    def connect_and_lose() -> Any:
        engine = connect()
        engine.close()
        return engine

    monkeypatch.setattr(serve, "connect", connect_and_lose)

    serve.Command()._check_durability()


def test_a_gateway_without_static_files_says_so_and_what_to_do(
    tmp_path: Path, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "app.css").write_text("body {}")
    settings.STATICFILES_DIRS = [tmp_path / "source"]
    settings.STATICFILES_FINDERS = ["django.contrib.staticfiles.finders.FileSystemFinder"]
    settings.STATIC_ROOT = tmp_path / "collected"
    storage = {"BACKEND": "auditing.static_files.MaplessStorage"}
    settings.STORAGES = {**settings.STORAGES, "staticfiles": storage}

    serve.warn_without_static_files()
    said = caplog.messages.copy()
    call_command("collectstatic", interactive=False, verbosity=0)
    serve.warn_without_static_files()

    assert said == [
        "the static files are not collected, so /admin/ answers 500:"
        " run manage.py collectstatic --noinput"
    ]
    assert caplog.messages == said
