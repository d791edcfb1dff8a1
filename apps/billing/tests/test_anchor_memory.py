"""Verifications of what is new read only new anchors, and hinder nobody who signs (I-69, I-70)."""

from __future__ import annotations

import fcntl
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pytest_django import Settings

from apps.billing.anchor_checks import AnchorMemory, read_promises
from apps.billing.anchors import append_anchor, read_anchors
from apps.billing.findings import Findings
from apps.billing.ledger.commands import Held
from apps.billing.ledger.store import Engine
from apps.billing.models import VerifiedHead
from apps.billing.sealing_keys import vouch_for_anchors
from apps.billing.verification import report
from tests.support.databases import Database
from tests.support.tampering import Tamper
from tests.support.world import NOW, Gateway, make_world

OLD, NEW = "11" * 32, "22" * 32
EDITED = "its signature does not match: it was edited, or not written by this gateway"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the anchors are."""
    return tmp_path / "anchors.jsonl"


@pytest.fixture
def memory(db: None, path: Path) -> AnchorMemory:
    """What is remembered of three sound lines."""
    append(path, 3)
    memory = AnchorMemory()
    assert read(path, memory, is_full=True) == (3, [])
    return memory


def append(path: Path, count: int) -> None:
    for _ in range(count):
        append_anchor(path, NOW)


def read(
    path: Path, memory: AnchorMemory | None, *, is_full: bool = False
) -> tuple[int, list[tuple[str, str]]]:
    """Return how many lines were read, and what was found."""
    findings = Findings()
    promises = read_promises(path, findings, memory=memory, is_full=is_full)
    return promises.lines_read, [(found.subject, found.message) for found in findings.items]


def edit(path: Path, number: int) -> None:
    """Change the totals of a line without changing its length."""
    lines = path.read_bytes().splitlines(keepends=True)
    changed = lines[number - 1].replace(b'"entries":0', b'"entries":7')
    assert changed != lines[number - 1]
    path.write_bytes(b"".join([*lines[: number - 1], changed, *lines[number:]]))


def is_free(path: Path) -> bool:
    """Return whether who signs would get the lock at once."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def test_heads_are_signed_while_a_verification_reads(db: None, path: Path) -> None:
    append(path, 3)
    reading = read_anchors(path)
    assert next(reading).number == 1

    assert is_free(path)
    append(path, 1)

    # It ends where the file ended when it began.
    assert [anchor.number for anchor in reading] == [2, 3]
    assert [anchor.problem for anchor in read_anchors(path)] == ["", "", "", ""]


def test_a_torn_end_that_is_replaced_meanwhile_is_passed_over(db: None, path: Path) -> None:
    append(path, 2)
    with path.open("ab") as file:
        file.write(b'{"format":2,"numb')
    reading = read_anchors(path)
    assert next(reading).number == 1

    append(path, 1)

    assert [(anchor.number, anchor.problem) for anchor in reading] == [(2, "")]


def test_only_new_lines_are_read_and_a_full_run_reads_all(path: Path, memory: AnchorMemory) -> None:
    assert read(path, memory) == (0, [])
    append(path, 2)
    assert read(path, memory) == (2, [])
    assert read(path, memory) == (0, [])
    assert read(path, memory, is_full=True) == (5, [])
    append(path, 1)
    assert read(path, memory) == (1, [])
    assert read(path, None) == (6, [])


def test_lines_count_as_anchors_of_a_report_whether_read_or_known(
    path: Path, memory: AnchorMemory
) -> None:
    append(path, 2)
    findings = Findings()

    promises = read_promises(path, findings, memory=memory, is_full=False)

    assert (promises.lines, promises.lines_read) == (5, 2)


def test_an_edited_new_line_is_found_again_and_again(path: Path, memory: AnchorMemory) -> None:
    append(path, 2)
    edit(path, 4)
    found = [("anchor 4", EDITED), ("anchor 5", "it does not follow the line before it")]

    assert read(path, memory) == (2, found)
    # What is not sound is not remembered.
    assert read(path, memory) == (5, found)
    assert read(path, memory) == (5, found)


def test_an_edited_old_line_is_found_by_a_full_run_and_then_by_all(
    path: Path, memory: AnchorMemory
) -> None:
    append(path, 1)
    edit(path, 2)
    found = [("anchor 2", EDITED), ("anchor 3", "it does not follow the line before it")]

    assert read(path, memory) == (1, [])
    assert read(path, memory, is_full=True) == (4, found)
    assert read(path, memory) == (4, found)


def test_what_a_full_run_has_found_is_not_forgotten_by_one_that_ran_beside_it(
    path: Path, memory: AnchorMemory
) -> None:
    beside = memory.recall(path, VerifiedHead.objects.get(chain="anchor"))
    edit(path, 2)
    assert read(path, memory, is_full=True)[0] == 3

    memory.keep(path, beside)

    assert read(path, memory)[0] == 3


@pytest.mark.parametrize(("kept", "lines_read"), [(0, 0), (1, 1), (2, 2), (3, 0), (4, 1)])
def test_a_file_that_was_cut_is_found(
    path: Path, memory: AnchorMemory, kept: int, lines_read: int
) -> None:
    append(path, 2)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:kept]))

    # Three lines were known; a file that ends before is read whole.
    message = f"the database remembers 5 lines, and the file ends at line {kept}"
    assert read(path, memory) == (lines_read, [("anchor 5", message)])


def test_a_file_that_is_gone_is_found(path: Path, memory: AnchorMemory) -> None:
    path.unlink()

    message = "the database remembers 3 lines, and the file ends at line 0"
    assert read(path, memory) == (0, [("anchor 3", message)])


def test_a_cut_stays_visible_when_anchoring_goes_on(path: Path, memory: AnchorMemory) -> None:
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:2]))
    append(path, 2)

    assert read(path, memory) == (4, [("anchor 4", "line 3 is missing: the next one is 4")])


def test_another_file_in_its_place_is_read_whole(path: Path, memory: AnchorMemory) -> None:
    VerifiedHead.objects.all().delete()
    other = path.with_name("other.jsonl")
    append_anchor(other, datetime(2026, 11, 22, tzinfo=UTC))
    append(other, 3)
    other.replace(path)

    assert read(path, memory) == (4, [])


def test_a_database_that_is_older_than_the_file_has_it_read_whole(
    path: Path, memory: AnchorMemory
) -> None:
    second = [*read_anchors(path)][1]
    VerifiedHead.objects.filter(chain="anchor").update(sequence=2, head=second.digest)

    assert read(path, memory) == (3, [])


def test_a_note_of_the_last_known_line_with_another_digest_is_found(
    path: Path, memory: AnchorMemory
) -> None:
    VerifiedHead.objects.filter(chain="anchor").update(head=bytes(32))

    message = "the database remembers 3 lines, and another one"
    assert read(path, memory) == (0, [("anchor 3", message)])


def test_keys_change_as_with_a_whole_reading(db: None, path: Path, settings: Settings) -> None:
    settings.ENCRYPTION_KEY = OLD
    append(path, 3)
    memory = AnchorMemory()
    assert read(path, memory) == (3, [])

    settings.ENCRYPTION_KEY = f"{NEW},{OLD}"
    assert vouch_for_anchors(path, now=NOW) == 3
    assert read(path, memory) == (4, [])
    append(path, 1)
    assert read(path, memory) == (1, [])

    settings.ENCRYPTION_KEY = NEW
    assert read(path, memory) == (5, [])


def test_a_stranger_s_new_line_is_found_until_a_known_key_vouches_for_it(
    path: Path, memory: AnchorMemory, settings: Settings
) -> None:
    known = settings.ENCRYPTION_KEY
    settings.ENCRYPTION_KEY = NEW
    append(path, 1)
    settings.ENCRYPTION_KEY = known
    stranger = ("anchor 4", "it is signed with a key that is not in ENCRYPTION_KEY")
    assert read(path, memory) == (1, [stranger])
    append(path, 1)
    assert read(path, memory) == (5, [stranger])

    last = [*read_anchors(path)][-1]
    append_anchor(path, NOW, vouched=(last.number, last.digest))

    assert read(path, memory) == (6, [])
    assert read(path, memory) == (0, [])


def test_rows_that_an_old_line_promises_are_missed_without_reading_it_again(
    ledger_connect: Callable[[], Engine], committed_db: Database, path: Path
) -> None:
    gateway = Gateway(make_world(), ledger_connect())
    held = gateway.hold(1_000)
    assert isinstance(held, Held)
    gateway.resolve(held, 1)
    append(path, 2)
    memory = AnchorMemory()

    def verify() -> list[str]:
        found = report(is_full=False, anchors_path=path, now=datetime.now(UTC), memory=memory)
        return [finding.subject for finding in found.findings if finding.invariant == "I-69"]

    assert verify() == []
    Tamper(committed_db).run("DELETE FROM audit_apirequest", "DELETE FROM billing_verifiedhead "
                             "WHERE chain = 'incarnation'")  # fmt: skip

    assert verify() == [f"incarnation {gateway.incarnation_id} at 1"]
    assert verify() == [f"incarnation {gateway.incarnation_id} at 1"]
