"""Backups are whole, as of one moment, and bring everything back, proven (I-74)."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from django.conf import settings as django_settings
from django.core.management import CommandError
from django.db import connection
from pytest_django import Settings

from apps.audit.models import AdminEvent, APIRequest
from apps.billing.anchors import append_anchor, read_anchors
from apps.billing.ledger.store import Engine
from apps.billing.models import Account, Hold, VerifiedHead
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
from tests.support.databases import Database, TestDatabases
from tests.support.environment import ENCRYPTION_KEY, SECRET_KEY
from tests.support.tampering import Tamper
from tests.support.world import Gateway

ROOT = Path(__file__).resolve().parents[3]
Connect = Callable[[], Engine]


def test_a_backup_brings_everything_back_proven(original: Original, elsewhere: Elsewhere) -> None:
    wallet_id = original.installation.gateway.world.wallet_id
    before = Account.objects.get(pk=wallet_id)
    calls = set(APIRequest.objects.values_list("pk", "hash"))
    with elsewhere():
        said = restore(original.backup)

        after = Account.objects.get(pk=wallet_id)
        assert (after.posted_nanos, after.held_nanos) == (before.posted_nanos, before.held_nanos)
        assert set(APIRequest.objects.values_list("pk", "hash")) == calls
        assert said.splitlines()[-1] == (
            "verified everything: 10 entries, 4 requests, 2 anchors: clean"
        )
        assert findings() == []


def test_what_ran_or_waited_then_is_ended_by_the_next_start(
    original: Original, elsewhere: Elsewhere
) -> None:
    with elsewhere() as database:
        restore(original.backup)
        kit.start_again(database)

        ended = dict(APIRequest.objects.values_list("pk", "state"))
        assert Hold.objects.count() == 0
        assert ended[original.installation.running.request_id] == "interrupted"
        assert ended[original.installation.journalled.request_id] == "completed"
        charged = APIRequest.objects.get(
            pk=original.installation.journalled.request_id
        ).charge_nanos
        assert charged == 4_000
        assert findings() == []


def test_what_is_journalled_before_the_moment_of_the_backup_is_in_it(
    installation: Installation, elsewhere: Elsewhere, target: Path
) -> None:
    late = kit.hold(installation.gateway, 5_000)

    with anchors_path().open("ab") as signing, ThreadPoolExecutor(1) as pool:
        fcntl.flock(signing, fcntl.LOCK_EX)  # The backup waits for who signs.
        running = pool.submit(back_up, target)
        for _ in range(400):
            if kit.is_journal_kept(installation.data_dir):
                break
            time.sleep(0.01)
        kit.settle_on_disk(installation.gateway, installation.data_dir, late, 3)
        fcntl.flock(signing, fcntl.LOCK_UN)
        running.result(20)

    with elsewhere() as database:
        restore(target)
        kit.start_again(database)
        assert APIRequest.objects.get(pk=late.request_id).charge_nanos == 3_000
        assert findings() == []


def test_what_is_in_the_database_and_in_the_journal_is_settled_once(
    installation: Installation, elsewhere: Elsewhere, target: Path
) -> None:
    wallet_id = installation.gateway.world.wallet_id
    installation.gateway.resolve(installation.journalled, 4)
    before = Account.objects.get(pk=wallet_id).posted_nanos
    back_up(target)

    with elsewhere() as database:
        restore(target)
        kit.start_again(database)

        assert APIRequest.objects.get(pk=installation.journalled.request_id).charge_nanos == 4_000
        assert Account.objects.get(pk=wallet_id).posted_nanos == before
        assert findings() == []


@pytest.mark.sqlite
def test_a_path_may_hold_signs_that_urls_give_a_meaning(
    original: Original, test_databases: TestDatabases, elsewhere: Elsewhere, target: Path
) -> None:
    odd = Database("sqlite", str(target.parent.with_name("a?b#c%20d e.sqlite3")))
    test_databases.adopt(odd)
    with closing(original.database.connect()) as source, closing(odd.connect()) as copy:
        source.backup(copy)

    with test_databases.selected(odd):
        back_up(target)

    with elsewhere():
        assert restore(target).splitlines()[-1].endswith("clean")


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


def test_more_open_calls_than_findings_are_kept_do_not_hide_that_all_is_well(
    installation: Installation,
    elsewhere: Elsewhere,
    target: Path,
    committed_db: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("apps.billing.findings.FINDINGS_MAX", 3)
    for _ in range(3):
        kit.hold(installation.gateway, 1_000)
    raw = committed_db.connect()
    raw.execute("UPDATE billing_incarnation SET expires_at = '2020-01-01 00:00:00+00'")
    raw.close()
    back_up(target)

    with elsewhere():
        said = restore(target)

    assert "5 calls were running then: the next start ends them" in said
    assert said.splitlines()[-1].endswith("clean")


def test_a_hold_whose_owner_does_not_exist_is_a_fault(
    installation: Installation, elsewhere: Elsewhere, target: Path, committed_db: Database
) -> None:
    Tamper(committed_db).run("UPDATE billing_hold SET incarnation_id = 99")
    back_up(target)

    with elsewhere(), pytest.raises(SystemExit):
        restore(target)


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
    original: Original, target: Path
) -> None:
    back_up(target)

    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert list(target.parent.iterdir()) == [target]
    event = AdminEvent.objects.filter(action="backup.made").latest("pk")
    assert event.after is not None
    assert event.after["file"] == "backup.tar.gz"


@pytest.mark.parametrize("options", [(), ("--with-secrets",)])
def test_secrets_are_in_a_backup_only_if_asked_for(
    original: Original, target: Path, options: tuple[str, ...]
) -> None:
    said = back_up(target, *options)

    with tarfile.open(target) as archive:
        names = archive.getnames()
        everything = b"".join(archive.extractfile(name).read() for name in names)  # type: ignore[union-attr]  # files only
    assert (SECRET_KEY.encode() in everything) == bool(options)
    assert (ENCRYPTION_KEY.encode() in everything) == bool(options)
    assert ("secrets.env" in names) == bool(options)
    assert ("in clear: whoever has it has everything" in said) == bool(options)


def test_an_existing_file_is_never_overwritten(original: Original, target: Path) -> None:
    target.write_bytes(b"the only good backup")

    with pytest.raises(CommandError, match="never overwritten"):
        back_up(target)

    assert target.read_bytes() == b"the only good backup"


@pytest.mark.parametrize("lines", [0, 1])
def test_anchors_that_end_before_the_database_says_are_refused(
    installation: Installation, target: Path, tmp_path: Path, settings: Settings, lines: int
) -> None:
    whole = anchors_path().read_bytes().splitlines(keepends=True)
    settings.DATA_DIR = tmp_path / "of another host"
    if lines:
        anchors_path().parent.mkdir(parents=True)
        anchors_path().write_bytes(b"".join(whole[:lines]))

    with pytest.raises(CommandError, match="Run this where DATA_DIR is the worker's"):
        back_up(target)

    assert list(target.parent.iterdir()) == []
    assert anchors_path().exists() == bool(lines)
    assert not AdminEvent.objects.filter(action="backup.made").exists()


def test_anchors_of_another_installation_are_refused(
    installation: Installation, target: Path
) -> None:
    VerifiedHead.objects.filter(chain="anchor").update(head=bytes(32))

    with pytest.raises(CommandError, match="does not end with anchor 2"):
        back_up(target)

    assert list(target.parent.iterdir()) == []


def test_an_anchor_that_the_database_could_not_note_any_more_goes_along(
    installation: Installation, elsewhere: Elsewhere, target: Path
) -> None:
    first = next(read_anchors(anchors_path()))
    VerifiedHead.objects.filter(chain="anchor").update(sequence=1, head=first.digest)

    back_up(target)

    with elsewhere():
        assert restore(target).splitlines()[-1].endswith("2 anchors: clean")


def manage(*command: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
    """Run a program in a process of its own, with this test's settings."""
    return subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "DATA_DIR": str(django_settings.DATA_DIR), **variables},
        capture_output=True,
        timeout=60,
        check=False,
    )


def test_a_disk_that_is_full_leaves_no_file(original: Original, target: Path) -> None:
    backup = f"{sys.executable} manage.py backup {target} --pg-bin {kit.pg_bin()}"

    # Blocks of 1024 bytes: less than any database has.
    ended = manage(
        "bash", "-c", f"ulimit -f 100; exec {backup}", DATABASE_URL=original.database.url
    )

    assert ended.returncode == 1
    assert b"Traceback" not in ended.stderr
    assert list(target.parent.iterdir()) == []


def test_a_database_without_tables_is_told_in_one_line(
    nowhere: Callable[[], AbstractContextManager[Database]], target: Path
) -> None:
    with nowhere() as empty:
        ended = manage(
            *(sys.executable, "manage.py", "backup", str(target), "--pg-bin", str(kit.pg_bin())),
            DATABASE_URL=empty.url,
        )

    assert ended.returncode == 2
    assert ended.stderr.count(b"\n") == 1
    assert ended.stderr.endswith(b"Run manage.py migrate first.\n")
    assert list(target.parent.iterdir()) == []


@pytest.mark.postgres
def test_a_death_in_the_middle_leaves_no_file_under_the_name(
    original: Original, target: Path, tmp_path: Path
) -> None:
    program = kit.write_program(tmp_path, "pg_dump", "kill -9 $PPID")

    ended = manage(
        *(sys.executable, "manage.py", "backup", str(target), "--pg-bin", str(program.parent)),
        DATABASE_URL=original.database.url,
    )

    assert ended.returncode == -9
    assert not target.exists()
    assert all(path.name.startswith(".backup.tar.gz.") for path in target.parent.iterdir())


@pytest.mark.postgres
def test_a_password_is_no_argument_of_a_program_and_no_part_of_its_complaint(
    original: Original, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    password = "canary-of-the-database-77"
    monkeypatch.setitem(connection.settings_dict, "PASSWORD", password)
    connection.close()
    program = kit.write_program(
        tmp_path,
        "pg_dump",
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
    original: Original, target: Path, tmp_path: Path
) -> None:
    with pytest.raises(CommandError, match="postgresql-client"):
        kit.run("backup", target, "--pg-bin", tmp_path)

    assert list(target.parent.iterdir()) == []
