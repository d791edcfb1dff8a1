"""The access matrix, docs/access.csv, as rows; and the routes that Django really has."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from django.urls import URLPattern, URLResolver, get_resolver

ROLES: Final = ("user", "viewer", "analyst", "admin")
METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")
_FILE: Final = Path(__file__).resolve().parent.parent.parent / "docs" / "access.csv"
_PARAMETER: Final = re.compile(r"\(\?P<(\w+)>(?:[^()]|\([^()]*\))*\)")
_DJANGO_ADMIN: Final = "/admin/"


@dataclass(frozen=True, slots=True)
class Rule:
    """Who may call one method of one path. `objects` is "any", "own" or "-" (no object)."""

    method: str
    path: str
    anonymous: bool
    roles: frozenset[str]
    objects: str

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


def read_rules() -> list[Rule]:
    """Return the rows of the matrix."""
    with _FILE.open(newline="") as file:
        return [
            Rule(
                method=row["method"],
                path=row["path"],
                anonymous=row["anonymous"] == "yes",
                roles=frozenset(role for role in ROLES if row[role] in ("yes", "masked")),
                objects=row["objects"],
            )
            for row in csv.DictReader(file)
        ]


def find_routes() -> set[tuple[str, str]]:
    """Return (method, path) of everything Django answers, the Django admin left out."""
    found = set()
    for path, view in _walk(get_resolver().url_patterns, ""):
        if path.startswith(_DJANGO_ADMIN):
            continue
        cls: Any = getattr(view, "view_class", None) or getattr(view, "cls", None)
        if cls is None:
            found.add(("GET", path))
            continue
        found |= {(method, path) for method in METHODS if hasattr(cls, method.lower())}
    return found


def _walk(patterns: Iterable[Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for entry in patterns:
        text = prefix + str(entry.pattern)
        if isinstance(entry, URLResolver):
            yield from _walk(entry.url_patterns, text)
        elif isinstance(entry, URLPattern):
            yield _plain(text), entry.callback


def _plain(pattern: str) -> str:
    """Return a pattern as a path with {parameters}."""
    text = _PARAMETER.sub(r"{\1}", pattern)
    return "/" + text.replace("^", "").replace("$", "").replace("/?", "/")
