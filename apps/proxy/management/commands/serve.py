"""`manage.py serve`: one gateway process for both planes."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import resource
import socket
import sqlite3
import sys
import warnings
from argparse import ArgumentParser
from contextlib import closing, suppress
from pathlib import Path
from types import FrameType
from typing import IO, Any

import psycopg
import uvicorn
from django.conf import settings
from django.contrib.staticfiles.storage import ManifestStaticFilesStorage
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand
from django.db import connection
from django.utils.module_loading import import_string

from apps.billing.connections import connect
from apps.billing.restore_marker import refuse_unfinished_restore
from apps.proxy.gateway import Gateway
from apps.proxy.protocol import DrainableState, GatewayProtocol
from apps.proxy.standstill import StandstillWatch

# How long a thread may keep the interpreter while another waits. The ledger's thread gets it anyway
# between two callbacks of the event loop: forcing that more often cost streams a tenth of their
# calls, and with the default of 5 ms the loop would wait as long for the thread.
SWITCH_INTERVAL_SECONDS = 0.002
BACKLOG = 4_096
# How many connections are taken in one turn of the event loop, at least. Libuv takes one for each
# descriptor that listens: with one, a gateway whose turns take 30 ms took 60 a second.
ACCEPTED_A_TURN = 16
KEEP_ALIVE_SECONDS = 75
# After how long a client that acknowledges nothing (no power, no network) or takes nothing is given
# up. The kernel would go on for a quarter of an hour, and the provider with it.
SILENT_SECONDS = 60

logger = logging.getLogger(__name__)


class Server(uvicorn.Server):
    """Ends without a call being refused that somebody else could take.

    It stops listening at once, so that who connects is sent elsewhere, but goes on answering on
    the connections that are open: a proxy may just be sending a request there. Their answers say
    that the connection closes; after a moment the idle ones are closed.
    """

    def __init__(self, config: uvicorn.Config, gateway: Gateway) -> None:
        super().__init__(config)
        self.server_state: DrainableState = DrainableState()
        self._gateway = gateway
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        listening = [one.fileno() for server in self.servers for one in server.sockets]
        for descriptor in listening:
            _give_up_the_silent(descriptor)
        for descriptor in listening * (ACCEPTED_A_TURN - 1):
            again = socket.socket(fileno=os.dup(descriptor))
            self.servers.append(
                await self._loop.create_server(self._make_protocol, sock=again, backlog=BACKLOG)
            )

    async def main_loop(self) -> None:
        StandstillWatch(asyncio.get_running_loop()).start()
        await super().main_loop()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._begin_drain)

    def _begin_drain(self) -> None:
        self.server_state.is_draining = True
        self._gateway.begin_drain()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._begin_drain()
        await self._stop_listening()
        until = self._gateway.monotonic() + self._gateway.grace_seconds
        while self.server_state.connections and self._gateway.monotonic() < until:  # noqa: ASYNC110 (bounded, once in a life)
            await asyncio.sleep(0.02)
        self._gateway.close()
        await super().shutdown(sockets)

    async def _stop_listening(self) -> None:
        """Stop listening, and take the connections that had been made by then.

        The kernel resets those that nobody took; a proxy cannot send a POST again that it has
        sent on one of them.
        """
        # A socket that was inherited goes on listening elsewhere.
        listening = (
            []
            if self.config.fd is not None
            else [
                socket.socket(fileno=os.dup(one.fileno()))
                for server in self.servers
                for one in server.sockets
            ]
        )
        for server in self.servers:
            server.close()
        accepted = [one for listener in listening for one in _accept_all(listener)]
        loop = asyncio.get_running_loop()
        for one in accepted:
            with suppress(OSError):  # It has gone again.
                await loop.connect_accepted_socket(self._make_protocol, one)

    def _make_protocol(self) -> asyncio.Protocol:
        return GatewayProtocol(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )


def _accept_all(listener: socket.socket) -> list[socket.socket]:
    """Accept what waits, and close the listener."""
    accepted: list[socket.socket] = []
    with listener:
        listener.setblocking(False)
        with suppress(BlockingIOError):
            while len(accepted) < BACKLOG:
                accepted.append(listener.accept()[0])
    return accepted


def _give_up_the_silent(descriptor: int) -> None:
    """Have the kernel end connections whose other end is silent; who is accepted inherits it."""
    with socket.socket(fileno=os.dup(descriptor)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        # Linux has these; where they are missing its defaults hold.
        for name, value in {
            "TCP_KEEPIDLE": max(1, SILENT_SECONDS // 3),
            "TCP_KEEPINTVL": max(1, SILENT_SECONDS // 9),
            "TCP_KEEPCNT": 6,
            "TCP_USER_TIMEOUT": SILENT_SECONDS * 1000,
        }.items():
            if hasattr(socket, name):
                listener.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _raise_descriptor_limit() -> None:
    """Allow as many open connections as this user may have: a stream takes two."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def warn_without_static_files() -> None:
    """Say that pages cannot be shown, and what to do: else it is told by a traceback a page."""
    if not (Path(settings.STATIC_ROOT) / ManifestStaticFilesStorage.manifest_name).exists():
        logger.warning(
            "the static files are not collected, so /admin/ answers 500:"
            " run manage.py collectstatic --noinput"
        )
    # WhiteNoise would say the half of it.
    warnings.filterwarnings("ignore", "No directory at")


class Command(BaseCommand):
    """Serves until SIGTERM or SIGINT; then running calls get DRAIN_SECONDS."""

    help = "Run one gateway process (client API and control plane)."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take where to listen."""
        parser.add_argument("--host", default="127.0.0.1")
        parser.add_argument("--port", type=int, default=None)
        parser.add_argument("--fd", type=int, default=None, help="a listening socket to inherit")

    def handle(self, *args: Any, **options: Any) -> None:
        """Serve."""
        refuse_unfinished_restore()
        _raise_descriptor_limit()
        logging.captureWarnings(True)  # Every line on stderr is a line of the log.
        # Static files are read so, whole and small; what streams here is asynchronous.
        warnings.filterwarnings(
            "ignore", "StreamingHttpResponse must consume synchronous iterators"
        )
        warn_without_static_files()
        lock = self._lock_database()
        self._check_durability()
        sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
        application = import_string(settings.ASGI_APPLICATION)
        config = uvicorn.Config(
            application,
            host=options["host"],
            port=options["port"] if options["port"] is not None else settings.ENVIRONMENT.port,
            fd=options["fd"],
            http=GatewayProtocol,
            ws="none",
            loop="uvloop",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=int(settings.DRAIN_SECONDS) + 3,
        )
        Server(config, application.data_plane.gateway).run()
        if lock is not None:
            lock.close()

    def _check_durability(self) -> None:
        """Refuse a database that could forget a commit; one that is away is waited for later."""
        try:
            with closing(connect()) as engine:
                weakness = engine.check_durability()
        except (psycopg.Error, sqlite3.Error):
            return
        if weakness:
            raise ImproperlyConfigured(weakness)

    def _lock_database(self) -> IO[bytes] | None:
        """Take the lock that makes this the only gateway on an SQLite database."""
        if connection.vendor != "sqlite":
            return None
        path = Path(f"{connection.settings_dict['NAME']}.gateway-lock")
        try:
            lock = path.open("ab")
        except OSError as error:
            raise ImproperlyConfigured(
                f"DATABASE_URL: {path.parent} cannot be used: {error.strerror}."
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ImproperlyConfigured(
                "another gateway uses this SQLite database; use PostgreSQL for more than one."
            ) from error
        return lock
