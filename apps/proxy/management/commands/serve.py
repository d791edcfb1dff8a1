"""`manage.py serve`: one gateway process for both planes."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import sqlite3
import sys
from argparse import ArgumentParser
from pathlib import Path
from types import FrameType
from typing import IO, Any

import psycopg
import uvicorn
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand
from django.db import connection
from django.utils.module_loading import import_string

from apps.billing.connections import connect
from apps.proxy.protocol import GatewayProtocol

# How long a thread may keep the interpreter while another waits. The ledger's thread needs it
# shortly
# and often; the default of 5 ms would add as much to every commit under load.
SWITCH_INTERVAL_SECONDS = 0.0005
BACKLOG = 4_096
KEEP_ALIVE_SECONDS = 75


class _Server(uvicorn.Server):
    """Tells the gateway at once when it has to stop."""

    def __init__(self, config: uvicorn.Config, gateway: Any) -> None:
        super().__init__(config)
        self._gateway = gateway
        self._loop: Any = None

    async def startup(self, sockets: Any = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._gateway.begin_drain)


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
        logging.captureWarnings(True)  # Every line on stderr is a line of the log.
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
        _Server(config, application.data_plane.gateway).run()
        if lock is not None:
            lock.close()

    def _check_durability(self) -> None:
        """Refuse a database that could forget a commit; one that is away is waited for later."""
        try:
            engine = connect()
        except (psycopg.Error, sqlite3.Error):
            return
        try:
            weakness = engine.check_durability()
        finally:
            engine.close()
        if weakness:
            raise ImproperlyConfigured(weakness)

    def _lock_database(self) -> IO[bytes] | None:
        """Take the lock that makes this the only gateway on an SQLite database."""
        if connection.vendor != "sqlite":
            return None
        path = Path(f"{connection.settings_dict['NAME']}.gateway-lock")
        lock = path.open("ab")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ImproperlyConfigured(
                "another gateway uses this SQLite database; use PostgreSQL for more than one."
            ) from error
        return lock
