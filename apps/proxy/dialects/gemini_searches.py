"""Searches that Google ran for an answer, told by what its words are grounded in.

Models up to 2.5 are billed for each prompt that was grounded, later ones for each query that is no
other's double; empty ones do not count.

Sources: https://ai.google.dev/gemini-api/docs/google-search and
https://ai.google.dev/gemini-api/docs/pricing
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from apps.core.usage import Usage
from apps.proxy.dialects.gemini_parameters import member, word
from apps.proxy.dialects.usage_pieces import PIECES_MAX

BILLED_BY_PROMPT: Final = re.compile(r"(?:^|/)gemini-[12](?:\.\d+)?(?:-|$)")
_QUERIES: Final = ("webSearchQueries", "imageSearchQueries")


class Searches:
    """Gathers the searches of one answer, which may come in pieces."""

    __slots__ = ("_is_by_prompt", "_is_grounded", "_queries")

    def __init__(self) -> None:
        self._queries: set[str] = set()
        self._is_grounded = False
        self._is_by_prompt = False

    def take(self, response: Mapping[str, Any]) -> None:
        """Take in what a response tells, or a piece of one."""
        candidates = response.get("candidates")
        for candidate in candidates if isinstance(candidates, list) else ():
            told = (
                member(candidate, "groundingMetadata") if isinstance(candidate, Mapping) else None
            )
            if isinstance(told, Mapping):
                self._take_grounding(told)
        self._is_by_prompt = self._is_by_prompt or (
            BILLED_BY_PROMPT.search(word(response, "modelVersion")) is not None
        )

    def _take_grounding(self, told: Mapping[str, Any]) -> None:
        for name in _QUERIES:
            queries = member(told, name)
            for query in queries if isinstance(queries, list) else ():
                if isinstance(query, str) and query.strip():
                    self._queries.add(query)
        self._is_grounded = self._is_grounded or bool(
            self._queries or member(told, "groundingChunks")
        )

    @property
    def count(self) -> int:
        """How many searches were billed."""
        return max(1, 0 if self._is_by_prompt else len(self._queries)) if self._is_grounded else 0


def count_searches(response: Mapping[str, Any]) -> int:
    """Return how many searches were billed for a whole answer."""
    searches = Searches()
    searches.take(response)
    return searches.count


def with_searches(usage: Usage, count: int) -> Usage:
    """Return a usage with searches, of which it tells nothing itself."""
    if count <= usage.web_search:
        return usage
    return usage._replace(web_search=count, is_suspect=usage.is_suspect or count > PIECES_MAX)
