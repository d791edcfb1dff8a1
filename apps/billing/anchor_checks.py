"""Compares the anchors outside the database with the chains inside it (I-69).

Every head that was ever signed is looked up, not only the last one of each chain: who changes rows
has the worker sign what follows from them within half a minute, and the last heads agree again.
"""

from __future__ import annotations

from collections.abc import Iterable
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
from apps.billing.findings import Chain, ChainName, Findings, fetch
from apps.billing.models import VerifiedHead
from apps.billing.new_rows import LINKS
from apps.billing.strangers import Run, Strangers

_LOOK_UP: Final = 200
_KEY_LENGTH_MAX: Final = 64  # A forged line says what it likes.
# Each place is looked up for itself (see `new_rows`): a join would read a whole table for 200 rows.
_LINKS_AT: Final = """WITH place (chain_id, sequence) AS (VALUES {places})
    SELECT chain_id, sequence, (SELECT link.hash FROM {table} AS link
        WHERE link.{chain}_id = place.chain_id AND link.sequence = place.sequence LIMIT 1)
    FROM place"""


@dataclass(slots=True)
class Promises:
    """The last anchored head of every chain, and what was off with those that it replaced."""

    lines: int = 0
    lines_read: int = 0  # this time
    generation: int = 0  # of the memory
    tail: Anchor | None = None  # the last line
    heads: dict[ChainName, dict[int, tuple[int, bytes]]] = field(
        default_factory=lambda: {"account": {}, "incarnation": {}}
    )
    # Chains of which a promise was broken: the first one is told, and not all that came after it.
    broken: set[Chain] = field(default_factory=set)

    @property
    def last(self) -> Place:
        """Return number and digest of the last line."""
        return (self.tail.number, self.tail.digest) if self.tail else (0, b"")

    def take(self, chain: ChainName, anchored: Iterable[AnchoredHead]) -> list[AnchoredHead]:
        """Keep the furthest head of each chain, and return those that are not, or no longer."""
        heads, replaced = self.heads[chain], []
        for chain_id, sequence, head in anchored:
            known = heads.get(chain_id)
            if known is not None and sequence < known[0]:
                replaced.append((chain_id, sequence, head))
                continue
            heads[chain_id] = (sequence, head)
            # Also of the same sequence: the line before may have promised another head there.
            if known is not None:
                replaced.append((chain_id, *known))
        return replaced


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
    path: Path,
    findings: Findings,
    *,
    memory: AnchorMemory | None = None,
    is_full: bool = True,
    is_looked_up: bool = True,
) -> Promises:
    """Read the anchor file, verify its signatures and its own chain, and return what it promises.

    Heads that later ones replace are looked up on the way, unless only the file is in question.
    Where it is not full, lines that `memory` knows are not read again.
    """
    # Before the file: a line may be added meanwhile, but none may have gone.
    noted = VerifiedHead.objects.filter(chain=NOTE, chain_id=0).first()
    found_before = findings.count
    memory = memory or AnchorMemory()
    promises = memory.begin() if is_full else memory.recall(path, noted)
    replaced = _Replaced(promises.broken, findings) if is_looked_up else None
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
        accounts = promises.take("account", anchor.accounts)
        incarnations = promises.take("incarnation", anchor.incarnations)
        if replaced is not None:
            replaced.add("account", accounts)
            replaced.add("incarnation", incarnations)
    for run in strangers.end():
        _report_strangers(run, findings)
    if replaced is not None:
        replaced.end()
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
        last = ((chain_id, *head) for chain_id, head in heads.items())
        _look_up(chain, last, promises.broken, findings)


class _Replaced:
    """Heads that later ones replaced, until there are enough of them to be looked up at once.

    What was anchored had been committed before, so no view of the database is needed.
    """

    def __init__(self, broken: set[Chain], findings: Findings) -> None:
        self._broken = broken
        self._findings = findings
        self._waiting: dict[ChainName, list[AnchoredHead]] = {"account": [], "incarnation": []}

    def add(self, chain: ChainName, heads: list[AnchoredHead]) -> None:
        """Take heads of one kind of chain."""
        self._waiting[chain] += heads
        if len(self._waiting[chain]) >= _LOOK_UP:
            self._end(chain)

    def end(self) -> None:
        """Look up what is left."""
        for chain in self._waiting:
            self._end(chain)

    def _end(self, chain: ChainName) -> None:
        _look_up(chain, self._waiting[chain], self._broken, self._findings)
        self._waiting[chain].clear()


def _report_strangers(run: Run, findings: Findings) -> None:
    findings.add(
        "I-69",
        f"anchor {run.first}" if run.first == run.last else f"anchors {run.first} to {run.last}",
        expected="a known key, or a later line of one that vouches for it",
        found=f"key {run.key[:_KEY_LENGTH_MAX]}",
        message=UNKNOWN_KEY,
    )


def _look_up(
    chain: ChainName, heads: Iterable[AnchoredHead], broken: set[Chain], findings: Findings
) -> None:
    """Report each chain that has not the row of a head any more, and add it to `broken`."""
    table, _ = LINKS[chain]
    left = iter(heads)
    while chunk := list(islice(left, _LOOK_UP)):
        marks = ", ".join(["(%s, %s)"] * len(chunk))
        places = [value for chain_id, sequence, _ in chunk for value in (chain_id, sequence)]
        rows = fetch(_LINKS_AT.format(places=marks, table=table, chain=chain), places)
        found = {(chain_id, sequence): link and bytes(link) for chain_id, sequence, link in rows}
        for chain_id, sequence, head in chunk:
            link = found[chain_id, sequence]
            if link != head and (chain, chain_id) not in broken:
                broken.add((chain, chain_id))
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
