"""What becomes of the journals of processes that died."""

from __future__ import annotations

import fcntl
import zlib
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import pytest

from apps.billing.journal import Journal, JournalFull
from apps.billing.ledger.commands import Claim, ClaimEnd, RepeatAnswer, StoredRecord
from apps.billing.tests.journal_kit import (
    STARTED_AT,
    bytes_of,
    disk_with_room_for,
    lines_of,
    resolve,
    write_as_a_process_that_died,
)


def line_of(value: dict[str, Any]) -> bytes:
    """Return the line of a gateway of another version."""
    body = orjson.dumps(value)
    return b"%08x %s\n" % (zlib.crc32(body), body)


def test_the_settlements_of_a_process_that_died_are_adopted_once(
    journal: Journal, tmp_path: Path
) -> None:
    write_as_a_process_that_died(tmp_path, lines_of(tmp_path, 1, 2))

    adopted, again = journal.adopt_abandoned(), journal.adopt_abandoned()
    found = journal.read(10)
    journal.discard(2)

    assert (adopted, again) == (2, 0)
    assert found == [resolve(1), resolve(2)]
    assert not (tmp_path / "999-dead.jsonl").exists()


@pytest.mark.parametrize("torn", [1, 40, -2, -1])
def test_a_torn_last_line_was_never_acknowledged_and_is_passed_over(
    journal: Journal, tmp_path: Path, torn: int
) -> None:
    journal.append([resolve(1)])
    line = bytes_of(tmp_path)
    journal.discard(1)
    write_as_a_process_that_died(tmp_path, line + line[:torn])

    adopted = journal.adopt_abandoned()

    assert adopted == 1
    assert journal.read(10) == [resolve(1)]


def test_a_damaged_line_is_named_and_kept_and_the_others_are_replayed(
    journal: Journal, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, line, last = (lines_of(tmp_path, number) for number in (1, 2, 3))
    damaged = line.replace(b"450", b"451")
    write_as_a_process_that_died(tmp_path, first + damaged + last)

    journal.adopt_abandoned()
    found = [journal.read(1), journal.read(10)]
    journal.discard(2)

    assert found == [[resolve(1)], [resolve(1), resolve(3)]]
    assert (len(journal), journal.size_bytes, journal.unreadable_count) == (0, 0, 1)
    assert (tmp_path / "quarantine").read_bytes() == damaged
    assert not (tmp_path / "999-dead.jsonl").exists()
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        (
            "CRITICAL",
            f"settlement {UUID(int=2)} at byte {len(first)} of the journal 999-dead.jsonl is "
            "quarantined: its line is damaged",
        )
    ]


def test_of_what_a_newer_gateway_left_is_read_what_is_known(
    journal: Journal, tmp_path: Path
) -> None:
    settlement = resolve(1)._replace(
        claim_end=ClaimEnd(Claim(7, b"digest", b"print"), RepeatAnswer(200, "[]", b"sealed")),
        stored=StoredRecord((b"id",), 1, 2, 3, 4, STARTED_AT, STARTED_AT),
    )
    journal.append([settlement])
    value = orjson.loads(journal._own.path.read_bytes().partition(b" ")[2])
    for part in (value, *(value[name] for name in ("payload", "claim", "answer", "stored"))):
        part["added_later"] = {"base64": "AAAA"}
    write_as_a_process_that_died(tmp_path, line_of(value))

    journal.adopt_abandoned()

    assert journal.read(10) == [settlement, settlement]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"legs": [[11]]}, "IndexError"),
        ({"payload": {"salt": "of another form"}}, "KeyError"),
        ({"attempts": ["of another form"]}, "TypeError"),
        ({"row": ["of another form"]}, "AttributeError"),
        ({"stored": {"created_at": "of another form"}}, "ValueError"),
    ],
)
def test_a_line_of_no_known_form_is_kept_and_the_others_are_replayed(
    journal: Journal,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    change: dict[str, Any],
    error: str,
) -> None:
    first, line, last = (lines_of(tmp_path, number) for number in (1, 2, 3))
    other = line_of(orjson.loads(line.partition(b" ")[2]) | change)
    write_as_a_process_that_died(tmp_path, first + other + last)
    journal.adopt_abandoned()

    found = journal.read(10)
    journal.discard(2)

    assert found == [resolve(1), resolve(3)]
    assert (tmp_path / "quarantine").read_bytes() == other
    assert not (tmp_path / "999-dead.jsonl").exists()
    assert [record.getMessage() for record in caplog.records] == [
        f"settlement {UUID(int=2)} at byte {len(first)} of the journal 999-dead.jsonl is "
        f"quarantined: its line is of no known form ({error})"
    ]


def test_where_nothing_can_be_read_nothing_waits(
    journal: Journal, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_as_a_process_that_died(tmp_path, b"\n\xff\xff\n")

    adopted = journal.adopt_abandoned()
    found = journal.read(10)

    assert (adopted, found, len(journal)) == (2, [], 0)
    assert (tmp_path / "quarantine").read_bytes() == b"\n\xff\xff\n"
    assert not (tmp_path / "999-dead.jsonl").exists()
    assert caplog.text.count("settlement (unknown) at byte") == 2


def test_a_damaged_line_stays_until_the_quarantine_has_room(
    journal: Journal, tmp_path: Path
) -> None:
    left = lines_of(tmp_path, 1, 2, 3).replace(b"450", b"451", 2)
    write_as_a_process_that_died(tmp_path, left)
    first, second, _ = left.splitlines(keepends=True)
    journal.adopt_abandoned()

    with disk_with_room_for(len(first) + 50):
        with pytest.raises(JournalFull):
            journal.read(10)
        with pytest.raises(JournalFull):
            journal.read(10)
    meanwhile = (tmp_path / "quarantine").read_bytes(), len(journal)
    found = journal.read(10)
    journal.discard(1)

    assert meanwhile == (first + second[:50], 3)
    assert found == [resolve(3)]
    assert (tmp_path / "quarantine").read_bytes() == first + second[:50] + b"\n" + second
    assert not (tmp_path / "999-dead.jsonl").exists()


def test_a_damaged_line_of_our_own_is_kept_as_well(journal: Journal, tmp_path: Path) -> None:
    journal.append([resolve(1), resolve(2)])
    line = lines_of(tmp_path, 1).replace(b"450", b"451")
    with journal._own.path.open("r+b") as file:
        file.write(line)

    found = journal.read(10)
    journal.discard(1)

    assert found == [resolve(2)]
    assert (tmp_path / "quarantine").read_bytes() == line
    assert (len(journal), journal._own.path.read_bytes()) == (0, b"")


def test_what_a_write_that_did_not_fit_left_behind_a_shorter_one_is_no_damage(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gone = Journal(tmp_path)
    with disk_with_room_for(2 * len(lines_of(tmp_path, 1)) + 50), pytest.raises(JournalFull):
        gone.append([resolve(1), resolve(2), resolve(3)])
    gone.append([resolve(4)])
    gone._own.close()
    journal = Journal(tmp_path)

    adopted = journal.adopt_abandoned()
    found = journal.read(10)

    assert (adopted, found) == (1, [resolve(4)])
    assert caplog.records == []
    journal.close()


def test_the_journal_of_a_living_process_is_left_alone(journal: Journal, tmp_path: Path) -> None:
    other = Journal(tmp_path)
    other.append([resolve(1)])

    adopted = journal.adopt_abandoned()

    assert adopted == 0
    assert other.read(10) == [resolve(1)]
    other.close()


def test_what_a_process_left_is_replayed_though_the_disk_is_full(tmp_path: Path) -> None:
    left = lines_of(tmp_path, 1, 2, 3)
    write_as_a_process_that_died(tmp_path, left)
    journal = Journal(tmp_path, bytes_max=10)

    with disk_with_room_for(0):
        adopted = journal.adopt_abandoned()
        counted = (len(journal), journal.size_bytes)
        first = journal.read(2)
        journal.discard(2)
        rest = journal.read(10)
        journal.discard(1)

    assert adopted == 3
    assert counted == (3, len(left))
    assert first + rest == [resolve(1), resolve(2), resolve(3)]
    assert (len(journal), journal.size_bytes, bytes_of(tmp_path)) == (0, 0, b"")
    journal.close()


def test_what_a_process_left_comes_before_what_is_our_own(journal: Journal, tmp_path: Path) -> None:
    journal.append([resolve(1)])
    write_as_a_process_that_died(tmp_path, lines_of(tmp_path, 2))

    journal.adopt_abandoned()
    journal.append([resolve(3)])

    assert journal.read(10) == [resolve(2), resolve(1), resolve(3)]
    journal.discard(2)
    assert journal.read(10) == [resolve(3)]
    assert not (tmp_path / "999-dead.jsonl").exists()


def test_who_dies_while_it_replays_leaves_all_to_the_next(tmp_path: Path) -> None:
    write_as_a_process_that_died(tmp_path, lines_of(tmp_path, 1, 2))
    first, second = Journal(tmp_path), Journal(tmp_path)
    first.adopt_abandoned()
    first.discard(1)

    meanwhile = second.adopt_abandoned()
    first.close()
    adopted = second.adopt_abandoned()

    assert (meanwhile, adopted) == (0, 2)
    assert second.read(10) == [resolve(1), resolve(2)]
    second.discard(2)
    second.close()
    assert list(tmp_path.iterdir()) == []


def test_of_two_that_find_a_file_the_later_one_finds_it_gone(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one replays and removes it after it is opened here, before it is locked."""
    write_as_a_process_that_died(tmp_path, lines_of(tmp_path, 1))
    other = Journal(tmp_path)
    lock = fcntl.flock

    def replay_first(descriptor: int, kind: int) -> None:
        monkeypatch.undo()
        other.adopt_abandoned()
        other.discard(1)
        lock(descriptor, kind)

    monkeypatch.setattr(fcntl, "flock", replay_first)

    adopted = journal.adopt_abandoned()

    assert adopted == 0
    assert (len(journal), journal.read(10)) == (0, [])
    assert not (tmp_path / "999-dead.jsonl").exists()
    other.close()


def test_so_many_files_are_adopted_at_once(journal: Journal, tmp_path: Path) -> None:
    left = lines_of(tmp_path, 1)
    for number in range(120):
        (tmp_path / f"{number}-dead.jsonl").write_bytes(left)
    (tmp_path / "0-nothing-left.jsonl").touch()

    first = journal.adopt_abandoned()
    while_full = journal.adopt_abandoned()
    journal.discard(len(journal))
    rest = journal.adopt_abandoned()
    journal.discard(len(journal))

    # One of the first hundred was empty.
    assert (first, while_full, rest) == (99, 1, 20)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_journal_that_cannot_be_opened_does_not_keep_the_others_from_being_adopted(
    tmp_path: Path,
) -> None:
    (tmp_path / "1-unopenable.jsonl").mkdir()
    gone = Journal(tmp_path)
    gone.append([resolve(1)])
    gone._own.close()  # as the end of its process does, which frees the lock
    journal = Journal(tmp_path)

    assert journal.adopt_abandoned() == 1
    assert journal.read(10) == [resolve(1)]
    journal.close()
