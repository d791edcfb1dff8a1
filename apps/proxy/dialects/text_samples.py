"""What is kept of the texts of a stream for a count of their tokens, in case no usage comes.

All of it while it is short; of what is longer, blocks spread over all of it: a beginning in prose
says little of the tables that follow. Where a text ends, and whether a usage comes, is known at the
end alone: so what grows is thinned, not cut.
"""

from typing import Final

# Of all texts of a stream together: some sixty thousand tokens in English.
CHARACTERS_MAX: Final = 256 * 1024
_BLOCK_CHARACTERS: Final = 512
# How far back a space is looked for, at which a cut splits no token.
_WORD_CHARACTERS: Final = 64


class TextSample:
    """Blocks of one text: all of them at first, then one of every two, of every four …"""

    __slots__ = ("_begun", "_blocks", "_halvings", "_number", "characters")

    def __init__(self) -> None:
        self._begun = ""  # the block that is not full yet
        self._blocks: list[tuple[int, str]] = []  # by their numbers
        self._halvings = 0
        self._number = 0  # of the block that is not full yet
        self.characters = 0  # of the full blocks that are kept

    @property
    def text(self) -> str:
        """Return all that is kept."""
        blocks = [block for _, block in self._blocks]
        if self._keeps(self._number):
            blocks.append(self._begun)
        return "".join(blocks)

    def take(self, text: str) -> None:
        """Take in what follows."""
        text, start = self._begun + text, 0
        while len(text) - start > _BLOCK_CHARACTERS:
            end = start + _BLOCK_CHARACTERS
            space = text.rfind(" ", end - _WORD_CHARACTERS, end + 1)
            end = space if space > 0 else end
            if self._keeps(self._number):
                self._blocks.append((self._number, text[start:end]))
                self.characters += end - start
            self._number += 1
            start = end
        self._begun = text[start:]

    def thin(self) -> None:
        """Let go of one of every two blocks, and of those that come."""
        self._halvings += 1
        self._blocks = [kept for kept in self._blocks if self._keeps(kept[0])]
        self.characters = sum(len(block) for _, block in self._blocks)

    def _keeps(self, number: int) -> bool:
        """Return whether a block is the one of its two, of its four … that is kept.

        Which of two it is follows no rule that a text could follow, too, as every second would.
        """
        return all(
            number >> halving & 1 == hash((halving, number >> halving + 1)) >> 20 & 1
            for halving in range(self._halvings)
        )


class TextSamples:
    """Samples of texts by their keys, which share CHARACTERS_MAX."""

    __slots__ = ("_samples",)

    def __init__(self) -> None:
        self._samples: dict[bytes, TextSample] = {}

    def take(self, key: bytes, text: str) -> None:
        """Take in what follows under a key."""
        self._samples.setdefault(key, TextSample()).take(text)
        # Of few texts the longest is far above a block, so each turn lets go of some.
        while sum(sample.characters for sample in self._samples.values()) > CHARACTERS_MAX:
            max(self._samples.values(), key=lambda sample: sample.characters).thin()

    def text(self, key: bytes) -> str:
        """Return what is kept under a key."""
        sample = self._samples.get(key)
        return "" if sample is None else sample.text
