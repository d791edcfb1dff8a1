"""Compares the anchors outside the database with the chains inside it (I-69)."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final

from django.conf import settings

from apps.billing.anchors import (
    NOTE,
    UNKNOWN_KEY,
    Anchor,
    AnchoredHead,
    Place,
    is_in_place,
    read_anchors,
)
from apps.billing.findings import ChainName, Findings, fetch
from apps.billing.models import VerifiedHead
from apps.billing.strangers import Run, Strangers

_LOOK_UP: Final = 200
_KEY_LENGTH_MAX: Final = 64  # A forged line says what it likes.
_ROWS: Final[dict[ChainName, str]] = {
    "account": "SELECT account_id, sequence, hash FROM billing_entry "
    "WHERE (account_id, sequence) IN (VALUES {places})",
    "incarnation": "SELECT incarnation_id, sequence, hash FROM audit_apirequest "
    "WHERE (incarnation_id, sequence) IN (VALUES {places})",
}


@dataclass(slots=True)
class Promises:
    """The last anchored head of every chain."""

    lines: int = 0
    lines_read: int = 0  # this time
    generation: int = 0  # of the memory
    tail: Anchor | None = None  # the last line
    heads: dict[ChainName, dict[int, tuple[int, bytes]]] = field(
        default_factory=lambda: {"account": {}, "incarnation": {}}
    )

    @property
    def last(self) -> Place:
        """Return number and digest of the last line."""
        return (self.tail.number, self.tail.digest) if self.tail else (0, b"")


class AnchorMemory:
    """What a process remembers of the anchor file from one verification to the next.

    Not kept in the database: who can write that alone could then say how far the file need not be
    read, or what it promised. Only a file in which nothing was found is remembered. A
    chain takes some 300 bytes, as in every verification while it runs.
    """

    def __init__(self) -> None:
        self._of: tuple[Path, str] | None = None  # the file, and the keys that were believed
        self._promises = Promises()
        self._generation = 0

    def begin(self) -> Promises:
        """Return what knows nothing yet, to read everything."""
        return Promises(generation=self._generation)

    def recall(self, path: Path, noted: VerifiedHead | None) -> Promises:
        """Return what is remembered of a file; nothing where it no longer fits."""
        known, nothing = self._promises, self.begin()
        if self._of != (path, settings.ENCRYPTION_KEY) or known.tail is None or noted is None:
            return nothing
        # A file that was cut or changed, and a database older than the file, are read whole.
        if noted.sequence < known.tail.number or not is_in_place(path, known.tail):
            return nothing
        return Promises(
            generation=nothing.generation,
            lines=known.lines,
            tail=known.tail,
            heads={chain: dict(heads) for chain, heads in known.heads.items()},
        )

    def keep(self, path: Path, promises: Promises) -> None:
        """Remember a file in which nothing was found, unless somebody has found something."""
        if promises.generation != self._generation:
            return  # A full run found what this one, which began before, did not read.
        self._of, self._promises = (path, settings.ENCRYPTION_KEY), promises

    def forget(self) -> None:
        """Have the next verification read everything."""
        self._generation += 1
        self._of, self._promises = None, Promises()


def read_promises(
    path: Path, findings: Findings, *, memory: AnchorMemory | None = None, is_full: bool = True
) -> Promises:
    """Read the anchor file, verify its signatures and its own chain, and return what it promises.

    The latest head of a chain is enough: its link covers all links before it. Where it is not
    full, lines that `memory` knows are not read again.
    """
    # Before the file: a line may be added meanwhile, but none may have gone.
    noted = VerifiedHead.objects.filter(chain=NOTE, chain_id=0).first()
    found_before = findings.count
    memory = memory or AnchorMemory()
    promises = memory.begin() if is_full else memory.recall(path, noted)
    strangers = Strangers()
    digests = dict((promises.last,))
    for anchor in read_anchors(path, after=promises.tail):
        promises.lines += 1
        promises.lines_read += 1
        promises.tail = anchor
        if noted is not None and anchor.number == noted.sequence:
            digests[anchor.number] = anchor.digest
        if anchor.problem and anchor.problem != UNKNOWN_KEY:
            findings.add(
                "I-69",
                f"anchor {anchor.number}",
                expected="a signed line that follows the one before it",
                found=f"line {promises.lines}",
                message=anchor.problem,
            )
        for run in strangers.take(anchor):
            _report_strangers(run, findings)
        _keep(promises.heads["account"], anchor.accounts)
        _keep(promises.heads["incarnation"], anchor.incarnations)
    for run in strangers.end():
        _report_strangers(run, findings)
    if noted is not None and digests.get(noted.sequence) != bytes(noted.head):
        number, _ = promises.last
        found = "another one" if noted.sequence in digests else f"the file ends at line {number}"
        findings.add(
            "I-69",
            f"anchor {noted.sequence}",
            expected=bytes(noted.head).hex(),
            found=found,
            message=f"the database remembers {noted.sequence} lines, and {found}",
        )
    if findings.count == found_before:
        memory.keep(path, promises)
    else:
        memory.forget()
    return promises


def check_anchors(promises: Promises, findings: Findings) -> None:
    """Verify that the tables still have every row that an anchor promises."""
    for chain, heads in promises.heads.items():
        places = iter(heads.items())
        while chunk := dict(islice(places, _LOOK_UP)):
            _check_chunk(chain, chunk, findings)


def _report_strangers(run: Run, findings: Findings) -> None:
    findings.add(
        "I-69",
        f"anchor {run.first}" if run.first == run.last else f"anchors {run.first} to {run.last}",
        expected="a known key, or a later line of one that vouches for it",
        found=f"key {run.key[:_KEY_LENGTH_MAX]}",
        message=UNKNOWN_KEY,
    )


def _check_chunk(chain: ChainName, chunk: dict[int, tuple[int, bytes]], findings: Findings) -> None:
    marks = ", ".join(["(%s, %s)"] * len(chunk))
    params = [value for chain_id, (sequence, _) in chunk.items() for value in (chain_id, sequence)]
    rows = fetch(_ROWS[chain].format(places=marks), params)
    found = {chain_id: bytes(link) for chain_id, _, link in rows}
    for chain_id, (sequence, head) in chunk.items():
        link = found.get(chain_id)
        if link != head:
            findings.doubt(chain, chain_id)
            findings.add(
                "I-69",
                f"{chain} {chain_id} at {sequence}",
                expected=head.hex(),
                found="no row" if link is None else link.hex(),
                message="rows that were anchored are gone"
                if link is None
                else "the chain was rewritten since it was anchored",
            )


def _keep(heads: dict[int, tuple[int, bytes]], anchored: tuple[AnchoredHead, ...]) -> None:
    for chain_id, sequence, head in anchored:
        if sequence >= heads.get(chain_id, (0, b""))[0]:
            heads[chain_id] = (sequence, head)
