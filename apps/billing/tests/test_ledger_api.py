"""Tests of the ledger over REST: what it shows, to whom, and that nothing there writes."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient

from apps.billing.customers import adjust_user_balance
from apps.billing.ledger.commands import Held, Line
from apps.billing.models import Account, Entry, Transaction, VerifiedHead
from apps.users.models import User
from tests.support.people import make_user, rest_client
from tests.support.world import (
    DOLLAR,
    NOW,
    Gateway,
    World,
    django_engine,
    make_quota,
    make_world,
    post_lines,
)

LEDGER: Final = "/api/admin/ledger"
MISSING_ID: Final = "00000000-0000-7000-8000-000000000000"
OWN_FIELDS: Final = {
    "id",
    "account",
    "account_kind",
    "transaction_kind",
    "kind",
    "amount",
    "balance_after",
    "request_id",
    "actor",
    "reason",
    "created_at",
}


@pytest.fixture
def world(db: None) -> World:
    """Return a customer with 10 dollars."""
    return make_world()


@pytest.fixture
def gateway(world: World) -> Gateway:
    """Return a gateway of this customer."""
    return Gateway(world, django_engine())


def _settle(gateway: Gateway, *, tokens: int, hold: int = 2 * DOLLAR, **more: Any) -> Held:
    held = gateway.hold(hold, **more)
    assert isinstance(held, Held)
    gateway.resolve(held, tokens)
    return held


def _ids(client: APIClient, path: str) -> list[Any]:
    return [row["id"] for row in client.get(path).json()["results"]]


def _entries(account_id: int) -> list[int]:
    found = Entry.objects.filter(account_id=account_id).order_by("-id")
    return list(found.values_list("pk", flat=True))


def test_an_account_shows_what_is_posted_held_and_available(
    client: APIClient, world: World, gateway: Gateway
) -> None:
    _settle(gateway, tokens=1_000_000)
    gateway.hold(3 * DOLLAR)
    VerifiedHead.objects.create(
        chain="account", chain_id=world.wallet_id, sequence=1, head=b"x", verified_at=NOW
    )

    listed = client.get(f"{LEDGER}/accounts/?customer={world.customer.pk}&kind=wallet").json()
    shown = client.get(f"{LEDGER}/accounts/{world.wallet_id}/").json()

    assert (listed["count"], listed["results"]) == (1, [shown])
    wallet = Account.objects.get(pk=world.wallet_id)
    assert {name: shown[name] for name in shown if name not in ("created_at", "head")} == {
        "id": world.wallet_id,
        "kind": "wallet",
        "name": wallet.name,
        "customer": world.customer.pk,
        "user": world.user.pk,
        "posted": "9",
        "held": "3",
        "available": "6",
        "sequence": 2,
        "verified_sequence": 1,
    }
    assert shown["head"] == bytes(wallet.head).hex()


@pytest.mark.parametrize(
    ("query", "kinds"),
    [
        ("customer={world.customer.pk}", ["wallet", "receivable"]),
        ("user={world.user.pk}", ["wallet", "receivable"]),
        ("kind=clearing", ["clearing"]),
        ("search=REVENUE 07", ["revenue"]),
        ("search=%25", []),
        ("customer=999999", []),
    ],
)
def test_accounts_are_filtered(
    client: APIClient, world: World, query: str, kinds: list[str]
) -> None:
    answer = client.get(f"{LEDGER}/accounts/?{query.format(world=world)}").json()

    assert [row["kind"] for row in answer["results"]] == kinds


def test_the_operators_accounts_have_no_customer(client: APIClient, world: World) -> None:
    shown = client.get(f"{LEDGER}/accounts/{world.clearing_id}/").json()

    assert (shown["customer"], shown["user"]) == (None, None)
    assert (shown["posted"], shown["available"]) == ("-10", "-10")


def test_an_accounts_entries_are_paged_newest_first_while_more_arrive(
    client: APIClient, world: World, gateway: Gateway
) -> None:
    for _ in range(5):
        _settle(gateway, tokens=100_000)
    expected = _entries(world.wallet_id)

    seen: list[int] = []
    page = client.get(f"{LEDGER}/accounts/{world.wallet_id}/entries/?page_size=2").json()
    for _ in range(10):
        seen += [row["id"] for row in page["results"]]
        _settle(gateway, tokens=1_000)
        if page["next"] is None:
            break
        page = client.get(page["next"]).json()

    assert seen == expected
    assert len(expected) == 6


def test_an_entry_tells_where_it_belongs_and_what_it_leaves(
    client: APIClient, world: World, gateway: Gateway
) -> None:
    held = _settle(gateway, tokens=1_500_000)

    shown = client.get(f"{LEDGER}/accounts/{world.wallet_id}/entries/").json()["results"][0]

    entry = Entry.objects.select_related("transaction").get(
        account_id=world.wallet_id, kind="charge"
    )
    assert shown == {
        "id": entry.pk,
        "transaction": str(entry.transaction_id),
        "transaction_kind": "settlement",
        "account": world.wallet_id,
        "account_kind": "wallet",
        "account_name": Account.objects.get(pk=world.wallet_id).name,
        "customer": world.customer.pk,
        "request_id": str(held.request_id),
        "kind": "charge",
        "amount": "-1.5",
        "balance_after": "8.5",
        "sequence": 2,
        "corrects": None,
        "actor_id": None,
        "actor_name": entry.transaction.actor_name,
        "reason": entry.transaction.reason,
        "created_at": "2026-11-21T12:00:00.123456Z",
        "hash": bytes(entry.hash).hex(),
    }


def test_a_transaction_comes_with_entries_that_sum_to_zero(
    client: APIClient, gateway: Gateway
) -> None:
    held = _settle(gateway, tokens=1_000_000)

    listed = client.get(f"{LEDGER}/transactions/?request_id={held.request_id}").json()["results"]
    shown = client.get(f"{LEDGER}/transactions/{listed[0]['id']}/").json()

    assert len(listed) == 1
    assert {name: shown[name] for name in listed[0]} == listed[0]
    assert shown["entry_count"] == 2
    assert [(row["kind"], row["amount"]) for row in shown["entries"]] == [
        ("charge", "-1"),
        ("revenue", "1"),
    ]


def test_a_transaction_shows_its_first_200_entries(client: APIClient, world: World) -> None:
    lines = [
        line
        for _ in range(101)
        for line in (Line(world.wallet_id, "credit", 1), Line(world.clearing_id, "debit", -1))
    ]
    posted = post_lines("top_up", *lines)

    shown = client.get(f"{LEDGER}/transactions/{posted}/").json()
    rest = client.get(f"{LEDGER}/entries/?transaction={posted}&page_size=200").json()

    assert (shown["entry_count"], len(shown["entries"])) == (202, 200)
    assert len(client.get(rest["next"]).json()["results"]) == 2


def test_transactions_are_filtered(
    client: APIClient, world: World, gateway: Gateway, root: User
) -> None:
    held = _settle(gateway, tokens=1_000)
    other = make_user()
    given = adjust_user_balance(
        user=other, amount_nanos=DOLLAR, reason="welcome", actor=root, idempotency_key="k1"
    )
    assert isinstance(given, Transaction)
    settled = Transaction.objects.get(kind="settlement")
    top_up = Transaction.objects.get(kind="top_up")
    wallet = Account.objects.get(customer_id=other.customer_id, kind="wallet")
    later = (NOW + timedelta(microseconds=1)).isoformat().replace("+", "%2B")
    now = NOW.isoformat().replace("+", "%2B")

    found = {
        query: _ids(client, f"{LEDGER}/transactions/?{query}")
        for query in (
            "kind=adjustment",
            f"actor={root.pk}",
            f"customer={other.customer_id}",
            f"account={wallet.pk}",
            f"idempotency_key={given.idempotency_key}",
            f"request_id={held.request_id}",
            f"customer={world.customer.pk}",
            f"request_id={MISSING_ID}",
            f"created_after={now}&created_before={later}&kind=top_up",
            f"created_before={now}&kind=top_up",
        )
    }

    assert list(found.values()) == [
        [str(given.pk)],
        [str(given.pk)],
        [str(given.pk)],
        [str(given.pk)],
        [str(given.pk)],
        [str(settled.pk)],
        [str(settled.pk), str(top_up.pk)],
        [],
        [str(top_up.pk)],
        [],
    ]


@pytest.mark.parametrize(
    ("query", "kinds"),
    [
        ("account={world.wallet_id}", ["excess", "charge", "charge", "credit"]),
        ("account={world.receivable_id}", ["excess"]),
        ("customer={world.customer.pk}&kind=charge", ["charge", "charge"]),
        ("request_id={held.request_id}", ["excess", "excess", "charge"]),
        ("kind=excess&account={world.receivable_id}", ["excess"]),
        ("kind=excess&amount_min=0", []),
        ("customer={world.customer.pk}&amount_min=0.000000001", ["credit"]),
        ("customer={world.customer.pk}&amount_max=-8", ["excess"]),
        ("transaction=" + MISSING_ID, []),
    ],
)
def test_entries_are_filtered(
    client: APIClient, world: World, gateway: Gateway, query: str, kinds: list[str]
) -> None:
    _settle(gateway, tokens=1_000_000)
    # Of ten dollars nine were there: one held, eight more in the wallet, one is owed.
    held = _settle(gateway, tokens=10_000_000, hold=DOLLAR)

    answer = client.get(f"{LEDGER}/entries/?{query.format(world=world, held=held)}").json()

    assert [row["kind"] for row in answer["results"]] == kinds


def test_a_users_ledger_is_that_of_all_own_accounts(
    client: APIClient, world: World, gateway: Gateway
) -> None:
    quota = make_quota(world, DOLLAR)
    _settle(gateway, tokens=1_500_000, quotas=(quota,))
    _settle(Gateway(make_world(), django_engine()), tokens=1_000)

    answer = client.get(f"/api/admin/users/{world.user.pk}/ledger/").json()

    assert [
        (row["account_kind"], row["kind"], row["amount"], row["balance_after"])
        for row in answer["results"]
    ] == [
        ("wallet", "charge", "-0.5", "9.5"),
        ("quota", "charge", "-1", "0"),
        ("quota", "credit", "1", "1"),
        ("wallet", "credit", "10", "10"),
    ]
    assert (answer["next"], answer["previous"]) == (None, None)
    charges = client.get(f"/api/admin/users/{world.user.pk}/ledger/?kind=charge").json()["results"]
    assert charges == answer["results"][:2]


def test_ones_own_ledger_names_no_operator(
    client: APIClient, world: World, gateway: Gateway, root: User
) -> None:
    _settle(gateway, tokens=1_000_000)
    adjust_user_balance(
        user=world.user, amount_nanos=DOLLAR, reason="sorry", actor=root, idempotency_key="k1"
    )
    _settle(Gateway(make_world(), django_engine()), tokens=1_000)

    answer = rest_client(world.user).get("/api/user/ledger/")

    rows = answer.json()["results"]
    assert [(row["kind"], row["amount"], row["actor"], row["reason"]) for row in rows] == [
        ("credit", "1", "operator", "sorry"),
        ("charge", "-1", "system", rows[1]["reason"]),
        ("credit", "10", "system", "test"),
    ]
    assert {name for row in rows for name in row} == OWN_FIELDS
    assert root.username not in answer.content.decode()
    assert {row["account"] for row in rows} == {world.wallet_id}


def test_nobody_elses_ledger_is_ones_own(world: World) -> None:
    assert rest_client(make_user()).get("/api/user/ledger/").json()["results"] == []


@pytest.mark.parametrize(
    ("path", "queries"),
    [
        # The session with its user; what is asked for first (count, account, ids); the rows.
        (f"{LEDGER}/accounts/", 3),
        (f"{LEDGER}/accounts/{{account}}/entries/", 3),
        (f"{LEDGER}/transactions/", 2),
        (f"{LEDGER}/entries/", 2),
        (f"{LEDGER}/entries/?customer={{customer}}", 3),
        ("/api/admin/users/{user}/ledger/", 4),
    ],
)
def test_a_list_takes_the_same_queries_whatever_its_length(
    client: APIClient, world: World, gateway: Gateway, path: str, queries: int
) -> None:
    path = path.format(account=world.wallet_id, customer=world.customer.pk, user=world.user.pk)
    counts = []

    for _ in range(2):
        with CaptureQueriesContext(
            connection,
        ) as captured:
            assert client.get(path).json()["results"]
        counts.append(len(captured))
        for _ in range(4):
            _settle(gateway, tokens=1_000)
        make_world()

    assert counts == [queries, queries]
