"""What the ledger can be filtered by. Ids are looked up first: with them at hand the database knows
how many entries an account has, and takes the shorter way.
"""

from __future__ import annotations

from typing import Any

import django_filters
from django.db.models import QuerySet

from apps.billing.models import (
    Account,
    AccountKind,
    Entry,
    EntryKind,
    Transaction,
    TransactionKind,
)
from apps.core.filters import (
    IdFilter,
    MomentFilter,
    SearchFilter,
    StrictFilterSet,
    USDFilter,
)


def account_ids(customer_id: int) -> list[int]:
    """Return the ids of a customer's accounts: wallet, receivable and one for each quota."""
    return list(Account.objects.filter(customer_id=customer_id).values_list("pk", flat=True))


class _CustomerEntries(IdFilter):
    """Entries on the accounts of a customer."""

    def filter(self, qs: QuerySet[Any], value: int | None) -> QuerySet[Any]:
        """Return the entries on those accounts."""
        return qs if value is None else qs.filter(account_id__in=account_ids(value))


class _CustomerTransactions(IdFilter):
    """Transactions that move something on the accounts of a customer."""

    def filter(self, qs: QuerySet[Any], value: int | None) -> QuerySet[Any]:
        """Return the transactions with an entry there."""
        if value is None:
            return qs
        return _with_entries(qs, account_id__in=account_ids(value))


class _AccountTransactions(IdFilter):
    """Transactions that move something on an account."""

    def filter(self, qs: QuerySet[Any], value: int | None) -> QuerySet[Any]:
        """Return the transactions with an entry there."""
        return qs if value is None else _with_entries(qs, account_id=value)


class _RequestTransactions(django_filters.UUIDFilter):  # type: ignore[misc]  # untyped base
    """Transactions that settled a call."""

    def filter(self, qs: QuerySet[Any], value: Any) -> QuerySet[Any]:
        """Return the transactions with an entry of the call."""
        return _with_entries(qs, request_id=value) if value else qs


def _with_entries(transactions: QuerySet[Any], **condition: Any) -> QuerySet[Any]:
    found = Entry.objects.filter(**condition).values("transaction_id")
    return transactions.filter(pk__in=found)


class AccountFilterSet(StrictFilterSet):
    """What accounts can be filtered by."""

    kind = django_filters.ChoiceFilter(choices=AccountKind.choices)
    customer = IdFilter(field_name="customer_id")
    user = IdFilter(field_name="customer__user__id")
    search = SearchFilter(columns=("name",))

    class Meta:
        model = Account
        fields: list[str] = []


class TransactionFilterSet(StrictFilterSet):
    """What transactions can be filtered by."""

    kind = django_filters.ChoiceFilter(choices=TransactionKind.choices)
    actor = IdFilter(field_name="actor_id")
    account = _AccountTransactions(field_name="entries__account_id")
    customer = _CustomerTransactions(field_name="entries__account__customer_id")
    request_id = _RequestTransactions(field_name="entries__request_id")
    idempotency_key = django_filters.CharFilter(max_length=200)
    created_after = MomentFilter(field_name="created_at", lookup_expr="gte")
    created_before = MomentFilter(field_name="created_at", lookup_expr="lt")

    class Meta:
        model = Transaction
        fields: list[str] = []


class EntryFilterSet(StrictFilterSet):
    """What entries can be filtered by."""

    account = IdFilter(field_name="account_id")
    customer = _CustomerEntries(field_name="account__customer_id")
    transaction = django_filters.UUIDFilter(field_name="transaction_id")
    request_id = django_filters.UUIDFilter()
    kind = django_filters.ChoiceFilter(choices=EntryKind.choices)
    amount_min = USDFilter(field_name="amount_nanos", lookup_expr="gte")
    amount_max = USDFilter(field_name="amount_nanos", lookup_expr="lte")

    class Meta:
        model = Entry
        fields: list[str] = []


class OwnerEntryFilterSet(StrictFilterSet):
    """What the entries of one account or user can be filtered by: by their kind."""

    kind = django_filters.ChoiceFilter(choices=EntryKind.choices)

    class Meta:
        model = Entry
        fields: list[str] = []
