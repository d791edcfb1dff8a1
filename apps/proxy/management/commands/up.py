"""`manage.py up`: everything the embedded default needs, under one supervisor."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from typing import Any, Final

from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser
from django.db import connections

from apps.billing.restore_marker import refuse_unfinished_restore
from apps.proxy import first_run, installation
from apps.proxy.supervisor import Program, Supervisor

# The embedded default may call providers on this machine, the demo provider first of all.
_LOOPBACK: Final = "127.0.0.0/8,[::1]"
_READY_SECONDS_MAX: Final = 120.0
_PROBE_SECONDS: Final = 2.0
# A verification of everything takes one of them for long.
_WORKER_THREADS: Final = 4


class Command(BaseCommand):
    """Prepares the installation, then runs gateways, worker and demo provider."""

    help = "Run the gateway with all it needs until Ctrl-C."
    # Checks and migrations are seen to below, before anything serves.
    requires_migrations_checks = False

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the command's arguments."""
        parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
        parser.add_argument("--port", type=int, help="port to listen on (default: PORT)")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run until a signal, then end with the supervisor's status."""
        refuse_unfinished_restore()
        host, port = options["host"], options["port"] or settings.ENVIRONMENT.port
        # Whatever is made from here on, by the programs too, is for the operator's eyes only.
        os.umask(0o077)
        lock = installation.lock_data_dir(settings.DATA_DIR)
        listener = installation.listen(host, port)
        reached = "127.0.0.1" if host in ("0.0.0.0", "::") else host  # noqa: S104  Compared only.
        url = f"http://[{reached}]:{port}" if ":" in reached else f"http://{reached}:{port}"
        with installation.sole_setup():
            demo_port = self._set_up(url)
        # The programs have connections of their own; this process needs none from here on.
        connections.close_all()
        supervisor = Supervisor(_programs(listener, demo_port), say=self._say)

        async def announce() -> None:
            if await _wait_until_ready(reached, port):
                self._welcome(url)
            else:
                self._say("The gateway is not ready yet; see the lines above.")

        try:
            status = asyncio.run(supervisor.run(announce))
        finally:
            listener.close()
            os.close(lock)
        sys.exit(status)

    def _set_up(self, url: str) -> int | None:
        """Bring the installation up to date and return the demo provider's port."""
        if installation.migrate_if_needed():
            self._say("The database has been migrated.")
        if installation.collect_static_if_stale():
            self._say("The static files have been collected.")
        first_run.perform_first_run(
            wishes=first_run.read_wishes(demo_port=installation.take_free_port()),
            url=url,
            data_dir=settings.DATA_DIR,
        )
        return self._choose_demo_port()

    def _choose_demo_port(self) -> int | None:
        port = first_run.find_demo_port()
        if port is None or installation.is_port_free(port):
            return port
        if installation.is_demo_provider(port):
            self._say(f"A demo provider already answers on port {port}; it is used.")
            return None
        moved = installation.take_free_port()
        first_run.move_demo_provider(port=moved)
        return moved

    def _welcome(self, url: str) -> None:
        credentials = first_run.find_credentials(data_dir=settings.DATA_DIR, url=url)
        if credentials is None:
            self._say(f"Serving on {url}; the database already had users.")
            return
        first_run.write_credentials(credentials, data_dir=settings.DATA_DIR)
        self._say(
            f"\nServing. Ctrl-C stops. Sign in at {url}/admin/\n\n{first_run.render(credentials)}\n"
            f"Kept in {settings.DATA_DIR / first_run.FILE_NAME}"
        )

    def _say(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()


def _programs(listener: socket.socket, demo_port: int | None) -> list[Program]:
    """Return what runs: gateways, one worker with beat, and the demo provider if there is one."""
    upstreams = os.environ.get("PRIVATE_UPSTREAMS", "")
    environment = {
        **os.environ,
        "PRIVATE_UPSTREAMS": f"{upstreams},{_LOOPBACK}" if upstreams else _LOOPBACK,
        "PYTHONUNBUFFERED": "1",
    }
    manage = (sys.executable, str(settings.BASE_DIR / "manage.py"))
    gateways = [
        Program(
            name=f"gateway {number}",
            command=(*manage, "serve", "--fd", str(listener.fileno())),
            environment=environment,
            directory=settings.BASE_DIR,
            file_descriptors=(listener.fileno(),),
            # SIGTERM lets it settle what it is doing, even if the supervisor was killed.
            death_signal=signal.SIGTERM,
            stop_seconds=settings.DRAIN_SECONDS,
            is_essential=True,
        )
        for number in range(1, settings.ENVIRONMENT.workers + 1)
    ]
    worker = Program(
        name="worker",
        command=_worker_command(),
        environment=environment,
        directory=settings.BASE_DIR,
        stop_rank=1,
    )
    if demo_port is None:
        return [*gateways, worker]
    # It ends after the gateways, so that their last streams can.
    demo = Program(
        name="demo provider",
        command=(sys.executable, "-m", "apps.providers.demo", "--port", str(demo_port)),
        environment=environment,
        directory=settings.BASE_DIR,
        stop_rank=1,
        is_silent=True,
    )
    return [demo, *gateways, worker]


def _worker_command() -> tuple[str, ...]:
    return (
        sys.executable,
        # Running as root is the operator's choice; pickled messages, the danger, are refused.
        "-W",
        "ignore:You're running the worker with superuser privileges",
        *("-m", "celery", "--quiet", "-A", "auditing", "worker", "-B", "--pool=threads"),
        *("--concurrency", str(_WORKER_THREADS)),
        *("--without-gossip", "--without-mingle", "--without-heartbeat"),
    )


async def _wait_until_ready(host: str, port: int) -> bool:
    """Return whether the gateway said that it is ready, within a bound."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _READY_SECONDS_MAX
    while loop.time() < deadline:
        try:
            async with asyncio.timeout(_PROBE_SECONDS):
                if await _is_ready(host, port):
                    return True
        except (OSError, TimeoutError, ValueError):
            pass
        await asyncio.sleep(0.05)
    return False


async def _is_ready(host: str, port: int) -> bool:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return b" 200 " in await reader.readline()
    finally:
        writer.close()
