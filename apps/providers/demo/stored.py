"""Answers that can be had again by their id: the newest ones, as OpenAI keeps responses."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from apps.providers.demo.answers import Answer

ANSWERS_MAX: Final = 1000
# What they say altogether: a piece is mostly one pointer.
TOKENS_MAX: Final = 2_000_000


class StoredAnswers:
    """Keeps answers until newer ones need their place."""

    def __init__(self) -> None:
        self._answers: OrderedDict[str, Answer] = OrderedDict()
        self._tokens = 0

    def keep(self, response_id: str, answer: Answer) -> None:
        """Keep an answer under its call's id."""
        self._answers[response_id] = answer
        self._tokens += answer.output_tokens
        while len(self._answers) > ANSWERS_MAX or self._tokens > TOKENS_MAX:
            _, oldest = self._answers.popitem(last=False)
            self._tokens -= oldest.output_tokens

    def find(self, response_id: str) -> Answer | None:
        """Return the answer of that call, None if it is not kept."""
        return self._answers.get(response_id)
