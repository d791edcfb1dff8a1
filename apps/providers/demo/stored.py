"""Answers that can be had again by their id: the newest ones, as OpenAI keeps responses.

They belong to the key that they were made with: with another one they are not found.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from apps.providers.demo.answers import Answer

ANSWERS_MAX: Final = 1000
# What they say altogether: a piece is mostly one pointer.
TOKENS_MAX: Final = 2_000_000
# Of a request whose items are kept, too: what is longer is forgotten.
INPUT_BYTES_MAX: Final = 16 << 10


class Stored(NamedTuple):
    """An answer, and the items that it answers."""

    answer: Answer
    input_items: Sequence[dict[str, Any]]


class StoredAnswers:
    """Keeps answers until newer ones need their place."""

    def __init__(self) -> None:
        self._answers: OrderedDict[tuple[str, str], Stored] = OrderedDict()
        self._tokens = 0

    def keep(
        self, key: str, response_id: str, answer: Answer, input_items: Sequence[dict[str, Any]] = ()
    ) -> None:
        """Keep an answer under its call's id."""
        self._answers[key, response_id] = Stored(answer, input_items)
        self._tokens += answer.output_tokens
        while len(self._answers) > ANSWERS_MAX or self._tokens > TOKENS_MAX:
            _, oldest = self._answers.popitem(last=False)
            self._tokens -= oldest.answer.output_tokens

    def find(self, key: str, response_id: str) -> Stored | None:
        """Return the answer of that call, None if it is not kept."""
        return self._answers.get((key, response_id))

    def forget(self, key: str, response_id: str) -> None:
        """Keep an answer no longer."""
        gone = self._answers.pop((key, response_id), None)
        if gone is not None:
            self._tokens -= gone.answer.output_tokens
