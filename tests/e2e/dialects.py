"""Stages whose provider speaks a dialect of choice."""

from __future__ import annotations

from typing import Any, Final

from tests.support.bench import Bench, Stage

PROVIDER_DIALECTS: Final = ("anthropic", "gemini", "openai", "openai-responses")


class Stages:
    """Makes stages whose provider speaks one dialect."""

    def __init__(self, bench: Bench, dialect: str) -> None:
        self.dialect: Final = dialect
        self._bench = bench

    def make(self, wishes: str = "prompt=10,tokens=12", **values: Any) -> Stage:
        """Return a caller and a model of their own."""
        base_url = self._bench.demo.base_url
        if self.dialect == "gemini":
            base_url = base_url.removesuffix("/v1") + "/v1beta"
        provider = self._bench.make_provider(base_url, dialect=self.dialect)
        return self._bench.stage(f"demo-chat:{wishes}", provider=provider, **values)
