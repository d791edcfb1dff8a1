"""Adds to the rollups what incarnations have recorded since.

Records of an incarnation are numbered without gaps, in the order in which they committed, whatever
day their calls began on: so what was added says which calls are in, and a call that is recorded
late is added to a day that is long over. Sums and the mark of how far they go are written in one
transaction: a crash in between adds nothing twice.

Bounds: a transaction reads PIECE_ROWS calls (on SQLite, where it keeps the ledger from writing, for
some 15 ms), a run takes `seconds` and one piece.
"""

from __future__ import annotations

import time
from typing import Any, Final, NamedTuple

from django.db import connection, transaction
from django.db.models import Max, QuerySet, Value
from django.db.models.functions import Coalesce

from apps.analytics.models import NO_PROVIDER, RolledUp, Rollup
from apps.audit.models import APIRequest
from apps.audit.totals import SUM_COLUMNS, UTCDay, aggregates
from apps.billing.models import Incarnation

PIECE_ROWS: Final = {"postgresql": 20_000, "sqlite": 1_000}
KEY: Final = ("started_on", "settled_on", "user_id", "api_key_id", "model_id", "provider")
_NAMES: Final = ("user_name", "requested_model", "provider_name")
# How a piece calls what would take the name of a call's own column, and the column of the rollup.
_COLUMNS: Final = {
    "provider": "provider_id",
    **{f"one_{name}": name for name in _NAMES},
    **SUM_COLUMNS,
}


class Piece(NamedTuple):
    """Records of one incarnation's chain."""

    incarnation_id: int
    after: int
    up_to: int


def roll_up(*, seconds: float) -> bool:
    """Add what was recorded, and return whether that is all there was when it ended."""
    until = time.monotonic() + seconds
    while _add_piece():
        if time.monotonic() >= until:
            return False
    return True


def list_new() -> list[Piece]:
    """Return what no rollup has yet, by incarnation."""
    marks = dict(RolledUp.objects.values_list("incarnation_id", "sequence"))
    heads = Incarnation.objects.filter(sequence__gt=0).order_by("id")
    return [
        Piece(incarnation_id, marks.get(incarnation_id, 0), sequence)
        for incarnation_id, sequence in heads.values_list("id", "sequence")
        if sequence > marks.get(incarnation_id, 0)
    ]


def _add_piece() -> bool:
    """Add one piece of one incarnation, and return whether there was any."""
    new = list_new()
    if not new:
        return False
    incarnation_id = new[0].incarnation_id
    with transaction.atomic():
        # Nobody else is at the same chain, and the mark is read again under its lock.
        RolledUp.objects.get_or_create(incarnation_id=incarnation_id, defaults={"sequence": 0})
        mark = RolledUp.objects.select_for_update().get(pk=incarnation_id)
        up_to = min(new[0].up_to, mark.sequence + PIECE_ROWS[connection.vendor])
        if up_to > mark.sequence:
            _add(Piece(incarnation_id, mark.sequence, up_to))
            mark.sequence = up_to
            mark.save(update_fields=["sequence"])
    return True


def sum_by_key(calls: QuerySet[APIRequest]) -> QuerySet[APIRequest, Any]:
    """Return what calls come to, as rollups keep it: by KEY, and then by names of SUM_COLUMNS."""
    return (
        calls.order_by()
        .values(
            "user_id",
            "api_key_id",
            "model_id",
            started_on=UTCDay("started_at"),
            settled_on=UTCDay("settled_at"),
            provider=Coalesce("provider_id", Value(NO_PROVIDER)),
        )
        .annotate(**aggregates())
    )


def _add(piece: Piece) -> None:
    recorded = APIRequest.objects.filter(
        incarnation_id=piece.incarnation_id,
        sequence__gt=piece.after,
        sequence__lte=piece.up_to,
    )
    calls = (
        sum_by_key(recorded)
        .annotate(**{f"one_{name}": Max(name) for name in _NAMES})
        # In one order, so that two who add to the same rollups cannot wait for each other.
        .order_by(*KEY)
    )
    select, parameters = calls.query.sql_with_params()
    table = _quoted(Rollup._meta.db_table)
    found = (*KEY, *aggregates(), *(f"one_{name}" for name in _NAMES))
    columns = {name: _quoted(_COLUMNS.get(name, name)) for name in found}
    # A sum of nothing is null.
    taken = [
        f"COALESCE({name}, 0)" if name.strip('"') in SUM_COLUMNS else name
        for name in map(_quoted, found)
    ]
    added = [
        f"{column} = {table}.{column} + excluded.{column}"
        for column in (columns[name] for name in SUM_COLUMNS)
    ]
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {table} ({', '.join(columns.values())}) "  # noqa: S608 (names of columns)
            f"SELECT {', '.join(taken)} FROM ({select}) AS piece WHERE TRUE "
            f"ON CONFLICT ({', '.join(columns[name] for name in KEY)}) "
            f"DO UPDATE SET {', '.join(added)}",
            parameters,
        )


def _quoted(name: str) -> str:
    return connection.ops.quote_name(name)
