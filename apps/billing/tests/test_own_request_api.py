"""Tests of one's own calls over REST: others' are like missing ones, providers stay unseen."""

from __future__ import annotations

import uuid

import pytest
from pytest_django import DjangoAssertNumQueries
from rest_framework.test import APIClient

from apps.audit.models import Attempt
from apps.audit.payloads import seal_payload
from apps.billing.ledger.commands import Held
from apps.users.models import Role, User
from tests.support.calls import record_call
from tests.support.people import make_user, rest_client
from tests.support.world import DOLLAR, NOW, Gateway, django_engine, make_world

LIST = "/api/user/requests/"
COLUMNS = {
    "id", "api_key_id", "api_key_name", "model_id", "requested_model", "endpoint", "method",
    "dialect", "is_stream", "state", "status_code", "error_code", "finish_reason", "usage_source",
    "answered_from", "charge", "late_charges", "hold", "price_version_id", "multiplier",
    "input_bytes", "output_bytes",
    "started_at", "ttft_ms", "duration_ms", "settled_at", "ip_address", "user_agent",
    "input_tokens", "cache_read_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens",
    "output_tokens", "reasoning_tokens", "audio_in_tokens", "audio_out_tokens", "image_in_tokens",
    "image_out_tokens", "counts", "service_tier",
}  # fmt: skip


@pytest.fixture
def ada(db: None) -> User:
    """Return a user."""
    return make_user(username="ada")


@pytest.fixture
def client(ada: User) -> APIClient:
    """Return the user's client."""
    return rest_client(ada)


def test_one_sees_ones_own_calls_without_what_is_the_operators(
    ada: User, client: APIClient
) -> None:
    row = record_call(
        user_id=ada.pk, provider_id=5, provider_name="CANARY", upstream_model="CANARY",
        upstream_request_id="CANARY", cost_nanos=7, cost_version_id=8,
    )  # fmt: skip
    Attempt.objects.create(
        request_id=row.pk, number=1, route_id=1, provider_id=1, provider_name="CANARY",
        provider_key_id=1, started_at=NOW, duration_ms=1, error_text="CANARY",
    )  # fmt: skip
    record_call(user_id=ada.pk + 1)

    listed = client.get(LIST)
    shown = client.get(f"{LIST}{row.pk}/")

    assert [found["id"] for found in listed.json()["results"]] == [str(row.pk)]
    assert set(listed.json()["results"][0]) == COLUMNS
    assert set(shown.json()) == COLUMNS | {"timing", "explained_charge", "entries"}
    assert b"CANARY" not in listed.content + shown.content


def test_ones_own_charge_is_explained(db: None) -> None:
    world = make_world()
    gateway = Gateway(world, django_engine())
    held = gateway.hold(DOLLAR)
    assert isinstance(held, Held)
    gateway.resolve(held, 1_500)

    shown = rest_client(world.user).get(f"{LIST}{held.request_id}/").json()

    assert shown["explained_charge"]["total"] == shown["charge"] == "0.0015"
    assert [line["amount"] for line in shown["explained_charge"]["lines"]] == ["0.0015"]
    assert [(e["account_kind"], e["amount"]) for e in shown["entries"]] == [("wallet", "-0.0015")]


@pytest.mark.parametrize("role", Role.values)
@pytest.mark.parametrize("rest", ["", "payload/"])
def test_somebody_elses_call_is_like_none_to_every_role(ada: User, role: str, rest: str) -> None:
    """Byte for byte (Z1)."""
    sealed = seal_payload(b"a", b"b", is_response_truncated=False, keeps_bodies=True)
    theirs = record_call(user_id=ada.pk, payload_digest=sealed.digest)
    other = rest_client(make_user(role=role))

    found = other.get(f"{LIST}{theirs.pk}/{rest}")
    missing = other.get(f"{LIST}{uuid.uuid4()}/{rest}")

    assert found.status_code == missing.status_code == 404
    assert found.content == missing.content
    assert dict(found.headers) == dict(missing.headers)


def test_filters_do_not_reach_beyond_ones_own_calls(ada: User, client: APIClient) -> None:
    mine = record_call(user_id=ada.pk, api_key_id=1, requested_model="big")
    theirs = record_call(user_id=ada.pk + 1, api_key_id=2, requested_model="big")

    for query in ("", "?model=big", "?api_key=1", f"?request_id={mine.pk}", "?charge_min=0"):
        found = client.get(LIST + query).json()["results"]
        assert [row["id"] for row in found] == [str(mine.pk)], query
    for query in ("?api_key=2", f"?request_id={theirs.pk}"):
        assert client.get(LIST + query).json()["results"] == [], query


@pytest.mark.sqlite  # Refused before any statement runs.
@pytest.mark.parametrize(
    "query",
    [
        "user=1", "user_id=1", "customer=1", "provider=1", "cost_min=0", "cost_max=1", "error=x",
        "upstream_request_id=x", "is_usage_suspect=true", "ordering=cost_nanos", "fields=cost",
        "user__password__startswith=a",
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", [LIST, f"{LIST}export/"])
def test_what_is_the_operators_is_no_filter_either(
    client: APIClient, path: str, query: str
) -> None:
    answer = client.get(f"{path}?{query}")

    assert (answer.status_code, list(answer.json())) == (400, [query.partition("=")[0]])


@pytest.mark.parametrize("rows", [1, 5])
def test_ones_own_list_takes_the_same_queries_whatever_its_length(
    ada: User, client: APIClient, django_assert_num_queries: DjangoAssertNumQueries, rows: int
) -> None:
    made = [record_call(user_id=ada.pk) for _ in range(rows)]

    with django_assert_num_queries(2):
        assert len(client.get(LIST).json()["results"]) == rows
    # The session, the call, its price, its entries.
    with django_assert_num_queries(4):
        assert client.get(f"{LIST}{made[0].pk}/").status_code == 200


NO_CALL = "01a1fc64-f0ef-754a-85bd-bf54c585cf51"


@pytest.mark.parametrize("rest", ["", f"{NO_CALL}/", f"{NO_CALL}/payload/", "export/"])
def test_nobody_gets_in_without_a_session(db: None, rest: str) -> None:
    assert APIClient().get(LIST + rest).status_code == 401
    key = APIClient()
    key.credentials(HTTP_AUTHORIZATION="Bearer sk-audit-00000000000000000000000000000001")
    assert key.get(LIST + rest).status_code == 401
