"""Tests of who may read the ledger over REST, that nobody writes it, and what it refuses."""

from __future__ import annotations

from typing import Any, Final

import pytest
from rest_framework.test import APIClient

from apps.billing.models import Account, Entry, Transaction
from apps.users.models import Role
from tests.support.people import make_admin, make_user, rest_client
from tests.support.world import World, make_world

LEDGER: Final = "/api/admin/ledger"
MISSING_ID: Final = "00000000-0000-7000-8000-000000000000"
PATHS: Final = [
    f"{LEDGER}/accounts/",
    f"{LEDGER}/accounts/{{account}}/",
    f"{LEDGER}/accounts/{{account}}/entries/",
    f"{LEDGER}/transactions/",
    f"{LEDGER}/transactions/{{transaction}}/",
    f"{LEDGER}/entries/",
    f"{LEDGER}/proof/",
    "/api/admin/users/{user}/ledger/",
]


def _fill(path: str, world: World) -> str:
    return path.format(
        account=world.wallet_id, transaction=Transaction.objects.get().pk, user=world.user.pk
    )


@pytest.fixture
def world(db: None) -> World:
    """Return a customer with 10 dollars."""
    return make_world()


@pytest.mark.parametrize("path", PATHS)
def test_the_ledger_is_for_analysts_and_administrators_to_read(world: World, path: str) -> None:
    path = _fill(path, world)

    assert APIClient().get(path).status_code == 401
    for role, status in ((Role.USER, 403), (Role.VIEWER, 403), (Role.ANALYST, 200)):
        assert rest_client(make_user(role=role)).get(path).status_code == status, role
    assert rest_client(make_admin()).get(path.rstrip("/")).status_code == 200


@pytest.mark.parametrize("path", [*PATHS, "/api/user/ledger/"])
def test_nothing_writes_the_ledger(client: APIClient, world: World, path: str) -> None:
    path = _fill(path, world)
    before = _tables()

    statuses = {
        method: client.generic(method, path, "{}", content_type="application/json").status_code
        for method in ("POST", "PUT", "PATCH", "DELETE")
    }

    assert statuses == {"POST": 405, "PUT": 405, "PATCH": 405, "DELETE": 405}
    assert _tables() == before


def _tables() -> list[Any]:
    found: list[Any] = []
    for model in (Account, Transaction, Entry):
        found += model.objects.order_by("pk").values_list()
    return found


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"{LEDGER}/accounts/999999/", 404),
        (f"{LEDGER}/accounts/999999/entries/", 404),
        (f"{LEDGER}/transactions/{MISSING_ID}/", 404),
        ("/api/admin/users/999999/ledger/", 404),
        (f"{LEDGER}/accounts/?kind=purse", 400),
        (f"{LEDGER}/accounts/?customer=x", 400),
        (f"{LEDGER}/accounts/?name=x", 400),
        (f"{LEDGER}/transactions/?kind=gift", 400),
        (f"{LEDGER}/transactions/?actor=99999999999999999999", 400),
        (f"{LEDGER}/transactions/?request_id=1", 400),
        (f"{LEDGER}/transactions/?created_after=noon", 400),
        (f"{LEDGER}/transactions/?created_after=0001-01-01T00:00:00%2B14:00", 400),
        (f"{LEDGER}/transactions/?created_before=9999-12-31T23:59:59-14:00", 400),
        (f"{LEDGER}/transactions/?idempotency_key=%00", 400),
        (f"{LEDGER}/transactions/?cursor=cD1ub29u", 404),
        # p=0001-01-01T00:00:00+14:00
        (f"{LEDGER}/transactions/?cursor=cD0wMDAxLTAxLTAxVDAwJTNBMDAlM0EwMCUyQjE0JTNBMDA=", 404),
        (f"{LEDGER}/entries/?amount_min=1e99", 400),
        (f"{LEDGER}/entries/?amount_min=0.0000000001", 400),
        (f"{LEDGER}/entries/?account=-1", 400),
        (f"{LEDGER}/entries/?ordering=hash", 400),
        (f"{LEDGER}/accounts/1/entries/?customer=1", 400),
        ("/api/user/ledger/?user=1", 400),
        ("/api/user/ledger/?kind=gift", 400),
        (f"{LEDGER}/entries/?cursor=x", 404),
        (f"{LEDGER}/entries/?sequence=1", 400),
    ],
)
def test_what_cannot_be_understood_is_refused(client: APIClient, path: str, status: int) -> None:
    assert client.get(path).status_code == status
