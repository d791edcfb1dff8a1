"""What the journal promises about disks that fill up and processes that die."""

from __future__ import annotations

import fcntl
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest

from apps.billing.chains import ADDED_FIELDS
from apps.billing.journal import Journal, JournalFull, keep_all
from apps.billing.ledger.commands import PayloadRecord, Resolve

STARTED_AT = datetime(2026, 11, 21, 12, 0, 0, 123_456, tzinfo=UTC)


def resolve(number: int) -> Resolve:
    """Return a settlement with everything that a row may hold."""
    request_id = UUID(int=number)
    return Resolve(
        request_id=request_id,
        wallet_id=11,
        receivable_id=12,
        legs=((21, 300), (11, 200)),
        counters=(5,),
        charge_nanos=450,
        row={
            "id": request_id,
            "started_at": STARTED_AT,
            "user_name": "Zoë \u0000 文",
            "payload_digest": b"\x00\xff",
            "ttft_ms": None,
            "is_stream": True,
            "service_tier": "flex",
            "counts": '{"web_search":1}',
            "answered_from": "",
        },
        attempts=(
            {
                "changes": "",
                "cost_nanos": 14_200,
                "id": UUID(int=7),
                "request_id": request_id,
                "started_at": STARTED_AT,
            },
        ),
        payload=PayloadRecord(b"salt\x80", b"(\xb5/\xfd", b"", True, False),
    )


def write_as_a_process_that_died(folder: Path, data: bytes) -> None:
    (folder / "999-dead.jsonl").write_bytes(data)


def bytes_of(folder: Path) -> bytes:
    (path,) = folder.glob("*.jsonl")
    return path.read_bytes()


def lines_of(folder: Path, *numbers: int) -> bytes:
    """Return what a process leaves that has written these settlements."""
    elsewhere = Journal(folder / "elsewhere")
    elsewhere.append([resolve(number) for number in numbers])
    data = bytes_of(folder / "elsewhere")
    elsewhere.discard(len(numbers))
    elsewhere.close()
    (folder / "elsewhere").rmdir()
    return data


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """An empty journal."""
    journal = Journal(tmp_path)
    yield journal
    journal.close()


@contextmanager
def disk_with_room_for(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_settlement_is_read_as_it_was_written(journal: Journal) -> None:
    journal.append([resolve(1), resolve(2)])

    assert journal.read(10) == [resolve(1), resolve(2)]
    assert len(journal) == 2


def test_a_settlement_of_an_older_gateway_is_read_without_tier_and_counts(
    journal: Journal,
) -> None:
    row = {key: value for key, value in resolve(1).row.items() if key not in ADDED_FIELDS}
    journal.append([resolve(1)._replace(row=row)])

    assert journal.read(10)[0].row == row | dict.fromkeys(ADDED_FIELDS, "")


def test_attempts_of_an_older_gateway_are_read_without_what_was_added(journal: Journal) -> None:
    (attempt,) = resolve(1).attempts
    older = {key: attempt[key] for key in ("id", "request_id", "started_at")}
    journal.append([resolve(1)._replace(attempts=(older,))])

    assert journal.read(10)[0].attempts == ({**older, "changes": "", "cost_nanos": None},)


def test_what_is_in_the_database_is_dropped_oldest_first(journal: Journal, tmp_path: Path) -> None:
    journal.append([resolve(number) for number in range(1, 6)])

    first = journal.read(2)
    journal.discard(2)
    journal.append([resolve(6)])
    rest = journal.read(10)
    journal.discard(4)

    assert first == [resolve(1), resolve(2)]
    assert rest == [resolve(3), resolve(4), resolve(5), resolve(6)]
    assert (len(journal), journal.read(10), bytes_of(tmp_path)) == (0, [], b"")


def test_an_emptied_journal_takes_settlements_again(journal: Journal) -> None:
    journal.append([resolve(1)])
    journal.discard(1)
    journal.append([resolve(2)])

    assert journal.read(10) == [resolve(2)]


def test_nothing_is_ever_rewritten_while_settlements_wait(journal: Journal, tmp_path: Path) -> None:
    journal.append([resolve(1), resolve(2)])
    before = bytes_of(tmp_path)

    journal.discard(1)

    assert bytes_of(tmp_path) == before


def test_a_write_that_does_not_fit_counts_for_nothing(journal: Journal, tmp_path: Path) -> None:
    journal.append([resolve(1)])
    size = len(bytes_of(tmp_path))

    with disk_with_room_for(size + 50), pytest.raises(JournalFull):
        journal.append([resolve(2), resolve(3)])
    meanwhile = journal.read(10)
    journal.append([resolve(4)])

    assert meanwhile == [resolve(1)]
    assert journal.read(10) == [resolve(1), resolve(4)]
    assert len(journal) == 2


def test_what_follows_a_write_that_did_not_fit_is_replayed(
    journal: Journal, tmp_path: Path
) -> None:
    """The rest of the failed write lies behind what is replayed, and is read with it."""
    journal.append([resolve(1)])
    size = len(bytes_of(tmp_path))
    with disk_with_room_for(size + 50), pytest.raises(JournalFull):
        journal.append([resolve(2)])
    assert journal.read(10) == [resolve(1)]
    journal.discard(1)

    journal.append([resolve(3)])
    replayed = journal.read(10)
    journal.discard(len(replayed))

    assert replayed == [resolve(3)]
    assert (len(journal), bytes_of(tmp_path)) == (0, b"")


@pytest.mark.parametrize("is_removed", [False, True])
def test_a_file_that_others_take_for_abandoned_is_not_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_removed: bool
) -> None:
    """Another process looks at it between its making and its lock."""
    lock = fcntl.flock
    looked_at: list[Path] = []

    def look_first(descriptor: int, kind: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if path.suffix == ".jsonl" and not looked_at:
            looked_at.append(path)
            path.unlink()
            if not is_removed:
                raise BlockingIOError  # It holds the lock still.
        lock(descriptor, kind)

    monkeypatch.setattr(fcntl, "flock", look_first)

    journal = Journal(tmp_path)
    journal.append([resolve(1)])

    (path,) = tmp_path.glob("*.jsonl")
    assert path.read_bytes()
    assert [found.exists() for found in looked_at] == [False]
    journal.close()


def test_the_journal_has_a_bound(tmp_path: Path) -> None:
    journal = Journal(tmp_path, bytes_max=1_000)
    journal.append([resolve(1)])

    with pytest.raises(JournalFull):
        journal.append([resolve(2)])

    assert journal.read(10) == [resolve(1)]
    journal.close()


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


def test_nothing_is_removed_while_a_backup_keeps_all(journal: Journal, tmp_path: Path) -> None:
    journal.append([resolve(1)])
    written = bytes_of(tmp_path)
    write_as_a_process_that_died(tmp_path, written)
    other = Journal(tmp_path)
    other.append([resolve(2)])

    with keep_all(tmp_path, seconds_max=5):
        journal.discard(1)
        journal.adopt_abandoned()
        journal.discard(1)
        other.discard(1)
        other.close()
        kept = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        is_empty = len(journal) == 0

    assert is_empty
    assert len(kept) == 3
    assert all(data.startswith(written) for data in kept.values() if b"00000001" in data)
    assert kept["999-dead.jsonl"] == written
    journal.append([resolve(3)])
    assert journal.read(10) == [resolve(3)]
    assert written not in journal._own.path.read_bytes()


def test_settlements_that_a_backup_kept_do_not_fill_the_journal(tmp_path: Path) -> None:
    journal = Journal(tmp_path, bytes_max=1_500)
    journal.append([resolve(1)])
    with keep_all(tmp_path, seconds_max=5):
        journal.discard(1)

    journal.append([resolve(2)])

    assert journal.read(10) == [resolve(2)]
    journal.close()


def test_a_damaged_line_is_reported_and_the_others_are_adopted(
    journal: Journal, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal.append([resolve(1)])
    line = bytes_of(tmp_path)
    journal.discard(1)
    write_as_a_process_that_died(tmp_path, line + line.replace(b"450", b"451") + line)

    adopted = journal.adopt_abandoned()

    assert adopted == 2
    assert [record.levelname for record in caplog.records] == ["ERROR"]


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


def test_a_closed_journal_keeps_what_waits_and_removes_what_is_empty(tmp_path: Path) -> None:
    first, second = Journal(tmp_path), Journal(tmp_path)
    first.append([resolve(1)])

    first.close()
    second.close()

    assert len(os.listdir(tmp_path)) == 1
    third = Journal(tmp_path)
    assert third.adopt_abandoned() == 1
    third.close()


def test_quarantined_settlements_are_never_adopted(journal: Journal, tmp_path: Path) -> None:
    journal.quarantine(resolve(1))
    journal.quarantine(resolve(2))

    adopted = journal.adopt_abandoned()

    assert adopted == 0
    assert (tmp_path / "quarantine").read_bytes().count(b"\n") == 2


def test_only_the_owner_may_read_what_is_written(journal: Journal, tmp_path: Path) -> None:
    journal.append([resolve(1)])
    journal.quarantine(resolve(2))

    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def test_a_read_ends_where_it_passes_its_bytes(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append([resolve(1), resolve(2), resolve(3)])

    assert journal.read(10, bytes_max=1) == [resolve(1)]
    assert journal.read(10) == [resolve(1), resolve(2), resolve(3)]
    journal.close()


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
