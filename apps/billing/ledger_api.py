"""The ledger over REST: accounts, transactions, entries and their proof. Nothing here writes."""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

from django.db.models import F, OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.http import Http404
from django.shortcuts import get_object_or_404
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import generics
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.billing.ledger_filters import (
    AccountFilterSet,
    EntryFilterSet,
    OwnerEntryFilterSet,
    TransactionFilterSet,
    account_ids,
)
from apps.billing.ledger_serializers import (
    AccountOutput,
    EntryOutput,
    OwnEntryOutput,
    ProofOutput,
    TransactionOutput,
    TransactionWithEntriesOutput,
)
from apps.billing.models import Account, Entry, Transaction, VerifiedHead
from apps.billing.proof import read_proof
from apps.billing.verification import anchors_path
from apps.core.pages import NewestCallsFirst, NewestNumbersFirst
from apps.users.models import User
from apps.users.permissions import AnalystsRead, IsSignedIn

TRANSACTION_ENTRIES_MAX: Final = 200
_ACCOUNT_ID: Final = OpenApiParameter("account_id", int, OpenApiParameter.PATH)


class NewestTransactionsFirst(NewestCallsFirst):
    """Pages of transactions by the moment they were posted: a range in the past begins at once."""

    ordering = ("-created_at", "-id")
    # As many as may be posted in one microsecond, for example by an import.
    offset_cutoff = 100_000


class NewestEntriesFirst(NewestNumbersFirst):
    """Pages of entries, the newest first; those of one account by its own sequence."""

    def get_ordering(self, request: Request, queryset: QuerySet[Any], view: Any) -> tuple[str, ...]:
        """Return the column that goes on without a gap for what is asked."""
        # The same order as by id, from the index of the account.
        is_one_account = bool(request.query_params.get("account")) or "account_id" in view.kwargs
        return ("-sequence",) if is_one_account else ("-id",)


class AccountsView(generics.ListAPIView[Account]):
    """Everything with a balance."""

    queryset = Account.objects.order_by("id")
    serializer_class = AccountOutput
    permission_classes = (AnalystsRead,)
    filterset_class = AccountFilterSet

    def get_queryset(self) -> QuerySet[Account]:
        """Return the accounts with what is shown of them."""
        return _shown_accounts(super().get_queryset())

    @extend_schema(operation_id="admin_ledger_accounts_list", summary="List accounts")
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List the customers' and the operator's accounts with their balances."""
        return super().get(request, *args, **kwargs)


class AccountView(generics.RetrieveAPIView[Account]):
    """One account."""

    queryset = Account.objects.all()
    serializer_class = AccountOutput
    permission_classes = (AnalystsRead,)
    filter_backends = ()
    lookup_url_kwarg = "account_id"

    def get_queryset(self) -> QuerySet[Account]:
        """Return the accounts with what is shown of them."""
        return _shown_accounts(super().get_queryset())

    @extend_schema(
        operation_id="admin_ledger_accounts_retrieve",
        summary="Show an account",
        parameters=[_ACCOUNT_ID],
    )
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Return an account with its balance and how far its chain is verified."""
        return super().get(request, *args, **kwargs)


class AccountEntriesView(generics.ListAPIView[Entry]):
    """The entries of one account."""

    queryset = Entry.objects.select_related("transaction", "account")
    serializer_class = EntryOutput
    permission_classes = (AnalystsRead,)
    pagination_class = NewestEntriesFirst
    filterset_class = OwnerEntryFilterSet

    def get_queryset(self) -> QuerySet[Entry]:
        """Return the account's entries; without the account there is nothing to list."""
        if "account_id" not in self.kwargs:  # The schema asks without a path.
            return super().get_queryset()
        account = get_object_or_404(Account, pk=self.kwargs["account_id"])
        return super().get_queryset().filter(account_id=account.pk)

    @extend_schema(
        operation_id="admin_ledger_account_entries_list",
        summary="List the entries of an account",
        parameters=[_ACCOUNT_ID],
    )
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List an account's entries, the newest first, each with the balance after it."""
        return super().get(request, *args, **kwargs)


class TransactionsView(generics.ListAPIView[Transaction]):
    """Everything that was posted."""

    queryset = Transaction.objects.all()
    serializer_class = TransactionOutput
    permission_classes = (AnalystsRead,)
    pagination_class = NewestTransactionsFirst
    filterset_class = TransactionFilterSet

    @extend_schema(operation_id="admin_ledger_transactions_list", summary="List transactions")
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List transactions, the newest first. One of kind settlement settles many calls."""
        return super().get(request, *args, **kwargs)


class TransactionView(generics.RetrieveAPIView[Transaction]):
    """One transaction with its entries."""

    queryset = Transaction.objects.all()
    serializer_class = TransactionWithEntriesOutput
    permission_classes = (AnalystsRead,)
    filter_backends = ()
    lookup_url_kwarg = "transaction_id"

    @extend_schema(
        operation_id="admin_ledger_transactions_retrieve",
        summary="Show a transaction",
        parameters=[OpenApiParameter("transaction_id", UUID, OpenApiParameter.PATH)],
    )
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Return a transaction with its first 200 entries and the number of all."""
        found = self.get_object()
        entries = Entry.objects.filter(transaction=found)
        shown = entries.select_related("transaction", "account").order_by("id")
        values = {
            **TransactionOutput(found).data,
            "entry_count": entries.count(),
            "first_entries": shown[:TRANSACTION_ENTRIES_MAX],
        }
        return Response(self.get_serializer(values).data)


class EntriesView(generics.ListAPIView[Entry]):
    """All lines of the ledger."""

    queryset = Entry.objects.select_related("transaction", "account")
    serializer_class = EntryOutput
    permission_classes = (AnalystsRead,)
    pagination_class = NewestEntriesFirst
    filterset_class = EntryFilterSet

    @extend_schema(operation_id="admin_ledger_entries_list", summary="List entries")
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List entries, the newest first."""
        return super().get(request, *args, **kwargs)


class ProofView(APIView):
    """The last verification and anchor."""

    permission_classes = (AnalystsRead,)

    @extend_schema(
        operation_id="admin_ledger_proof_retrieve",
        summary="Show how far the ledger is proven",
        responses=ProofOutput,
    )
    def get(self, request: Request) -> Response:
        """Return the last verification of what was new and of everything, how many links of the
        chains came since, and the last signed anchor. Nothing is verified by asking.
        """
        return Response(ProofOutput(read_proof(anchors_path())).data)


class UserLedgerView(generics.ListAPIView[Entry]):
    """The entries on one user's accounts."""

    queryset = Entry.objects.select_related("transaction", "account")
    serializer_class = EntryOutput
    permission_classes = (AnalystsRead,)
    pagination_class = NewestNumbersFirst
    filterset_class = OwnerEntryFilterSet

    def get_queryset(self) -> QuerySet[Entry]:
        """Return the entries on the wallet, the receivable and the quotas."""
        if "user_id" not in self.kwargs:  # The schema asks without a path.
            return super().get_queryset()
        user = User.objects.filter(pk=self.kwargs["user_id"]).first()
        if user is None:
            raise Http404
        return super().get_queryset().filter(account_id__in=account_ids(user.customer_id))

    @extend_schema(
        operation_id="admin_users_ledger_list",
        summary="List a user's ledger",
        parameters=[OpenApiParameter("user_id", int, OpenApiParameter.PATH)],
    )
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List the entries on a user's wallet, receivable and quotas, the newest first."""
        return super().get(request, *args, **kwargs)


class OwnLedgerView(generics.ListAPIView[Entry]):
    """The entries on one's own accounts."""

    queryset = Entry.objects.select_related("transaction", "account")
    serializer_class = OwnEntryOutput
    permission_classes = (IsSignedIn,)
    pagination_class = NewestNumbersFirst
    filterset_class = OwnerEntryFilterSet

    def get_queryset(self) -> QuerySet[Entry]:
        """Return the entries on the caller's own accounts."""
        user = self.request.user
        if not isinstance(user, User):  # The schema asks without a caller.
            return super().get_queryset().none()
        return super().get_queryset().filter(account_id__in=account_ids(user.customer_id))

    @extend_schema(operation_id="user_ledger_list", summary="List one's own ledger")
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List the entries on the caller's wallet, receivable and quotas, the newest first."""
        return super().get(request, *args, **kwargs)


def _shown_accounts(accounts: QuerySet[Account]) -> QuerySet[Account]:
    verified = VerifiedHead.objects.filter(chain="account", chain_id=OuterRef("pk"))
    return accounts.annotate(
        user_id=F("customer__user__id"),
        available_nanos=F("posted_nanos") - F("held_nanos"),
        verified_sequence=Coalesce(Subquery(verified.values("sequence")[:1]), 0),
    )
