"""What all tests share: the engine they run on, databases, real servers. See tests/support."""

from __future__ import annotations

import gc
import os
import ssl
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, Phase
from hypothesis import settings as hypothesis_settings

from tests.support import environment

if TYPE_CHECKING:
    from pytest_django import DjangoDbBlocker
    from rest_framework.test import APIClient

    from apps.billing.ledger.store import Engine
    from apps.users.models import User
    from tests.support.databases import Database, TestDatabases
    from tests.support.redis import RedisServer

_FLUSHES = (
    "This test wants tables emptied after it (transaction=True, transactional_db, live_server or "
    "TransactionTestCase), which append-only triggers refuse. Use the fixture `committed_db`."
)

# Machines differ: how long an example takes is no verdict.
hypothesis_settings.register_profile(
    "thorough", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
_THOROUGH = hypothesis_settings.get_profile("thorough")
# Examples are other ones each time, and `make test` runs often; `make test-long` tries all 100.
hypothesis_settings.register_profile("tests", _THOROUGH, max_examples=25)
# Where a failure is expected, nobody reads the smallest example.
hypothesis_settings.register_profile("mutants", _THOROUGH, phases=(Phase.explicit, Phase.generate))
hypothesis_settings.load_profile("tests")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that chooses the database."""
    parser.addoption(
        "--engine",
        choices=environment.ENGINES,
        default="sqlite",
        help="the database that tests use",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Set the environment before the settings are read."""
    config.addinivalue_line("markers", "sqlite: runs on SQLite only")
    # What kills, soaks and races takes as long as a disk does.
    is_long = "long" in config.getoption("markexpr")
    environment.prepare(config.getoption("--engine"), on_disk=is_long)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop what was started for the session and remove its files."""
    if environment.is_xdist_worker():
        return
    from tests.support.postgres import stop_session_server

    try:
        stop_session_server()
    finally:
        environment.remove()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what belongs to the other engine, and what is long unless it was asked for.

    Tests without a database run on the first engine only: the second has nothing to add.
    """
    engine = config.getoption("--engine")
    other = "postgres" if engine == "sqlite" else "sqlite"
    left_out = {other} if "long" in config.getoption("markexpr") else {other, "long"}
    deselected = [
        item
        for item in items
        if any(item.get_closest_marker(name) for name in left_out)
        or (engine == "postgres" and not _has_database(item))
    ]
    if deselected:
        config.hook.pytest_deselected(items=deselected)
        left = set(deselected)
        items[:] = [item for item in items if item not in left]


def _has_database(item: pytest.Item) -> bool:
    return (
        "test_databases" in getattr(item, "fixturenames", ())
        or item.get_closest_marker("django_db") is not None
        or item.get_closest_marker("postgres") is not None
    )


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Spare the garbage collector what lives for the whole session."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Refuse tests that would flush."""
    from django.test import TestCase, TransactionTestCase

    marker = item.get_closest_marker("django_db")
    is_transactional = marker is not None and (
        bool(marker.args[:1] and marker.args[0])
        or any(marker.kwargs.get(name) for name in ("transaction", "reset_sequences"))
    )
    flushing = {"transactional_db", "live_server", "django_db_reset_sequences"}
    cls = getattr(item, "cls", None)
    is_flushing_class = isinstance(cls, type) and (
        issubclass(cls, TransactionTestCase) and not issubclass(cls, TestCase)
    )
    if is_transactional or is_flushing_class or flushing & set(getattr(item, "fixturenames", ())):
        pytest.fail(_FLUSHES, pytrace=False)


@pytest.fixture(scope="session")
def engine_name(pytestconfig: pytest.Config) -> str:
    """Name the database that the tests use: sqlite or postgres."""
    return str(pytestconfig.getoption("--engine"))


@pytest.fixture(scope="session")
def test_databases(engine_name: str) -> TestDatabases:
    """Make databases for this process."""
    from tests.support.databases import TestDatabases

    return TestDatabases(engine_name)


@pytest.fixture(scope="session")
def django_db_setup(
    test_databases: TestDatabases, django_test_environment: None, django_db_blocker: DjangoDbBlocker
) -> Iterator[None]:
    """Give this process its own database for tests that roll back, from the template."""
    with django_db_blocker.unblock():
        database = test_databases.clone(f"rollback_{environment.worker_name()}")
        with test_databases.selected(database), django_db_blocker.block():
            yield
        test_databases.drop(database)


@pytest.fixture
def db(_django_db_helper: None, test_databases: TestDatabases) -> Iterator[None]:
    """Allow the database in this test and roll back what it does."""
    with test_databases.rolling_back():
        yield


@pytest.fixture
def root(db: None) -> User:
    """Make an administrator."""
    from tests.support.people import make_admin

    return make_admin(username="root", email="root@example.com")


@pytest.fixture
def client(root: User) -> APIClient:
    """Return a REST client of the administrator; tests of pages have browsers of this name."""
    from tests.support.people import rest_client

    return rest_client(root)


@pytest.fixture
def committed_db(
    request: pytest.FixtureRequest,
    test_databases: TestDatabases,
    django_db_blocker: DjangoDbBlocker,
) -> Iterator[Database]:
    """Give this test a database of its own, in which it commits for real."""
    if "db" in request.fixturenames or request.node.get_closest_marker("django_db"):
        pytest.fail("`committed_db` and `db` exclude each other.", pytrace=False)
    with django_db_blocker.unblock():
        database = test_databases.clone()
        with test_databases.selected(database):
            yield database
        test_databases.drop(database)


@pytest.fixture(scope="module")
def module_db(
    test_databases: TestDatabases, django_db_blocker: DjangoDbBlocker
) -> Iterator[Database]:
    """Give the tests of a module one database, in which they commit for real."""
    with django_db_blocker.unblock():
        database = test_databases.clone()
        with test_databases.selected(database):
            yield database
        test_databases.drop(database)


@pytest.fixture
def ledger_connect(committed_db: Database) -> Iterator[Callable[[], Engine]]:
    """Return a function that opens one more ledger engine on the test's own database."""
    engines: list[Engine] = []

    def connect() -> Engine:
        engine = committed_db.connect_ledger()
        engines.append(engine)
        return engine

    yield connect
    for engine in engines:
        engine.close()


@pytest.fixture(scope="session")
def _redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    from tests.support.redis import RedisServer, is_installed

    if not is_installed():
        pytest.skip("redis-server is not installed")
    server = RedisServer.start(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture
def redis_url(_redis_server: RedisServer) -> str:
    """Return the URL of a real, empty Redis."""
    import redis

    client = redis.Redis.from_url(_redis_server.url)
    client.flushall()
    client.close()
    return _redis_server.url


@pytest.fixture(autouse=True)
def _leave_nothing_behind() -> Iterator[None]:
    """Let no test see what another one cached, nor speak the language of its last page."""
    from django.core.cache import cache
    from django.utils import translation

    from apps.core.counters import process_counts, redis_breaker

    yield
    cache.clear()
    process_counts.clear()
    redis_breaker.record_success()
    translation.deactivate()


@pytest.fixture(scope="session", autouse=True)
def _quick_settings(
    django_test_environment: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Hash passwords cheaply, and serve static files that need not be built first."""
    from django.conf import settings
    from django.test import override_settings

    root = tmp_path_factory.getbasetemp() / "static"
    root.mkdir(exist_ok=True)
    plain = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
    with override_settings(
        PASSWORD_HASHERS=["tests.support.hasher.QuickArgon2PasswordHasher"],
        STATIC_ROOT=root,
        STORAGES={**settings.STORAGES, "staticfiles": plain},
    ):
        yield


@pytest.fixture(scope="session", autouse=True)
def _one_tls_context() -> Iterator[None]:
    """Have all clients that ask for nothing special share a TLS context.

    An SDK makes one for each client, for which it reads all certificates: that takes longer than
    most calls of the tests, which go to plain HTTP.
    """
    real = ssl.create_default_context

    @cache
    def make(_trusted: str | None, *args: Any, **options: Any) -> ssl.SSLContext:
        return real(*args, **options)

    def find(*args: Any, **options: Any) -> ssl.SSLContext:
        return make(os.environ.get("SSL_CERT_FILE"), *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ssl, "create_default_context", find)
        yield


@pytest.fixture
def data_dir(tmp_path: Path, settings: object) -> Path:
    """Give this test a DATA_DIR of its own."""
    path = tmp_path / "data"
    path.mkdir(mode=0o700)
    settings.DATA_DIR = path  # type: ignore[attr-defined]  # a setting, given by pytest-django
    return path
