"""Manual adjustments: one transaction each, once for each cause, never below zero."""

from __future__ import annotations

import pytest
from django.db import DatabaseError, connection

from apps.billing.accounts import Standing, find_standing
from apps.billing.adjustments import AmountOutOfRange, InsufficientBalance, adjust_balance
from apps.billing.models import Account, Entry, Transaction
from tests.support.people import make_admin, make_user

USD = 10**9


@pytest.mark.django_db
def test_a_credit_and_a_debit_move_the_wallet_against_the_adjustment_account() -> None:
    admin, user = make_admin(), make_user()

    adjust_balance(customer_id=user.customer_id, amount_nanos=10 * USD, actor=admin, reason="gift")
    done = adjust_balance(
        customer_id=user.customer_id, amount_nanos=-3 * USD, actor=admin, reason="error"
    )

    assert find_standing(user.customer_id) == Standing(7 * USD, 0, 0)
    assert Account.objects.get(kind="adjustment").posted_nanos == -7 * USD
    assert (done.actor_id, done.actor_name, done.reason) == (admin.pk, admin.username, "error")


@pytest.mark.django_db
def test_the_same_cause_twice_moves_money_once() -> None:
    user = make_user()
    first = adjust_balance(
        customer_id=user.customer_id,
        amount_nanos=USD,
        actor=None,
        reason="order",
        idempotency_key="order:1",
    )

    second = adjust_balance(
        customer_id=user.customer_id,
        amount_nanos=USD,
        actor=None,
        reason="order",
        idempotency_key="order:1",
    )

    assert second.pk == first.pk
    assert find_standing(user.customer_id).balance_nanos == USD
    assert Transaction.objects.count() == 1


@pytest.mark.django_db
def test_a_debit_beyond_what_is_available_is_refused_and_nothing_moves() -> None:
    user = make_user()
    adjust_balance(customer_id=user.customer_id, amount_nanos=5 * USD, actor=None, reason="gift")
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE billing_account SET held_nanos = %s WHERE customer_id = %s AND kind = 'wallet'",
            [2 * USD, user.customer_id],
        )

    with pytest.raises(InsufficientBalance):
        adjust_balance(
            customer_id=user.customer_id, amount_nanos=-3 * USD - 1, actor=None, reason="too much"
        )

    assert find_standing(user.customer_id) == Standing(5 * USD, 2 * USD, 0)
    assert Entry.objects.count() == 2


@pytest.mark.django_db
@pytest.mark.parametrize("amount", [0, 1_000_001 * USD, -1_000_001 * USD])
def test_an_amount_out_of_range_is_refused(amount: int) -> None:
    user = make_user()

    with pytest.raises(AmountOutOfRange):
        adjust_balance(customer_id=user.customer_id, amount_nanos=amount, actor=None, reason="no")

    assert Entry.objects.count() == 0


@pytest.mark.django_db
def test_a_database_that_fails_a_posting_is_told_as_django_tells_it() -> None:
    user = make_user()
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE billing_entry RENAME TO billing_entry_away")

    with pytest.raises(DatabaseError):
        adjust_balance(customer_id=user.customer_id, amount_nanos=USD, actor=None, reason="gift")
