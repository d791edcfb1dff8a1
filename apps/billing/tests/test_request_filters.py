"""Tests of filtering recorded calls: each filter finds its calls, and refuses what it is not."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from django.db import connection
from django.utils import timezone
from rest_framework.test import APIClient

from apps.audit.filters import SEARCH_DAYS
from apps.audit.models import APIRequest, Attempt
from tests.support.calls import make_call, record_call

LIST = "/api/admin/requests/"
AT = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
ADDRESSES = [
    "10.0.0.1", "10.0.5.9", "10.1.0.1", "10.127.0.1", "10.128.0.1", "100.0.0.1", "192.0.2.1",
    "192.0.2.17", "192.0.2.170", "::1", "2001:db8::", "2001:db8::1", "2001:db8:0:1::1",
    "2001:db8:1::", "2001:db8:8000::5", "2001:db9::1", "fe80::1", "",
]  # fmt: skip
WANTED: dict[str, Any] = {
    "user_id": 7,
    "customer_id": 17,
    "api_key_id": 3,
    "requested_model": "big",
    "model_id": 4,
    "provider_id": 2,
    "status_code": 502,
    "state": "failed",
    "ip_address": "10.1.2.3",
    "charge_nanos": 2_000_000_000,
    "cost_nanos": 1_500_000_000,
    "duration_ms": 900,
    "ttft_ms": 300,
    "input_tokens": 40,
    "output_tokens": 60,
    "reasoning_tokens": 25,
    "usage_source": "estimated",
    "is_usage_suspect": True,
    "is_stream": True,
    "endpoint": "/v1/embeddings",
    "error_code": "upstream_error",
    "upstream_request_id": "req_1",
    "finish_reason": "length",
    "settled_at": timezone.now() + timedelta(hours=1),
}


def _find(client: APIClient, **query: Any) -> list[str]:
    answer = client.get(f"{LIST}?{urlencode(query)}")
    assert answer.status_code == 200, answer.content
    return [row["id"] for row in answer.json()["results"]]


@pytest.mark.parametrize(
    "query",
    [
        "user=7", "customer=17", "api_key=3", "model=big", "model=big,huge", "model_id=4",
        "provider=2", "provider=2,9", "status_class=5xx", "status_class=4xx,5xx",
        "status_code=502", "status_code=500,502", "state=failed", "state=failed,voided",
        "address=10.1.2.3", "address=10.0.0.0/8", "address=10.1.2.0/30", "charge_min=2",
        "charge_min=1.5&charge_max=2.5", "cost_min=1.5", "cost_min=1&cost_max=1.5",
        "duration_min=900", "duration_min=2&duration_max=1000", "ttft_min=300", "ttft_max=300",
        "tokens_min=125", "tokens_min=125&tokens_max=125", "input_tokens_min=40",
        "output_tokens_min=60", "input_tokens_min=1&input_tokens_max=40",
        "output_tokens_min=1&output_tokens_max=60", "usage_source=estimated",
        "usage_source=estimated,none", "is_usage_suspect=true", "is_stream=true",
        "endpoint=/v1/embeddings", "error_code=upstream_error", "error=STREAM_err",
        "upstream_request_id=req_1", "finish_reason=length",
        "user=7&model=big&status_class=5xx&error=upstream",
    ],
)  # fmt: skip
def test_a_filter_finds_its_calls_and_no_others(client: APIClient, query: str) -> None:
    wanted = record_call(**WANTED)
    record_call(ip_address="100.1.2.3", duration_ms=1)

    found = client.get(f"{LIST}?{query}").json()["results"]

    assert [row["id"] for row in found] == [str(wanted.pk)]


def test_calls_are_found_by_id_and_by_what_they_are_not(client: APIClient) -> None:
    first, second = record_call(**WANTED), record_call(is_stream=False)

    assert _find(client, request_id=str(first.pk)) == [str(first.pk)]
    for query in (
        {"is_stream": "false"},
        {"is_usage_suspect": "false"},
        {"charge_max": "1.999999999"},
        {"tokens_max": 124},
        {"status_class": "2xx"},
    ):
        assert _find(client, **query) == [str(second.pk)], query


@pytest.mark.parametrize("name", ["started", "settled"])
def test_bounds_in_time_take_the_first_moment_and_leave_the_last(
    client: APIClient, name: str
) -> None:
    rows = [
        record_call(**{f"{name}_at": AT + timedelta(hours=hour), "user_id": 5}) for hour in range(3)
    ]

    query = {
        "user": 5,
        f"{name}_after": AT.isoformat(),
        f"{name}_before": (AT + timedelta(hours=2)).isoformat(),
    }

    assert set(_find(client, **query)) == {str(row.pk) for row in rows[:2]}
    assert len(_find(client, user=5, **{f"{name}_after": "2026-11-20T13:00:00+01:00"})) == 3


@pytest.mark.parametrize(
    "network",
    [
        "10.0.0.0/8", "10.0.0.0/9", "10.0.0.0/16", "10.0.4.0/22", "10.0.0.0/31", "0.0.0.0/0",
        "192.0.2.16/28", "192.0.2.0/24", "10.0.0.0/10", "2001:db8::/32", "2001:db8::/33",
        "2001:db8::/48", "2001:db8::/64", "2001:db8::/127", "2001:d80::/28", "::/0", "::/1",
        "fe80::/10", "::1", "::ffff:10.0.0.0/104",
    ],
)  # fmt: skip
def test_a_network_finds_exactly_its_addresses(client: APIClient, network: str) -> None:
    APIRequest.objects.bulk_create([make_call(ip_address=address) for address in ADDRESSES])
    mapped = network.removeprefix("::ffff:").replace("/104", "/8")
    expected = {
        address
        for address in ADDRESSES
        if address and ipaddress.ip_address(address) in ipaddress.ip_network(mapped)
    }

    found = client.get(f"{LIST}?address={quote(network)}").json()["results"]

    assert {row["ip_address"] for row in found} == expected
    assert len(found) == len(expected)


def test_text_of_an_error_is_looked_for_literally_in_calls_and_attempts(client: APIClient) -> None:
    plain = record_call(error_code="")
    failed = record_call(error_code="upstream_error", state="failed", status_code=502)
    retried = record_call(attempt_count=2)
    for number, text in ((1, "quota 100% used"), (2, "")):
        Attempt.objects.create(
            request_id=retried.pk,
            number=number,
            route_id=1,
            provider_id=1,
            provider_key_id=1,
            started_at=AT,
            duration_ms=1,
            error_text=text,
        )

    assert _find(client, error="100% USED") == [str(retried.pk)]
    assert _find(client, error="upstream_err") == [str(failed.pk)]
    assert _find(client, error="100%%") == _find(client, error="upstream%err") == []
    assert _find(client, error="m_e") == [str(failed.pk)]
    assert _find(client, error="_") == [str(failed.pk)]
    assert str(plain.pk) in _find(client)


def test_a_search_that_no_index_serves_goes_back_a_month_unless_told_otherwise(
    client: APIClient,
) -> None:
    long_ago = timezone.now() - timedelta(days=SEARCH_DAYS + 2)
    old = record_call(started_at=long_ago, user_id=5, finish_reason="length")
    week_later = (long_ago + timedelta(days=7)).isoformat()

    assert _find(client, finish_reason="length") == []
    assert _find(client, status_code="200,302") == []
    assert _find(client, status_code="200,404") == [str(old.pk)]
    for query in (
        {"user": 5},
        {"started_after": "2020-01-01T00:00:00Z"},
        {"started_before": week_later},
        {"api_key": 1},
        {"customer": 1},
        {"request_id": str(old.pk)},
    ):
        assert _find(client, finish_reason="length", **query) == [str(old.pk)], query
    for query in ({}, {"model": "small"}, {"status_class": "2xx"}, {"state": "completed"}):
        assert _find(client, **query) == [str(old.pk)], query


def test_a_search_before_the_first_moment_finds_nothing(client: APIClient) -> None:
    record_call(finish_reason="length")

    for moment in ("1970-01-01T00:00:00+14:00", "1970-01-02T00:00:00Z"):
        assert _find(client, finish_reason="length", started_before=moment) == []


@pytest.mark.sqlite  # Refused before any statement runs.
@pytest.mark.parametrize(
    "query",
    [
        "user=x", "user=-1", "user=99999999999999999999", "user=1&user=2", "state=gone",
        "state=failed,gone", "started_after=noon", "started_after=0001-01-01T00:00:00%2B14:00",
        "started_before=9999-12-31T23:59:59-14:00", "model=%00", "error=%00", "provider=1,x",
        "status_class=3xx", "status_class=5", "status_code=x", "address=10.0.0", "address=x",
        "address=10.0.0.0/33", "address=fe80::1%25eth0", "address=%00", "request_id=1",
        "charge_min=1e-10", "charge_min=NaN", "charge_min=x", "charge_max=99999999999",
        "duration_min=-1", "tokens_min=1.5", "is_stream=maybe", "is_stream=1",
        "usage_source=guessed", "usage_source=%00",
        "ordering=password", "ordering=-started_at", "user__password__startswith=a", "fields=id",
        "user_id=1", "page=1", "offset=5", "model=" + "x" * 30_000,
    ],
)  # fmt: skip
def test_a_bad_filter_is_refused_by_name(client: APIClient, query: str) -> None:
    record_call(user_id=1)

    answer = client.get(f"{LIST}?{query}")

    assert answer.status_code == 400
    assert list(answer.json()) == [query.partition("=")[0]]


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("requested_model = 'none'", "audit_request_model"),
        ("provider_id = 99", "audit_request_provider"),
        ("status_code >= 400 AND status_code < 500", "audit_request_failures"),
        ("state IN ('failed', 'voided')", "audit_request_failures"),
        ("error_code IN ('a', 'b')", "audit_request_failures"),
        ("(attempt_count > 1 OR error_code > '')", "audit_request_failures"),
        ("user_id = 99", "audit_request_user"),
        ("api_key_id = 99", "audit_request_key"),
    ],
)
@pytest.mark.postgres
@pytest.mark.usefixtures("db")
def test_the_index_of_a_filter_can_serve_it(query: str, name: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute("SET LOCAL enable_bitmapscan = off")
        # The list's own index would serve any filter, row by row.
        cursor.execute("DROP INDEX audit_request_started")
        cursor.execute(
            f"EXPLAIN SELECT * FROM audit_apirequest WHERE {query} "  # noqa: S608 (from above)
            "ORDER BY started_at DESC, id DESC LIMIT 51"
        )
        plan = "\n".join(row[0] for row in cursor.fetchall())
        cursor.execute(
            "SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid "
            "WHERE inhparent = %s::regclass",
            [name],
        )
        parts = [row[0] for row in cursor.fetchall()]

    assert parts
    assert [part for part in parts if part not in plan] == []
