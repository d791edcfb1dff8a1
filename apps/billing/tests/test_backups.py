"""Backups are whole, as of one moment, and bring everything back, proven (I-74)."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import connection

from apps.audit.models import AdminEvent, APIRequest
from apps.billing.anchors import append_anchor
from apps.billing.findings import Finding
from apps.billing.ledger.store import Engine
from apps.billing.models import Account, Hold
from apps.billing.tests import backup_kit as kit
from apps.billing.tests.backup_kit import Installation
from apps.billing.verification import anchors_path, report
from apps.core.crypto import key_id, parse_encryption_keys
from apps.users.models import Session
from apps.users.tokens import open_session
from tests.support.databases import Database, TestDatabases
from tests.support.environment import ENCRYPTION_KEY, SECRET_KEY
from tests.support.tampering import Tamper
from tests.support.world import Gateway, make_world

ROOT = Path(__file__).resolve().parents[3]
Connect = Callable[[], Engine]
Elsewhere = Callable[[], AbstractContextManager[Database]]


@pytest.fixture
def installation(ledger_connect: Connect, data_dir: Path) -> Installation:
    """An installation with history."""
    return kit.furnish(Gateway(make_world(), ledger_connect()), data_dir)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Where the backup goes."""
    folder = tmp_path / "backups"
    folder.mkdir()
    return folder / "backup.tar.gz"


@pytest.fixture
def elsewhere(
    installation: Installation, test_databases: TestDatabases, tmp_path: Path
) -> Callable[[], AbstractContextManager[Database]]:
    """Return what lets Django use an empty installation for a while."""
    return partial(kit.empty_installation, test_databases, tmp_path)


def back_up(target: Path, *options: str) -> str:
    return kit.run("backup", target, "--pg-bin", kit.pg_bin(), *options)


def restore(target: Path) -> str:
    return kit.run("restore", target, "--pg-bin", kit.pg_bin())


def findings() -> list[Finding]:
    found = report(is_full=True, anchors_path=anchors_path(), now=datetime.now(UTC))
    return list(found.findings)


def test_a_backup_brings_everything_back_proven(
    installation: Installation, elsewhere: Elsewhere, target: Path
) -> None:
    wallet_id = installation.gateway.world.wallet_id
    before = Account.objects.get(pk=wallet_id)
    calls = set(APIRequest.objects.values_list("pk", "hash"))
    back_up(target)

    with elsewhere():
        said = restore(target)

        after = Account.objects.get(pk=wallet_id)
        assert (after.posted_nanos, after.held_nanos) == (before.posted_nanos, before.held_nanos)
        assert set(APIRequest.objects.values_list("pk", "hash")) == calls
        assert said.splitlines()[-1] == (
            "verified everything: 10 entries, 4 requests, 2 anchors: clean"
        )
        assert findings() == []


def test_what_ran_or_waited_then_is_ended_by_the_next_start(
    installation: Installation, elsewhere: Elsewhere, target: Path
) -> None:
    back_up(target)

    with elsewhere() as database:
        restore(target)
        kit.start_again(database)

        ended = dict(APIRequest.objects.values_list("pk", "state"))
        assert Hold.objects.count() == 0
        assert ended[installation.running.request_id] == "interrupted"
        assert ended[installation.journalled.request_id] == "completed"
        charged = APIRequest.objects.get(pk=installation.journalled.request_id).charge_nanos
        assert charged == 4_000
        assert findings() == []


def test_holds_that_nobody_owns_any_more_are_no_fault_of_the_backup(
    installation: Installation, elsewhere: Elsewhere, target: Path, committed_db: Database
) -> None:
    raw = committed_db.connect()
    raw.execute("UPDATE billing_incarnation SET expires_at = '2020-01-01 00:00:00+00'")
    raw.close()
    back_up(target)

    with elsewhere():
        said = restore(target)

    assert "2 calls were running then: the next start ends them" in said
    assert said.splitlines()[-1].endswith("clean")


def test_a_backup_while_calls_are_settled_and_heads_are_signed_is_of_one_moment(
    installation: Installation, elsewhere: Elsewhere, target: Path, ledger_connect: Connect
) -> None:
    other = Gateway(installation.gateway.world, ledger_connect())
    is_done, trouble = threading.Event(), []

    def settle() -> None:
        try:
            while not is_done.wait(0.002):
                other.resolve(kit.hold(other, 5_000), 1)
        except Exception as error:  # noqa: BLE001 (told to the test's own thread)
            trouble.append(error)

    def sign() -> None:
        while not is_done.wait(0.02):
            append_anchor(anchors_path(), datetime.now(UTC))

    threads = [threading.Thread(target=settle), threading.Thread(target=sign)]
    for thread in threads:
        thread.start()
    try:
        for number in range(2):
            back_up(target.with_name(f"{number}.tar.gz"))
    finally:
        is_done.set()
        for thread in threads:
            thread.join(20)

    assert trouble == []
    assert APIRequest.objects.count() > 4
    with elsewhere():
        assert restore(target.with_name("1.tar.gz")).splitlines()[-1].endswith("clean")


def test_only_its_owner_reads_a_backup_and_nothing_else_is_left(
    installation: Installation, target: Path
) -> None:
    back_up(target)

    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert list(target.parent.iterdir()) == [target]
    event = AdminEvent.objects.get(action="backup.made")
    assert event.after is not None
    assert event.after["file"] == "backup.tar.gz"


@pytest.mark.parametrize("options", [(), ("--with-secrets",)])
def test_secrets_are_in_a_backup_only_if_asked_for(
    installation: Installation, target: Path, options: tuple[str, ...]
) -> None:
    said = back_up(target, *options)

    with tarfile.open(target) as archive:
        names = archive.getnames()
        everything = b"".join(archive.extractfile(name).read() for name in names)  # type: ignore[union-attr]  # files only
    assert (SECRET_KEY.encode() in everything) == bool(options)
    assert (ENCRYPTION_KEY.encode() in everything) == bool(options)
    assert ("secrets.env" in names) == bool(options)
    assert ("in clear: whoever has it has everything" in said) == bool(options)


def test_sessions_of_the_backup_are_ended(
    installation: Installation, elsewhere: Elsewhere, target: Path
) -> None:
    open_session(user=installation.gateway.world.user, request=None)
    back_up(target)

    with elsewhere():
        restore(target)

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


def test_a_database_with_tables_is_never_overwritten(
    installation: Installation, target: Path
) -> None:
    back_up(target)

    with pytest.raises(CommandError, match="The database is not empty"):
        restore(target)

    assert findings() == []
    with pytest.raises(CommandError):
        call_command("restore", str(target), "--force")


def test_what_an_installation_before_has_left_is_not_overwritten(
    installation: Installation, elsewhere: Elsewhere, target: Path
) -> None:
    back_up(target)

    with elsewhere():
        anchors_path().parent.mkdir(parents=True)
        anchors_path().write_bytes(b"evidence\n")
        with pytest.raises(CommandError, match="Move it away and keep it"):
            restore(target)

        assert anchors_path().read_bytes() == b"evidence\n"
        assert connection.introspection.table_names() == []


def test_other_keys_are_refused_before_anything_changes(
    installation: Installation,
    elsewhere: Elsewhere,
    target: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    back_up(target)
    first = key_id(parse_encryption_keys(ENCRYPTION_KEY)[0])

    with elsewhere():
        monkeypatch.setattr(settings, "ENCRYPTION_KEY", "ab" * 32)
        check_refused(target, f"encryption key {first}, which is not in ENCRYPTION_KEY")
        monkeypatch.setattr(settings, "ENCRYPTION_KEY", "ab" * 32 + "," + ENCRYPTION_KEY)
        monkeypatch.setattr(settings, "SECRET_KEY", "another-" + SECRET_KEY)
        check_refused(target, "made with another SECRET_KEY")


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
    installation: Installation, elsewhere: Elsewhere, target: Path
) -> None:
    back_up(target)
    whole = target.read_bytes()

    with elsewhere():
        for change, reason in DAMAGES.values():
            target.write_bytes(whole)
            rewrite(target, change)
            check_refused(target, reason)


def test_a_cut_backup_is_refused(
    installation: Installation, elsewhere: Elsewhere, target: Path
) -> None:
    back_up(target)
    whole = target.read_bytes()

    with elsewhere():
        for length in (0, 100, len(whole) // 2, len(whole) - 5_000):
            target.write_bytes(whole[:length])
            check_refused(target, "backup")


def test_an_existing_file_is_never_overwritten(installation: Installation, target: Path) -> None:
    target.write_bytes(b"the only good backup")

    with pytest.raises(CommandError, match="never overwritten"):
        back_up(target)

    assert target.read_bytes() == b"the only good backup"


def manage(*command: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
    """Run a program in a process of its own, with this test's settings."""
    return subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "DATA_DIR": str(settings.DATA_DIR), **variables},
        capture_output=True,
        timeout=60,
        check=False,
    )


def test_a_disk_that_is_full_leaves_no_file(
    installation: Installation, target: Path, committed_db: Database
) -> None:
    backup = f"{sys.executable} manage.py backup {target} --pg-bin {kit.pg_bin()}"

    # Blocks of 1024 bytes: less than any database has.
    ended = manage("bash", "-c", f"ulimit -f 100; exec {backup}", DATABASE_URL=committed_db.url)

    assert ended.returncode == 1
    assert b"Traceback" not in ended.stderr
    assert list(target.parent.iterdir()) == []


@pytest.mark.postgres
def test_a_death_in_the_middle_leaves_no_file_under_the_name(
    installation: Installation, target: Path, committed_db: Database, tmp_path: Path
) -> None:
    program = write_program(tmp_path, "kill -9 $PPID")

    ended = manage(
        *(sys.executable, "manage.py", "backup", str(target), "--pg-bin", str(program.parent)),
        DATABASE_URL=committed_db.url,
    )

    assert ended.returncode == -9
    assert not target.exists()
    assert all(path.name.startswith(".backup.tar.gz.") for path in target.parent.iterdir())


def write_program(folder: Path, *lines: str) -> Path:
    path = folder / "bin" / "pg_dump"
    path.parent.mkdir()
    path.write_text("\n".join(["#!/bin/bash", *lines]))
    path.chmod(0o755)
    return path


@pytest.mark.postgres
def test_a_password_is_no_argument_of_a_program_and_no_part_of_its_complaint(
    installation: Installation, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    password = "canary-of-the-database-77"
    monkeypatch.setitem(connection.settings_dict, "PASSWORD", password)
    connection.close()
    program = write_program(
        tmp_path,
        f"tr '\\0' ' ' < /proc/$$/cmdline > {tmp_path}/arguments",
        f"env > {tmp_path}/variables",
        f"echo 'password {password} is wrong' >&2; exit 1",
    )

    with pytest.raises(CommandError) as raised:
        kit.run("backup", target, "--pg-bin", program.parent)

    variables = (tmp_path / "variables").read_text()
    assert str(raised.value) == "pg_dump failed: password [redacted] is wrong"
    assert f"PGPASSWORD={password}" in variables
    assert SECRET_KEY not in variables
    assert password not in (tmp_path / "arguments").read_text()


@pytest.mark.postgres
def test_without_the_programs_of_postgresql_it_says_what_to_install(
    installation: Installation, target: Path, tmp_path: Path
) -> None:
    with pytest.raises(CommandError, match="postgresql-client"):
        kit.run("backup", target, "--pg-bin", tmp_path)

    assert list(target.parent.iterdir()) == []
