"""A lock on one row, kept until the end of the transaction."""

from __future__ import annotations

from typing import TypeVar

from django.db import models

from apps.core.domain_errors import DomainError

_Row = TypeVar("_Row", bound=models.Model)


def lock_row(
    rows: models.Manager[_Row] | models.QuerySet[_Row],
    pk: int,
    *,
    gone: type[DomainError],
    no_key: bool = False,
) -> _Row:
    """Return the row as it is now, locked, but for what `rows` joins to it. Raises `gone`.

    With `no_key` who only refers to the row need not wait.
    """
    found = rows.select_for_update(of=("self",), no_key=no_key).filter(pk=pk).first()
    if found is None:
        raise gone
    return found
