"""What `manage.py up` prepares before anything runs."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import connection, connections
from pytest_django.fixtures import Settings

from apps.proxy import installation
from tests.support.databases import Database


@pytest.fixture
def static_root(tmp_path: Path, settings: Settings) -> Path:
    """Give this test one source of static files and a root of its own."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "app.css").write_text("body {}")
    settings.STATICFILES_DIRS = [source]
    settings.STATICFILES_FINDERS = ["django.contrib.staticfiles.finders.FileSystemFinder"]
    settings.STATIC_ROOT = tmp_path / "collected"
    settings.STORAGES = {
        **settings.STORAGES,
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    }
    return tmp_path / "collected"


def test_a_data_dir_has_one_gateway(tmp_path: Path) -> None:
    installation.lock_data_dir(tmp_path)

    with pytest.raises(ImproperlyConfigured, match="already runs on DATA_DIR"):
        installation.lock_data_dir(tmp_path)


def test_a_data_directory_that_takes_no_lock_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "up.lock").mkdir()

    with pytest.raises(ImproperlyConfigured) as raised:
        installation.lock_data_dir(tmp_path)

    assert str(raised.value) == f"{tmp_path / 'up.lock'} cannot be opened: Is a directory."


def test_a_port_that_is_listened_on_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        with pytest.raises(ImproperlyConfigured, match=f"PORT {port} is in use"):
            installation.listen("127.0.0.1", port)
        assert not installation.is_port_free(port)


def test_a_socket_listens_as_soon_as_it_is_made() -> None:
    port = installation.take_free_port()

    with installation.listen("127.0.0.1", port), socket.create_connection(("127.0.0.1", port)):
        assert not installation.is_port_free(port)


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(ImproperlyConfigured, match=r"Cannot listen on 192\.0\.2\.1"):
        installation.listen("192.0.2.1", 9)


def test_static_files_are_collected_when_they_changed_and_only_then(
    static_root: Path, tmp_path: Path
) -> None:
    assert installation.collect_static_if_stale()
    assert (static_root / "app.css").read_text() == "body {}"
    assert not installation.collect_static_if_stale()

    (tmp_path / "source" / "app.css").write_text("body { margin: 0 }")

    assert installation.collect_static_if_stale()
    assert (static_root / "app.css").read_text() == "body { margin: 0 }"


@pytest.mark.django_db
def test_a_migrated_database_is_left_alone() -> None:
    assert not installation.migrate_if_needed()


@pytest.mark.postgres
def test_one_gateway_at_a_time_sets_up_a_shared_database(committed_db: Database) -> None:
    other = connections.create_connection("default")
    with installation.sole_setup(), other.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(7270418002)")
        assert cursor.fetchone() == (False,)

    with other.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(7270418002)")
        assert cursor.fetchone() == (True,)
    other.close()
    assert connection.vendor == "postgresql"


def test_what_is_not_a_demo_provider_is_not_taken_for_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert not installation.is_demo_provider(silent.getsockname()[1])
    assert not installation.is_demo_provider(installation.take_free_port())
