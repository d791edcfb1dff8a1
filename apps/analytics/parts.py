"""Ids cut into parts that fit into one statement each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, TypeVar
from uuid import UUID

IDS_MAX: Final = 1_000

Id = TypeVar("Id", int, UUID)


def in_parts(ids: Iterable[Id]) -> Iterator[list[Id]]:
    """Yield the ids in their order, at most IDS_MAX at a time."""
    listed = sorted(ids)
    for start in range(0, len(listed), IDS_MAX):
        yield listed[start : start + IDS_MAX]
