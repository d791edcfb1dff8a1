"""Tests of listing recorded calls over REST."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from apps.audit.models import APIRequest
from tests.support.calls import make_call, record_call
from tests.support.people import make_admin, rest_client


@pytest.fixture
def client(db: None) -> APIClient:
    """Return a client of an administrator."""
    return rest_client(make_admin())


def test_recorded_calls_have_all_columns_and_money_as_text(client: APIClient) -> None:
    row = record_call(user_id=7, charge_nanos=1_234_567, hold_nanos=10**9)

    answer = client.get("/api/admin/requests/?user=7&page_size=100").json()

    assert set(answer) == {"next", "previous", "results"}
    shown = answer["results"][0]
    columns = {field.attname for field in APIRequest._meta.concrete_fields}
    renamed = {
        "charge_nanos": "charge",
        "cost_nanos": "cost",
        "hold_nanos": "hold",
        "multiplier_millionths": "multiplier",
    }
    assert set(shown) == {renamed.get(name, name) for name in columns}
    assert (shown["id"], shown["charge"], shown["cost"], shown["hold"], shown["multiplier"]) == (
        str(row.pk),
        "0.001234567",
        None,
        "1",
        "0.5",
    )


def test_recorded_calls_are_paged_newest_first_each_once(client: APIClient) -> None:
    rows = [record_call(minutes_ago=number // 2) for number in range(7)]
    expected = [
        str(row.pk) for row in sorted(rows, key=lambda row: (row.started_at, row.pk), reverse=True)
    ]

    seen: list[str] = []
    page = client.get("/api/admin/requests/?page_size=2").json()
    for _ in range(10):
        seen += [row["id"] for row in page["results"]]
        if page["next"] is None:
            break
        page = client.get(page["next"]).json()

    assert seen == expected


def test_recorded_calls_are_filtered(client: APIClient) -> None:
    wanted = record_call(user_id=7, api_key_id=3, requested_model="big", state="failed")
    record_call(user_id=8, api_key_id=4, requested_model="small", minutes_ago=60)

    half_an_hour_ago = (timezone.now() - timedelta(minutes=30)).isoformat().replace("+", "%2B")
    for query in (
        "user=7",
        "api_key=3",
        "model=big",
        "state=failed",
        f"started_after={half_an_hour_ago}",
    ):
        found = client.get(f"/api/admin/requests/?{query}").json()["results"]
        assert [row["id"] for row in found] == [str(wanted.pk)], query
    before = client.get(f"/api/admin/requests/?started_before={half_an_hour_ago}").json()
    assert [row["user_id"] for row in before["results"]] == [8]


@pytest.mark.parametrize(
    "query",
    ["user=x", "user=99999999999999999999", "state=gone", "started_after=noon", "model=%00"],
)
def test_a_bad_filter_is_400(client: APIClient, query: str) -> None:
    answer = client.get(f"/api/admin/requests/?{query}")

    assert answer.status_code == 400
    assert list(answer.json()) == [query.partition("=")[0]]


@pytest.mark.parametrize("cursor", ["x", "cD1ub29u", "cD0yMDI2LTEzLTQ1"])
def test_a_forged_cursor_is_404(client: APIClient, cursor: str) -> None:
    record_call()

    assert client.get(f"/api/admin/requests/?cursor={cursor}").status_code == 404


def test_a_page_has_at_most_200_rows(client: APIClient) -> None:
    APIRequest.objects.bulk_create([make_call() for _ in range(201)])

    assert len(client.get("/api/admin/requests/?page_size=100000").json()["results"]) == 200
