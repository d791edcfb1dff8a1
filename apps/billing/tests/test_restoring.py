"""Restores refuse what does not fit before anything changes, and end what they have begun."""

from __future__ import annotations

import fcntl
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.db import connection

from apps.audit.models import AdminEvent
from apps.billing.archives import read_manifest
from apps.billing.backups import encryption_keys
from apps.billing.restore_marker import (
    Beginning,
    describe_beginning,
    refuse_unfinished_restore,
    write_marker,
)
from apps.billing.tests import backup_kit as kit
from apps.billing.tests.backup_kit import (
    Elsewhere,
    Installation,
    Original,
    back_up,
    findings,
    restore,
)
from apps.billing.verification import anchors_path
from apps.core.crypto import key_id, parse_encryption_keys
from apps.users.models import Session
from tests.support.databases import Database
from tests.support.environment import ENCRYPTION_KEY, SECRET_KEY
from tests.support.tampering import Tamper


def test_sessions_of_the_backup_are_ended(original: Original, elsewhere: Elsewhere) -> None:
    with elsewhere():
        restore(original.backup)

        assert Session.objects.filter(ended_at=None).count() == 0
        event = AdminEvent.objects.get(action="backup.restored")
        assert event.after is not None
        assert event.after["sessions_ended"] == 1


def test_an_older_backup_is_migrated_forward(
    installation: Installation, elsewhere: Elsewhere, target: Path
) -> None:
    call_command("migrate", "sessions", "zero", verbosity=0)
    back_up(target)

    with elsewhere():
        said = restore(target)

        assert "django_session" in connection.introspection.table_names()
        assert said.splitlines()[-1].endswith("clean")


def test_a_newer_backup_is_refused(
    installation: Installation, elsewhere: Elsewhere, target: Path, committed_db: Database
) -> None:
    raw = committed_db.connect()
    raw.execute(
        "INSERT INTO django_migrations (app, name, applied) "
        "VALUES ('billing', '9999_later', '2026-01-01 00:00:00+00')"
    )
    raw.close()
    back_up(target)

    with elsewhere():
        check_refused(target, "does not know billing.9999_later")


def test_a_ledger_that_does_not_prove_itself_is_restored_and_reported(
    installation: Installation, elsewhere: Elsewhere, target: Path, committed_db: Database
) -> None:
    wallet_id = installation.gateway.world.wallet_id
    Tamper(committed_db).run(
        f"DELETE FROM billing_entry WHERE sequence = 2 AND account_id = {wallet_id}"  # noqa: S608 (a number)
    )
    back_up(target)

    with elsewhere(), pytest.raises(SystemExit) as raised:
        restore(target)

    assert raised.value.code == 1


def check_refused(target: Path, reason: str) -> None:
    """Restoring is refused for a reason, and nothing has changed."""
    with pytest.raises(CommandError) as raised:
        restore(target)
    assert reason in str(raised.value)
    assert connection.introspection.table_names() == []
    assert [path.name for path in Path(settings.DATA_DIR).rglob("*") if path.is_file()] == []


def test_a_database_with_tables_is_never_overwritten(original: Original) -> None:
    with pytest.raises(CommandError, match="The database is not empty"):
        restore(original.backup)

    assert findings() == []
    with pytest.raises(CommandError):
        call_command("restore", str(original.backup), "--force")


def test_what_an_installation_before_has_left_is_not_overwritten(
    original: Original, nowhere: Elsewhere
) -> None:
    with nowhere():
        anchors_path().parent.mkdir(parents=True)
        anchors_path().write_bytes(b"evidence\n")
        with pytest.raises(CommandError, match="Move it away and keep it"):
            restore(original.backup)

        assert anchors_path().read_bytes() == b"evidence\n"
        assert connection.introspection.table_names() == []


def test_other_keys_are_refused_before_anything_changes(
    original: Original,
    nowhere: Elsewhere,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = key_id(parse_encryption_keys(ENCRYPTION_KEY)[0])

    with nowhere():
        monkeypatch.setattr(settings, "ENCRYPTION_KEY", "ab" * 32)
        check_refused(original.backup, f"encryption key {first}, which is not in ENCRYPTION_KEY")
        monkeypatch.setattr(settings, "ENCRYPTION_KEY", "ab" * 32 + "," + ENCRYPTION_KEY)
        monkeypatch.setattr(settings, "SECRET_KEY", "another-" + SECRET_KEY)
        check_refused(original.backup, "made with another SECRET_KEY")


class Death(BaseException):
    """Ends a restore where nothing can tidy up after it."""


def die_instead_of_migrating(*arguments: object, **options: object) -> None:
    raise Death


def test_a_restore_that_died_is_ended_by_running_it_again_and_nothing_serves_before(
    original: Original, elsewhere: Elsewhere, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    back_up(target)

    with elsewhere():
        with monkeypatch.context() as patch:
            patch.setattr("apps.billing.restoring.call_command", die_instead_of_migrating)
            with pytest.raises(Death):
                restore(original.backup)
        sessions = Session.objects.filter(ended_at=None).count()
        for command in ("serve", "up"):
            with pytest.raises(ImproperlyConfigured, match="was begun and has not ended"):
                call_command(command)
        with pytest.raises(CommandError, match="Run it again with the same file"):
            restore(target)
        said = restore(original.backup)

        assert sessions == 1
        assert said.splitlines()[-1] == (
            "verified everything: 10 entries, 4 requests, 2 anchors: clean"
        )
        assert Session.objects.filter(ended_at=None).count() == 0
        assert len(list(Path(settings.DATA_DIR).glob("journal/*.jsonl"))) == 1
        refuse_unfinished_restore()
        with pytest.raises(CommandError, match="The database is not empty"):
            restore(original.backup)


def test_what_was_begun_in_another_database_is_not_ended_in_this_one(
    original: Original, nowhere: Elsewhere
) -> None:
    with nowhere():
        Path(settings.DATA_DIR).mkdir()
        write_marker(Beginning("2026-11-21", "/srv/other.sqlite3", ""))
        with pytest.raises(CommandError, match=r"into /srv/other\.sqlite3 has not ended"):
            restore(original.backup)

        assert connection.introspection.table_names() == []


def test_a_database_that_somebody_has_migrated_meanwhile_is_no_restored_one(
    original: Original, elsewhere: Elsewhere
) -> None:
    with elsewhere():
        Path(settings.DATA_DIR).mkdir()
        write_marker(describe_beginning(read_manifest(original.backup, keys=encryption_keys())))
        call_command("migrate", "contenttypes", verbosity=0)

        with pytest.raises(CommandError, match="somebody has migrated it"):
            restore(original.backup)


@pytest.mark.sqlite
def test_a_gateway_on_the_empty_database_is_not_pushed_aside(
    original: Original, nowhere: Elsewhere
) -> None:
    with nowhere() as database, Path(f"{database.name}.gateway-lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        check_refused(original.backup, "A gateway uses this database")


@pytest.mark.postgres
def test_a_load_that_fails_leaves_nothing(
    original: Original, nowhere: Elsewhere, tmp_path: Path
) -> None:
    program = kit.write_program(tmp_path, "pg_restore", "echo no room >&2; exit 1")

    with nowhere(), pytest.raises(CommandError, match="pg_restore failed: no room"):
        kit.run("restore", original.backup, "--pg-bin", program.parent)

    assert [path for path in (tmp_path / "restored").rglob("*") if path.is_file()] == []


def rewrite(target: Path, change: Callable[[str, bytes], bytes]) -> None:
    """Put a backup together again with other contents."""
    aside = target.with_suffix(".new")
    with tarfile.open(target) as old, tarfile.open(aside, "w:gz") as new:
        for member in old:
            file = old.extractfile(member)
            assert file is not None
            path = target.parent / "part"
            path.write_bytes(change(member.name, file.read()))
            new.add(path, arcname=member.name)
    aside.replace(target)


def change_manifest(**values: object) -> Callable[[str, bytes], bytes]:
    def change(name: str, data: bytes) -> bytes:
        if name != "manifest.json":
            return data
        outer = json.loads(data)
        outer["manifest"] = json.dumps(json.loads(outer["manifest"]) | values)
        return json.dumps(outer).encode()

    return change


def flip(wanted: str) -> Callable[[str, bytes], bytes]:
    return lambda name, data: (
        data[:-9] + bytes([data[-9] ^ 1]) + data[-8:] if name == wanted else data
    )


DAMAGES: dict[str, tuple[Callable[[str, bytes], bytes], str]] = {
    "database": (flip("database"), "database in the backup is damaged"),
    "anchors": (flip("anchors.jsonl"), "anchors.jsonl in the backup is damaged"),
    "longer": (
        lambda name, data: data + b"x" if name == "database" else data,
        "database in the backup is damaged",
    ),
    "manifest": (change_manifest(version="9"), "manifest was changed: its seal does not match"),
    "no manifest": (
        lambda name, data: b"{}" if name == "manifest.json" else data,
        "manifest cannot be read",
    ),
}


def test_a_damaged_backup_is_refused_before_anything_changes(
    original: Original, nowhere: Elsewhere, target: Path
) -> None:
    whole = original.backup.read_bytes()

    with nowhere():
        for change, reason in DAMAGES.values():
            target.write_bytes(whole)
            rewrite(target, change)
            check_refused(target, reason)


def test_a_cut_backup_is_refused(original: Original, nowhere: Elsewhere, target: Path) -> None:
    whole = original.backup.read_bytes()

    with nowhere():
        for length in (0, 100, len(whole) // 2, len(whole) - 5_000):
            target.write_bytes(whole[:length])
            check_refused(target, "backup")
