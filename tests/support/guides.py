"""The fenced blocks of a page of the documentation."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: what stands behind its fence, its text, and the line of its last fence."""

    info: str
    text: str
    line: int


def read_blocks(guide: str) -> list[Block]:
    """Return the fenced blocks of a guide in their order."""
    blocks: list[Block] = []
    info: str | None = None
    text: list[str] = []
    for number, line in enumerate(guide.splitlines(), start=1):
        if not line.startswith("```"):
            text.append(line)
        elif info is None:
            info, text = line.removeprefix("```"), []
        else:
            blocks.append(Block(info, "\n".join(text), number))
            info = None
    return blocks
