"""Verifies that rollups come to what the calls come to that are marked as added to them (I-25)."""

from __future__ import annotations

from typing import Any, Final

from django.db.models import Exists, OuterRef

from apps.analytics.models import RolledUp, Rollup
from apps.analytics.rolling import KEY, sum_by_key
from apps.audit.models import APIRequest
from apps.audit.totals import SUM_COLUMNS
from apps.billing.findings import Findings, limited, stream

_DIFFERENCES: Final = """SELECT {key}, {differences}
    FROM (
        SELECT {key}, {recorded} FROM ({calls}) AS calls
        UNION ALL SELECT {rollup_key}, {kept} FROM {table}
    ) AS compared
    GROUP BY {key} HAVING {differs} ORDER BY {key}"""


def check_rollups(findings: Findings) -> None:
    """Verify every sum of each rollup, and that none is missing or was added."""
    sql, parameters = _differences()
    for row in stream(limited(sql), parameters):
        started_on, settled_on, user, key, model, provider = row[: len(KEY)]
        sums = zip(SUM_COLUMNS.values(), row[len(KEY) :], strict=True)
        off = ", ".join(f"{column} by {int(nanos)}" for column, nanos in sums if nanos)
        findings.add(
            "I-25",
            f"rollup of {started_on} (settled on {settled_on}, user {user}, key {key}, "
            f"model {model}, provider {provider})",
            expected="the sums of its calls",
            found=off,
            message=f"what statistics read differs from its calls: {off}",
        )


def _differences() -> tuple[str, tuple[Any, ...]]:
    """Return a query for what rollups have beyond their calls, by KEY, where it is not nothing."""
    added = RolledUp.objects.filter(
        incarnation_id=OuterRef("incarnation_id"), sequence__gte=OuterRef("sequence")
    )
    calls, parameters = sum_by_key(APIRequest.objects.filter(Exists(added))).query.sql_with_params()
    sql = _DIFFERENCES.format(
        calls=calls,
        table=Rollup._meta.db_table,
        key=", ".join(KEY),
        rollup_key=", ".join("provider_id" if name == "provider" else name for name in KEY),
        recorded=", ".join(
            f"-COALESCE({name}, 0) AS {column}" for name, column in SUM_COLUMNS.items()
        ),
        kept=", ".join(SUM_COLUMNS.values()),
        differences=", ".join(f"SUM({column})" for column in SUM_COLUMNS.values()),
        differs=" OR ".join(f"SUM({column}) <> 0" for column in SUM_COLUMNS.values()),
    )
    return sql, parameters
