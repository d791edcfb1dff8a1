"""The environment of the tests: one directory for a session, fixed secrets, the engine asked for.

All processes of a session (the workers of pytest-xdist too) share the directory; it is named by a
variable that they inherit. Nothing here may import Django before `prepare` has run.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ENGINES = ("sqlite", "postgres")
SECRET_KEY = "only-for-tests-7f3kq0v9x2m5w8z1c4b6n0d3g5h7j9l2"
ENCRYPTION_KEY = "dGVzdHMtb25seS1lbmNyeXB0aW9uLWtleS0zMi1ieXQ="
PRIVATE_UPSTREAMS = "127.0.0.0/8,[::1]"

# Databases are durable in every test, and the product refuses them otherwise: their syncs cost
# nothing here. Containers may have too little of it.
_MEMORY = Path("/dev/shm")  # noqa: S108  # mkdtemp makes a directory of its own
_MEMORY_BYTES_MIN = 2 << 30
_PREFIX = "auditing-tests-"
# Held as long as the session lives; a session is not taken for dead while it may be starting.
_ALIVE = "alive.lock"
_STARTING_SECONDS = 3_600

_SESSION_VARIABLE = "AUDITING_TEST_SESSION"
# Names every setting, as `auditing/tests/test_environment.py` sees to.
_EXAMPLE = Path(__file__).resolve().parents[2] / ".env.example"
_NAME = re.compile(r"^#?([A-Z_]+)=", re.MULTILINE)


def is_xdist_worker() -> bool:
    """Return whether this process runs tests for another one that started it."""
    return "PYTEST_XDIST_WORKER" in os.environ


def worker_name() -> str:
    """Return a name that no other process of this session has."""
    return os.environ.get("PYTEST_XDIST_WORKER", "main")


def session_directory() -> Path:
    """Return the directory that all processes of this session share."""
    return Path(os.environ[_SESSION_VARIABLE])


def is_in_memory() -> bool:
    """Return whether the session's directory is kept in memory, where nothing waits for a disk."""
    return session_directory().parent == _MEMORY


def prepare(engine: str, *, on_disk: bool = False) -> None:
    """Make the session's directory and set every variable that the settings read.

    The directory is in memory where there is room, unless it is to be on the disk.
    """
    _keep_bytecode()
    if not is_xdist_worker():
        remove_abandoned(_MEMORY)
        os.environ[_SESSION_VARIABLE] = tempfile.mkdtemp(
            prefix=_PREFIX, dir=None if on_disk else _find_memory()
        )
        _stay_alive()
    data_dir = session_directory() / f"data-{worker_name()}"
    data_dir.mkdir(mode=0o700, exist_ok=True)
    urls = {
        "sqlite": f"sqlite:///{session_directory() / 'not-made-yet.sqlite3'}",
        "postgres": "postgresql://postgres@127.0.0.1:1/not_made_yet",
    }
    # What a developer's shell or the checkout's .env file sets must not decide what a test sees:
    # empty and not absent, or the file would fill it.
    for name in _NAME.findall(_EXAMPLE.read_text()):
        os.environ[name] = ""
    os.environ.update(
        DATA_DIR=str(data_dir),
        DATABASE_URL=urls[engine],
        SECRET_KEY=SECRET_KEY,
        ENCRYPTION_KEY=ENCRYPTION_KEY,
        PRIVATE_UPSTREAMS=PRIVATE_UPSTREAMS,
        DJANGO_SETTINGS_MODULE="auditing.settings",
    )
    _forget_settings()


def remove() -> None:
    """Delete the session's directory; only the process that made it may."""
    shutil.rmtree(session_directory(), ignore_errors=True)
    del os.environ[_SESSION_VARIABLE]


@contextmanager
def session_lock(name: str) -> Iterator[None]:
    """Let one process of the session at a time run what is inside."""
    with (session_directory() / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _find_memory() -> Path | None:
    """Return a folder in memory with room for the databases of a session."""
    try:
        has_room = shutil.disk_usage(_MEMORY).free >= _MEMORY_BYTES_MIN
    except OSError:
        return None
    return _MEMORY if has_room and os.access(_MEMORY, os.W_OK) else None


def _stay_alive() -> None:
    """Hold a lock until this process ends."""
    descriptor = os.open(session_directory() / _ALIVE, os.O_CREAT | os.O_RDWR, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)


def remove_abandoned(folder: Path) -> None:
    """Give back the memory of sessions that were killed before they could."""
    for lock in folder.glob(f"{_PREFIX}*/{_ALIVE}"):
        try:
            is_old = lock.stat().st_mtime < time.time() - _STARTING_SECONDS
            with lock.open("r+") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            continue  # It lives, has gone, or is somebody else's.
        if is_old:
            shutil.rmtree(lock.parent, ignore_errors=True)


def _keep_bytecode() -> None:
    """Have modules compiled once, whatever the shell wishes, and not by every process started."""
    sys.dont_write_bytecode = False
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def _forget_settings() -> None:
    """Have the settings read again, and no connection remember the ones read before.

    pytest-django reads them before any conftest is imported when its configuration names a settings
    module, and then from the developer's environment: from the developer's database, too.
    """
    if "django.conf" not in sys.modules:
        return
    from django.conf import settings
    from django.db import connections
    from django.utils.functional import empty

    if not settings.configured:
        return
    for connection in connections.all(initialized_only=True):
        connection.close()
        del connections[connection.alias]
    connections.__dict__.pop("settings", None)
    connections._settings = None  # type: ignore[attr-defined]  # where Django keeps what it was given
    sys.modules.pop("auditing.settings", None)
    sys.modules.pop("auditing.environment", None)
    settings._wrapped = empty
    # Values once read are cached beside the wrapped object.
    for name in [name for name in settings.__dict__ if name != "_wrapped"]:
        del settings.__dict__[name]
    # The token library keeps the key of the moment when it was imported, in two places.
    key = settings.SIMPLE_JWT["SIGNING_KEY"]
    if library := sys.modules.get("rest_framework_simplejwt.settings"):
        library.api_settings.SIGNING_KEY = key
    if tokens := sys.modules.get("rest_framework_simplejwt.state"):
        tokens.token_backend.signing_key = key
    if str(session_directory()) not in str(settings.DATA_DIR):
        raise RuntimeError("The settings still name a DATA_DIR outside the test session.")
