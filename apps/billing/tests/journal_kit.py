"""What tests of the journal share: settlements, files without an owner, disks without room."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from apps.billing.journal import Journal
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
    """Leave a file without an owner."""
    (folder / "999-dead.jsonl").write_bytes(data)


def bytes_of(folder: Path) -> bytes:
    """Return what is in the only file of a journal."""
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


@contextmanager
def disk_with_room_for(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
