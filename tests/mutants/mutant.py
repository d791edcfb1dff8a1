"""What a mutant is: one small edit, and the tests that must not survive it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

BOTH: Final = ("sqlite", "postgres")
_NAMED: Final = re.compile(r"([\w/]+\.py)::(\w+)(\[.+\])?")


class Stale(Exception):
    """The code that a mutant changes is not there any more, or stands there more than once."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """A planted bug. `old` stands in the file exactly once; it is short, so that it stays so."""

    name: str
    guards: str  # the invariant, such as I-04, or the row of docs/errors.md, such as E34
    path: str
    old: str
    new: str
    tests: tuple[str, ...]  # node ids; each has to fail, on each of the engines
    engines: tuple[str, ...] = ("sqlite",)

    def apply(self, text: str) -> str:
        """Return the file's text with the bug in it. Raises Stale."""
        found = text.count(self.old)
        if found != 1:
            raise Stale(f"{self.name}: its text stands {found} times in {self.path}, not once")
        return text.replace(self.old, self.new)

    def plant(self, root: Path) -> None:
        """Write the bug into the tree at `root`. Raises Stale."""
        path = root / self.path
        path.write_text(self.apply(path.read_text()))
        forget_compiled(path)


def forget_compiled(path: Path) -> None:
    """Remove what Python compiled: a file changed within a second may look as old as before."""
    for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
        compiled.unlink()


def split_node_id(node_id: str) -> tuple[str, str]:
    """Return the path and the name of a test, without its parameters."""
    match = _NAMED.fullmatch(node_id)
    if match is None:
        raise ValueError(f"{node_id} names no test")
    return match[1], match[2]
