"""Tests of making users and moving their money by hand."""

from __future__ import annotations

import pytest
from django.db import DatabaseError

from apps.audit.models import AdminEvent
from apps.billing.accounts import find_standing
from apps.billing.customers import (
    adjust_user_balance,
    create_user,
    delete_user,
)
from apps.billing.models import Account, Transaction
from apps.core.idempotency_keys import IdempotencyKeyReused
from apps.users.changes import UserGone
from apps.users.models import Customer, User
from apps.users.names import UserExists, UsernameAmbiguous
from tests.support.admin_events import break_events
from tests.support.people import make_admin, make_user

DOLLAR = 1_000_000_000

pytestmark = pytest.mark.usefixtures("db")


def test_a_user_comes_with_a_customer_and_empty_accounts() -> None:
    root = make_admin()

    user = create_user(
        username="ada", email="Ada@Example.com", password=None, name="Ada", actor=root
    )

    assert (user.email, user.role, user.is_superuser) == ("ada@example.com", "user", False)
    assert not user.has_usable_password()
    assert sorted(
        Account.objects.filter(customer=user.customer).values_list("kind", flat=True)
    ) == [
        "receivable",
        "wallet",
    ]
    event = AdminEvent.objects.get(action="user.created", object_name="ada")
    assert event.actor_id == root.pk
    assert "password" not in (event.after or {})


def test_a_superuser_is_an_admin() -> None:
    root = make_admin()

    assert (root.role, root.is_staff, root.is_superuser) == ("admin", True, True)


@pytest.mark.parametrize(
    ("username", "email"),
    [("ada", "new@example.com"), ("new", "ada@example.com"), ("new", "ADA@example.com")],
)
def test_a_name_and_an_address_are_taken_once(username: str, email: str) -> None:
    make_user(username="ada", email="ada@example.com")

    with pytest.raises(UserExists):
        make_user(username=username, email=email)
    assert (User.objects.count(), Customer.objects.count()) == (1, 1)


def test_nobody_can_be_named_like_the_address_of_somebody_else() -> None:
    with pytest.raises(UsernameAmbiguous):
        make_user(username="ada@example.com", email="eve@example.com")

    assert make_user(username="ada@example.com", email="ada@example.com").pk


def test_an_adjustment_moves_money_and_says_why() -> None:
    root, user = make_admin(), make_user()

    adjust_user_balance(user=user, amount_nanos=10 * DOLLAR, reason="welcome", actor=root)
    adjust_user_balance(user=user, amount_nanos=-3 * DOLLAR, reason="mistake", actor=root)

    assert find_standing(user.customer_id).balance_nanos == 7 * DOLLAR
    events = AdminEvent.objects.filter(action="user.balance_adjusted").order_by("id")
    assert [(event.reason, event.after["amount"]) for event in events if event.after] == [
        ("welcome", "10"),
        ("mistake", "-3"),
    ]


def test_the_same_key_again_moves_nothing() -> None:
    user = make_user()

    first = adjust_user_balance(
        user=user, amount_nanos=DOLLAR, reason="once", actor=None, idempotency_key="k1"
    )
    again = adjust_user_balance(
        user=user, amount_nanos=DOLLAR, reason="once", actor=None, idempotency_key="k1"
    )

    assert first.pk == again.pk
    assert find_standing(user.customer_id).balance_nanos == DOLLAR
    assert AdminEvent.objects.filter(action="user.balance_adjusted").count() == 1


def test_long_keys_that_begin_alike_are_different() -> None:
    user = make_user()

    for key in ("k" * 150 + "1", "k" * 150 + "2", "k" * 150 + "2"):
        adjust_user_balance(
            user=user, amount_nanos=DOLLAR, reason="one", actor=None, idempotency_key=key
        )

    assert find_standing(user.customer_id).balance_nanos == 2 * DOLLAR


@pytest.mark.parametrize(("amount", "reason"), [(2, "one"), (DOLLAR, "two")])
def test_the_same_key_with_another_amount_or_reason_is_refused(amount: int, reason: str) -> None:
    user = make_user()
    adjust_user_balance(
        user=user, amount_nanos=DOLLAR, reason="one", actor=None, idempotency_key="k1"
    )

    with pytest.raises(IdempotencyKeyReused):
        adjust_user_balance(
            user=user, amount_nanos=amount, reason=reason, actor=None, idempotency_key="k1"
        )
    assert find_standing(user.customer_id).balance_nanos == DOLLAR


def test_the_same_key_of_another_administrator_is_another_key() -> None:
    user = make_user()

    for actor in (make_admin(), make_admin(), None):
        adjust_user_balance(
            user=user, amount_nanos=DOLLAR, reason="gift", actor=actor, idempotency_key="1"
        )

    assert find_standing(user.customer_id).balance_nanos == 3 * DOLLAR
    assert AdminEvent.objects.filter(action="user.balance_adjusted").count() == 3


def test_nobody_adjusts_who_was_deleted_meanwhile() -> None:
    root, user = make_admin(), make_user()
    deleted = User.objects.get(pk=user.pk)
    delete_user(user=user, actor=root)

    with pytest.raises(UserGone):
        adjust_user_balance(user=deleted, amount_nanos=DOLLAR, reason="gift", actor=root)
    assert Transaction.objects.count() == 0


def test_without_its_event_nothing_is_done() -> None:
    root, user = make_admin(), make_user()
    break_events()

    with pytest.raises(DatabaseError):
        adjust_user_balance(user=user, amount_nanos=DOLLAR, reason="unseen", actor=root)
    with pytest.raises(DatabaseError):
        make_user(username="unseen")

    assert find_standing(user.customer_id).balance_nanos == 0
    assert Transaction.objects.count() == 0
    assert not User.objects.filter(username="unseen").exists()
