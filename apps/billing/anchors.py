"""Anchors: signed heads of the chains, in a file outside the database.

Each line is one JSON object: the heads that moved, totals, the digest of the line before, and an
Ed25519 signature over everything before it. Who can write the database alone can then neither cut
off a tail nor rewrite a chain unnoticed; who can write the file alone can neither edit nor remove a
line, because the database notes the last line. The signing key is derived from ENCRYPTION_KEY.

A line may vouch for all lines up to one, named by number and digest: whoever signed it had the keys
of all of them and found them sound. So an old key can go: what it signed is bound by the digests to
a line of a newer key. A chain alone would not do, because the writer goes on from whatever line it
finds at the end of the file.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Final

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from django.conf import settings
from django.db import connection, transaction

from apps.billing.models import VerifiedHead
from apps.core.crypto import derive_key, key_id, parse_encryption_keys

FORMAT: Final = 2
_FORMATS: Final = (1, FORMAT)  # The first one cannot vouch.
NOTE: Final = "anchor"  # the VerifiedHead that names the last line
HEADS_PER_LINE: Final = 5_000
LOCK_SECONDS: Final = 5.0
UNKNOWN_KEY: Final = "it is signed with a key that is not in ENCRYPTION_KEY"
_LABEL: Final = "anchor"
_SIGNATURE: Final = b',"signature":"'
_LINE_BYTES_MAX: Final = 4 << 20

# Of each kind of chain: what a line calls its heads, and the VerifiedHead of the last one.
_KINDS: Final = {"account": "accounts", "incarnation": "incarnations"}
_NOTES: Final = {"account": "anchor account", "incarnation": "anchor requests"}
_MOVED: Final = """SELECT chain.id, chain.sequence, chain.head FROM billing_{kind} AS chain
    LEFT JOIN billing_verifiedhead AS noted ON noted.chain = %s AND noted.chain_id = chain.id
    WHERE chain.sequence > 0 AND (noted.id IS NULL OR noted.sequence <> chain.sequence)
    ORDER BY noted.verified_at NULLS FIRST, chain.id LIMIT %s"""

AnchoredHead = tuple[int, int, bytes]  # chain id, sequence, head
Place = tuple[int, bytes]  # the number and the digest of a line


class AnchorsBusy(Exception):
    """Another process holds the anchor file for longer than it may take."""


@dataclass(frozen=True, slots=True)
class Anchor:
    """One line of the file. `problem` says why it must not be believed, or is empty."""

    number: int
    digest: bytes  # SHA-256 of the line, which the next one names
    previous: bytes
    at: str
    start: int = 0  # its first byte in the file
    end: int = 0  # the byte behind it
    key: str = ""  # the id of the key that it says it is signed with
    accounts: tuple[AnchoredHead, ...] = ()
    incarnations: tuple[AnchoredHead, ...] = ()
    vouched: Place | None = None  # up to where it vouches; only if its signature is good
    is_key_known: bool = True
    follows: bool = True  # the line before it
    problem: str = ""


def append_anchor(path: Path, now: datetime, *, vouched: Place | None = None) -> int:
    """Append the heads that moved since the last anchor, fsynced, and return how many there were.

    A line is written even when nothing moved, so that the file shows that someone looked. At most
    HEADS_PER_LINE heads of each kind go into one call, of chains that were signed longest ago; the
    rest goes into the next. `vouched` names the last of the lines that the caller has verified.
    """
    key = parse_encryption_keys(settings.ENCRYPTION_KEY)[0]
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _locked(path, fcntl.LOCK_EX) as file:
        moved, totals = _read_moved()
        number, previous = _continue_from(file)
        line = _sign(key, number, previous, now, moved, totals, vouched)
        file.seek(0, os.SEEK_END)
        file.write(line)
        file.flush()
        os.fsync(file.fileno())
        _note(number, hashlib.sha256(line).digest(), moved, now)
    return sum(len(heads) for heads in moved.values())


def read_anchors(
    path: Path, *, keys: Sequence[bytes] | None = None, after: Anchor | None = None
) -> Iterator[Anchor]:
    """Yield the lines of the file, in order, each with what is wrong with it.

    Believes the signatures of `keys`, without them those of all encryption keys. Begins behind the
    line `after`, which must be in place. A last line without an end was cut by a crash before
    anybody relied on it, and is passed over; so is what is appended meanwhile.
    """
    if not path.exists():
        return
    believed = parse_encryption_keys(settings.ENCRYPTION_KEY) if keys is None else keys
    public = {key_id(key): _private_key(key).public_key() for key in believed}
    previous, start = (after, after.end) if after else (None, 0)
    with _locked(path, fcntl.LOCK_SH) as file:
        length = file.seek(0, os.SEEK_END)
        # Whole lines are never touched again, and reading takes longer than who signs may wait.
        fcntl.flock(file, fcntl.LOCK_UN)
        file.seek(start)
        while start < length and (line := file.readline(_LINE_BYTES_MAX)):
            is_torn = not line.endswith(b"\n") and len(line) < _LINE_BYTES_MAX
            # A torn end that was replaced meanwhile: what is read of it may be of two lines.
            if is_torn or start + len(line) > length:
                return
            previous = _read_line(line, public, previous, start)
            yield previous
            start = previous.end


def is_in_place(path: Path, anchor: Anchor) -> bool:
    """Return whether the file has a line where it was read."""
    if not path.exists():
        return False
    with path.open("rb") as file:
        file.seek(anchor.start)
        return hashlib.sha256(file.read(anchor.end - anchor.start)).digest() == anchor.digest


@dataclass(frozen=True, slots=True)
class LastAnchor:
    """What the last line of the file says. `problem` says why it must not be believed."""

    number: int
    at: str
    digest: bytes  # SHA-256 of the line
    previous: bytes  # the digest that it names of the line before it
    key_id: str
    public_key_fingerprint: str  # SHA-256 of the raw key; empty where the key is not ours
    problem: str


def find_last_anchor(path: Path) -> LastAnchor | None:
    """Return the last whole line, None where this process can read none.

    Reads only the end of the file, without its lock: a line that is being written has no end yet.
    """
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _LINE_BYTES_MAX))
            tail = file.read(_LINE_BYTES_MAX)
    except OSError:
        return None
    whole = tail[: tail.rfind(b"\n") + 1]
    line = whole[whole.rfind(b"\n", 0, max(0, len(whole) - 1)) + 1 :]
    if not line:
        return None
    digest = hashlib.sha256(line).digest()
    try:
        fields = orjson.loads(line)
        number, at, name = int(fields["number"]), str(fields["at"]), str(fields["key"])
        previous = bytes.fromhex(fields["previous"])
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return LastAnchor(0, "", digest, b"", "", "", "the line cannot be read")
    keys = {key_id(key): key for key in parse_encryption_keys(settings.ENCRYPTION_KEY)}
    key = keys.get(name)
    return LastAnchor(
        number=number,
        at=at,
        digest=digest,
        previous=previous,
        key_id=name,
        public_key_fingerprint=_fingerprint(key) if key is not None else "",
        problem=_signature_problem(line, _private_key(key).public_key() if key else None),
    )


@contextmanager
def _locked(path: Path, mode: int) -> Iterator[IO[bytes]]:
    """Open the file, made with mode 0600 by who comes first, under a lock."""
    flags = os.O_RDWR | os.O_CREAT if mode == fcntl.LOCK_EX else os.O_RDONLY
    with os.fdopen(os.open(path, flags, 0o600), "r+b" if mode == fcntl.LOCK_EX else "rb") as file:
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(file, mode | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise AnchorsBusy(str(path)) from error
                time.sleep(0.01)
        yield file


def _read_moved() -> tuple[dict[str, list[AnchoredHead]], dict[str, int]]:
    """Return kind → heads that moved since they were last anchored, and totals of all accounts."""
    moved: dict[str, list[AnchoredHead]] = {}
    with connection.cursor() as cursor:
        for kind in _KINDS:
            cursor.execute(_MOVED.format(kind=kind), (_NOTES[kind], HEADS_PER_LINE))
            moved[kind] = [(row[0], row[1], bytes(row[2])) for row in cursor.fetchall()]
        cursor.execute(
            "SELECT COUNT(*), COALESCE(SUM(sequence), 0), COALESCE(SUM(posted_nanos), 0) "
            "FROM billing_account"
        )
        accounts, entries, posted = cursor.fetchone()
    return moved, {"accounts": accounts, "entries": int(entries), "posted_nanos": int(posted)}


def _continue_from(file: IO[bytes]) -> tuple[int, bytes]:
    """Return the next line's number and the digest that it names.

    Where lines are missing at the end of the file, the new line names the one that the database
    remembers: the gap stays visible for ever.
    """
    last = _last_line(file)
    noted = VerifiedHead.objects.filter(chain=NOTE, chain_id=0).first()
    number, digest = 0, b""
    if last:
        number, digest = _number_of(last), hashlib.sha256(last).digest()
    if noted is not None and noted.sequence > number:
        number, digest = noted.sequence, bytes(noted.head)
    return number + 1, digest


def _last_line(file: IO[bytes]) -> bytes:
    """Return the last whole line; what a crash left behind it is cut off."""
    size = file.seek(0, os.SEEK_END)
    start = max(0, size - _LINE_BYTES_MAX)
    file.seek(start)
    tail = file.read()
    end = tail.rfind(b"\n") + 1
    if end < len(tail):
        file.truncate(start + end)
    return tail[tail.rfind(b"\n", 0, max(0, end - 1)) + 1 : end]


def _number_of(line: bytes) -> int:
    """Return the number of a line, 0 where it cannot be read: verification reports such a line."""
    try:
        return int(orjson.loads(line)["number"])
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return 0


def _sign(
    key: bytes,
    number: int,
    previous: bytes,
    now: datetime,
    moved: dict[str, list[AnchoredHead]],
    totals: dict[str, int],
    vouched: Place | None,
) -> bytes:
    fields: dict[str, Any] = {
        "format": FORMAT,
        "number": number,
        "previous": previous.hex(),
        "at": now.isoformat(),
        "key": key_id(key),
        "totals": totals,
    }
    if vouched is not None:
        fields["vouched"] = (vouched[0], vouched[1].hex())
    for kind, name in _KINDS.items():
        fields[name] = [
            (chain_id, sequence, head.hex()) for chain_id, sequence, head in moved[kind]
        ]
    body = orjson.dumps(fields)
    signature = base64.b64encode(_private_key(key).sign(body))
    return body[:-1] + _SIGNATURE + signature + b'"}\n'


def _note(number: int, digest: bytes, moved: dict[str, list[AnchoredHead]], now: datetime) -> None:
    """Remember in the database what the file says now."""
    heads = [(NOTE, 0, number, digest)]
    for kind, rows in moved.items():
        heads += [(_NOTES[kind], *row) for row in rows]
    with transaction.atomic():
        VerifiedHead.objects.bulk_create(
            [
                VerifiedHead(
                    chain=chain, chain_id=chain_id, sequence=sequence, head=head, verified_at=now
                )
                for chain, chain_id, sequence, head in heads
            ],
            batch_size=500,
            update_conflicts=True,
            unique_fields=["chain", "chain_id"],
            update_fields=["sequence", "head", "verified_at"],
        )


def _read_line(
    line: bytes, keys: Mapping[str, Ed25519PublicKey], before: Anchor | None, start: int
) -> Anchor:
    digest = hashlib.sha256(line).digest()
    expected_number = before.number + 1 if before else 1
    try:
        fields = orjson.loads(line)
        if fields["format"] not in _FORMATS:
            raise ValueError(fields["format"])
        number, previous = int(fields["number"]), bytes.fromhex(fields["previous"])
        at, name = str(fields["at"]), str(fields["key"])
        accounts, incarnations = _heads(fields["accounts"]), _heads(fields["incarnations"])
        vouched = _place(fields.get("vouched"))
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return Anchor(
            number=expected_number,
            digest=digest,
            previous=b"",
            at="",
            start=start,
            end=start + len(line),
            follows=False,
            problem="the line cannot be read",
        )
    key = keys.get(name)
    wrong_place = ""
    if number != expected_number:
        wrong_place = f"line {expected_number} is missing: the next one is {number}"
    elif previous != (before.digest if before else b""):
        wrong_place = "it does not follow the line before it"
    unsigned = _signature_problem(line, key)
    return Anchor(
        number=number,
        digest=digest,
        previous=previous,
        at=at,
        start=start,
        end=start + len(line),
        key=name,
        accounts=accounts,
        incarnations=incarnations,
        vouched=None if unsigned else vouched,
        is_key_known=key is not None,
        follows=not wrong_place,
        # A stranger's line may be vouched for, and one that lies elsewhere even then not.
        problem=(wrong_place or unsigned) if key is None else (unsigned or wrong_place),
    )


def _heads(rows: Sequence[Sequence[Any]]) -> tuple[AnchoredHead, ...]:
    return tuple(
        (int(chain_id), int(sequence), bytes.fromhex(head)) for chain_id, sequence, head in rows
    )


def _place(value: Sequence[Any] | None) -> Place | None:
    if value is None:
        return None
    number, digest = value
    return int(number), bytes.fromhex(digest)


def _signature_problem(line: bytes, key: Ed25519PublicKey | None) -> str:
    if key is None:
        return UNKNOWN_KEY
    body, _, rest = line.rpartition(_SIGNATURE)
    try:
        signature = base64.b64decode(rest.removesuffix(b'"}\n'), validate=True)
        key.verify(signature, body + b"}")
    except (InvalidSignature, ValueError):
        return "its signature does not match: it was edited, or not written by this gateway"
    return ""


def _fingerprint(key: bytes) -> str:
    return hashlib.sha256(_private_key(key).public_key().public_bytes_raw()).hexdigest()


def _private_key(key: bytes) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(derive_key(key, _LABEL))
