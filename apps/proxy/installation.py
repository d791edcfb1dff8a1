"""What `manage.py up` needs before anything runs: its lock, its socket, the database, static files.

State lives in DATA_DIR only; the collected static files beside the code are derived from it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import http.client
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from django.conf import settings
from django.contrib.staticfiles.finders import get_finders
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

_BACKLOG: Final = 2048
# Any number, the same in all gateways: only one at a time migrates a shared database.
_ADVISORY_LOCK: Final = 7_270_418_002
_SETUP_WAIT_SECONDS_MAX: Final = 300.0
_DEMO_PROBE_SECONDS: Final = 1.0
# Another value has all collected anew: for what changes how files are kept, and not what they are.
_STATIC_KEPT: Final = b"readable by all"


def lock_data_dir(data_dir: Path) -> int:
    """Take the lock of `data_dir` and return its descriptor, held until the process ends.

    Raises ImproperlyConfigured when another process has it, or it cannot be made.
    """
    path = data_dir / "up.lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise ImproperlyConfigured(f"{path} cannot be opened: {error.strerror}.") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.read(descriptor, 32).decode(errors="replace").strip()
        os.close(descriptor)
        raise ImproperlyConfigured(
            f"A gateway already runs on DATA_DIR {data_dir} (process {holder}); "
            "stop it, or set another DATA_DIR and PORT."
        ) from error
    # Who has it is of use to an operator, and no reason not to start on a full disk.
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
    return descriptor


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket, given to every gateway process.

    Raises ImproperlyConfigured when the port is taken or may not be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        # At once: without it two processes may both bind the port and only one serves.
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise ImproperlyConfigured(
                f"PORT {port} is in use; stop what listens there, or set another PORT."
            ) from error
        raise ImproperlyConfigured(
            f"Cannot listen on {host} port {port}: {error.strerror}."
        ) from error
    return listener


@contextmanager
def sole_setup() -> Iterator[None]:
    """Let one gateway at a time set up a shared database; SQLite has one gateway by rule."""
    if connection.vendor != "postgresql":
        yield
        return
    deadline = time.monotonic() + _SETUP_WAIT_SECONDS_MAX
    while not _try_advisory_lock():
        if time.monotonic() > deadline:
            raise ImproperlyConfigured("Another gateway has been migrating the database too long.")
        # Tried again and again: a waiting lock would run into the connection's lock_timeout.
        time.sleep(0.2)
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_unlock(%s)", [_ADVISORY_LOCK])


def _try_advisory_lock() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s)", [_ADVISORY_LOCK])
        return bool(cursor.fetchone()[0])


def migrate_if_needed() -> bool:
    """Apply the migrations that are missing and return whether there were any."""
    executor = MigrationExecutor(connection)
    if not executor.migration_plan(executor.loader.graph.leaf_nodes()):
        return False
    call_command("migrate", interactive=False, verbosity=0)
    return True


def collect_static_if_stale() -> bool:
    """Collect the static files if any of them changed and return whether they were collected."""
    stamp = Path(settings.STATIC_ROOT) / ".collected"
    signature = _static_signature()
    if stamp.exists() and stamp.read_text() == signature:
        return False
    Path(settings.STATIC_ROOT).mkdir(parents=True, exist_ok=True)
    # Cleared first: else a file stays whose source changed within a second or became an older one.
    call_command("collectstatic", interactive=False, verbosity=0, clear=True)
    stamp.write_text(signature)
    return True


def _static_signature() -> str:
    digest = hashlib.sha256(_STATIC_KEPT)
    for finder in get_finders():
        for name, storage in finder.list([]):
            found = os.stat(storage.path(name))
            digest.update(f"{name} {found.st_size} {found.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def is_port_free(port: int) -> bool:
    """Return whether the loopback port can be listened on."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def take_free_port() -> int:
    """Return a loopback port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_demo_provider(port: int) -> bool:
    """Return whether a demo provider answers on the loopback port."""
    caller = http.client.HTTPConnection("127.0.0.1", port, timeout=_DEMO_PROBE_SECONDS)
    try:
        caller.request("GET", "/v1/models", headers={"Authorization": "Bearer probe"})
        answer = json.loads(caller.getresponse().read(65_536))
        return any(model["id"] == "demo-chat" for model in answer["data"])
    except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError):
        return False
    finally:
        caller.close()
