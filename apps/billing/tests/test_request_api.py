"""Tests of listing recorded calls over REST: columns, masks, and pages that stay complete."""

from __future__ import annotations

import base64
import itertools
import uuid
from datetime import timedelta
from urllib.parse import quote

import pytest
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries
from rest_framework.test import APIClient

from apps.audit.models import APIRequest
from apps.core.ids import new_uuid7
from apps.users.models import Role
from tests.support.calls import make_call, record_call
from tests.support.people import make_user, rest_client

LIST = "/api/admin/requests/"
MASKED = [
    "customer_id", "user_id", "user_name", "api_key_id", "api_key_name", "ip_address",
    "user_agent", "upstream_request_id", "payload_digest", "hash", "charge", "late_charges", "hold",
    "multiplier", "price_version_id", "cost", "cost_version_id",
]  # fmt: skip


def _ids(pages: list[list[str]]) -> list[str]:
    return list(itertools.chain.from_iterable(pages))


def _walk(client: APIClient, path: str) -> list[list[str]]:
    """Return the ids of all pages from a path on."""
    pages: list[list[str]] = []
    following: str | None = path
    while following is not None:
        assert len(pages) < 20
        page = client.get(following).json()
        pages.append([row["id"] for row in page["results"]])
        following = page["next"]
    return pages


def test_recorded_calls_have_all_columns_and_money_as_text(client: APIClient) -> None:
    row = record_call(user_id=7, charge_nanos=1_234_567, hold_nanos=10**9, payload_digest=b"\x0f")

    answer = client.get(f"{LIST}?user=7&page_size=100").json()

    assert set(answer) == {"next", "previous", "results"}
    shown = answer["results"][0]
    columns = {field.attname for field in APIRequest._meta.concrete_fields}
    renamed = {
        "charge_nanos": "charge",
        "cost_nanos": "cost",
        "hold_nanos": "hold",
        "multiplier_millionths": "multiplier",
    }
    assert set(shown) == {renamed.get(name, name) for name in columns} | {"late_charges"}
    assert (shown["id"], shown["charge"], shown["cost"], shown["hold"], shown["multiplier"]) == (
        str(row.pk),
        "0.001234567",
        None,
        "1",
        "0.5",
    )
    assert shown["payload_digest"] == "0f"


def test_viewers_see_calls_without_people_and_what_providers_bill(client: APIClient) -> None:
    record_call(cost_nanos=5, cost_version_id=1, payload_digest=b"1", upstream_request_id="req_1")
    viewer = rest_client(make_user(role=Role.VIEWER))
    analyst = rest_client(make_user(role=Role.ANALYST))

    full = client.get(LIST).json()["results"][0]
    masked = viewer.get(LIST).json()["results"][0]

    assert analyst.get(LIST).json()["results"][0] == full
    assert [name for name in full if masked[name] != full[name]] == sorted(
        MASKED, key=list(full).index
    )
    assert {masked[name] for name in MASKED} == {None}


@pytest.mark.parametrize(
    "query",
    [
        "address=192.0.2.1",
        "user=1",
        "api_key=1",
        "charge_min=0",
        "cost_min=0",
        "error=x",
        "upstream_request_id=req_1",
    ],
)
def test_viewers_cannot_find_out_by_filters_what_is_masked(db: None, query: str) -> None:
    record_call(cost_nanos=5, upstream_request_id="req_1")

    answer = rest_client(make_user(role=Role.VIEWER)).get(f"{LIST}?{query}")

    assert (answer.status_code, answer.json()) == (
        400,
        {query.partition("=")[0]: ["Your role cannot filter by this."]},
    )


def test_recorded_calls_are_paged_newest_first_each_once(client: APIClient) -> None:
    rows = [record_call(minutes_ago=number // 2) for number in range(7)]
    newest_first = sorted(rows, key=lambda row: (row.started_at, row.pk), reverse=True)
    expected = [str(row.pk) for row in newest_first]

    pages = _walk(client, f"{LIST}?page_size=2")

    assert [len(page) for page in pages] == [2, 2, 2, 1]
    assert _ids(pages) == expected


def test_pages_lead_back_the_way_they_came(client: APIClient) -> None:
    for number in range(5):
        record_call(minutes_ago=number)
    first = client.get(f"{LIST}?page_size=2").json()
    second = client.get(first["next"]).json()
    third = client.get(second["next"]).json()

    assert (first["previous"], third["next"]) == (None, None)
    assert client.get(third["previous"]).json()["results"] == second["results"]
    back = client.get(second["previous"]).json()
    assert back["results"] == first["results"]
    assert back["previous"] is None
    assert client.get(back["next"]).json()["results"] == second["results"]


def test_calls_recorded_between_two_pages_neither_repeat_nor_hide_others(
    client: APIClient,
) -> None:
    """Also of the same moment: before, between and after the ids of the first page (I-65)."""
    at = timezone.now()
    ids = sorted(new_uuid7() for _ in range(12))
    there = [ids[i] for i in (1, 3, 5, 7, 9, 11)]
    for key in there:
        record_call(id=key, started_at=at)
    record_call(started_at=at - timedelta(minutes=1))

    first = client.get(f"{LIST}?page_size=2").json()
    for key in (ids[0], ids[8], ids[10]):
        record_call(id=key, started_at=at)
    record_call(started_at=at + timedelta(minutes=1))
    seen = [row["id"] for row in first["results"]] + _ids(_walk(client, first["next"]))

    assert len(seen) == len(set(seen))
    assert {str(key) for key in there} <= set(seen)
    assert seen[:2] == [str(ids[11]), str(ids[9])]


def test_more_calls_of_one_moment_than_any_offset_takes_are_all_listed(client: APIClient) -> None:
    at = timezone.now()
    APIRequest.objects.bulk_create([make_call(started_at=at) for _ in range(1_300)])

    pages = _walk(client, f"{LIST}?page_size=200")

    assert len(set(_ids(pages))) == 1_300


@pytest.mark.parametrize(
    "text",
    [
        "noon",
        "2026-13-45T00:00:00Z_x",
        "2026-11-21T00:00:00_0199c2a46f3e7c1a9b523d8e5f7a1b2c",
        "0001-01-01T00:00:00+14:00_0199c2a46f3e7c1a9b523d8e5f7a1b2c",
        "2026-11-21T00:00:00+23:59_0199c2a46f3e7c1a9b523d8e5f7a1b2c",
        "2026-11-21T00:00:00Z_1",
        "\x00",
    ],
)
def test_a_forged_cursor_is_404(client: APIClient, text: str) -> None:
    cursor = base64.b64encode(f"p={quote(text)}".encode()).decode()

    for forged in (cursor, "x"):
        answer = client.get(f"{LIST}?cursor={quote(forged)}")
        assert (answer.status_code, answer.json().get("code")) == (404, "not_found"), answer.content


def test_a_page_has_at_most_200_rows(client: APIClient) -> None:
    APIRequest.objects.bulk_create([make_call() for _ in range(201)])

    assert len(client.get(f"{LIST}?page_size=200").json()["results"]) == 200
    assert client.get(f"{LIST}?page_size=201").status_code == 400


@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize(
    ("query", "queries"), [("", 2), ("?error=x&address=10.0.0.0/9&tokens_min=1", 2)]
)
def test_a_list_takes_the_same_queries_whatever_its_length(
    client: APIClient,
    django_assert_num_queries: DjangoAssertNumQueries,
    rows: int,
    query: str,
    queries: int,
) -> None:
    for _ in range(rows):
        record_call(error_code="x", ip_address="10.1.1.1", input_tokens=1)

    with django_assert_num_queries(queries):
        answer = client.get(LIST + query)

    assert len(answer.json()["results"]) == rows


def test_the_calls_of_one_user_have_a_list_of_their_own(client: APIClient) -> None:
    user = make_user()
    mine = record_call(user_id=user.pk)
    record_call(user_id=user.pk + 1)

    answer = client.get(f"/api/admin/users/{user.pk}/requests/")

    assert [row["id"] for row in answer.json()["results"]] == [str(mine.pk)]
    other = client.get(f"/api/admin/users/{user.pk}/requests/?user={user.pk + 1}")
    assert other.json()["results"] == []
    assert client.get("/api/admin/users/999999/requests/").status_code == 404


@pytest.mark.parametrize(
    ("role", "expected"),
    [
        (Role.USER, {"list": 403, "user": 403, "one": 403, "payload": 403, "export": 403}),
        (Role.VIEWER, {"list": 200, "user": 403, "one": 200, "payload": 403, "export": 403}),
        (Role.ANALYST, {"list": 200, "user": 200, "one": 200, "payload": 403, "export": 429}),
        (None, {"list": 401, "user": 401, "one": 401, "payload": 401, "export": 401}),
    ],
)
def test_each_role_reads_what_is_its_own_to_read(
    db: None, role: Role | None, expected: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    # No place for an export: who is let in gets as far as that.
    monkeypatch.setattr("apps.audit.export.EXPORTS_MAX", 0)
    row = record_call()
    user = make_user(role=role or Role.USER)
    client = rest_client(user) if role else APIClient()
    paths = {
        "list": LIST,
        "user": f"/api/admin/users/{user.pk}/requests/",
        "one": f"{LIST}{row.pk}/",
        "payload": f"{LIST}{row.pk}/payload/",
        "export": f"{LIST}export/",
    }

    found = {name: client.get(path).status_code for name, path in paths.items()}

    assert found == expected


def test_what_is_no_call_is_404(client: APIClient) -> None:
    for path in ("", "payload/"):
        assert client.get(f"{LIST}{uuid.uuid4()}/{path}").status_code == 404
