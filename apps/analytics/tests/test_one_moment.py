"""All that one answer of statistics says is as of one moment, and nobody waits for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from django.db import connection

from apps.analytics.money import report_money
from apps.analytics.ranges import Range
from apps.analytics.tests.kit import record_call
from apps.analytics.usage import ASPECTS, report_usage
from apps.audit.models import APIRequest
from tests.support.databases import Database

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
NOVEMBER = Range(datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC))


def _record() -> None:
    record_call(started_at=NOW, settled_at=NOW)


@contextmanager
def _recording_meanwhile() -> Iterator[None]:
    """Have somebody else record a call after each statement that reads calls."""

    def record() -> None:
        try:
            _record()
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as others:

        def execute(run: Callable[..., Any], sql: str, params: Any, many: bool, _: Any) -> Any:
            found = run(sql, params, many, _)
            if "audit_apirequest" in sql:
                others.submit(record).result(20)
            return found

        with connection.execute_wrapper(execute):
            yield


def test_what_is_recorded_meanwhile_is_in_no_part_of_the_usage(committed_db: Database) -> None:
    _record()

    with _recording_meanwhile():
        report = report_usage({}, over=NOVEMBER, now=NOW, by=ASPECTS)

    groups = [report.days, report.models, report.providers, report.users]
    assert [report.totals.requests, report.today.requests] == [1, 1]
    assert [[row.sums.requests for row in group or []] for group in groups] == [[1]] * 4
    assert APIRequest.objects.count() == 9


def test_what_is_recorded_meanwhile_is_in_no_part_of_the_money(committed_db: Database) -> None:
    _record()

    with _recording_meanwhile():
        report = report_money(over=NOVEMBER)

    assert report.money.requests == 1
    assert [row.sums.requests for row in report.users] == [1]
    assert APIRequest.objects.count() == 3
