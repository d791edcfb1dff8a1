"""Paths: users with their money, one's own profile, and the ledger."""

from __future__ import annotations

from apps.billing.api import (
    AdjustBalanceView,
    EndSessionsView,
    ResetKeyView,
    UserGroupBudgetsView,
    UsersView,
    UserView,
)
from apps.billing.event_api import EventsView, EventView, RefusalSumsView, RefusalsView
from apps.billing.ledger_api import (
    AccountEntriesView,
    AccountsView,
    AccountView,
    EntriesView,
    OwnLedgerView,
    ProofView,
    TransactionsView,
    TransactionView,
    UserLedgerView,
)
from apps.billing.own_request_api import (
    OwnRequestExportView,
    OwnRequestPayloadView,
    OwnRequestsView,
    OwnRequestView,
)
from apps.billing.profile_api import ProfileView
from apps.billing.proposal_api import (
    ApproveAdjustmentView,
    ProposedAdjustmentsView,
    ProposedAdjustmentView,
    RejectAdjustmentView,
    WithdrawAdjustmentView,
)
from apps.billing.request_api import (
    RequestExportView,
    RequestPayloadView,
    RequestsView,
    RequestView,
    UserRequestsView,
)
from apps.core.routes import rest_path

urlpatterns = [
    rest_path("admin/users", UsersView),
    rest_path("admin/users/{id:user_id}", UserView),
    rest_path("admin/users/{id:user_id}/adjust-balance", AdjustBalanceView),
    rest_path("admin/users/{id:user_id}/reset-key", ResetKeyView),
    rest_path("admin/users/{id:user_id}/end-sessions", EndSessionsView),
    rest_path("admin/proposed-adjustments", ProposedAdjustmentsView),
    rest_path("admin/proposed-adjustments/{id:proposed_adjustment_id}", ProposedAdjustmentView),
    rest_path(
        "admin/proposed-adjustments/{id:proposed_adjustment_id}/approve", ApproveAdjustmentView
    ),
    rest_path(
        "admin/proposed-adjustments/{id:proposed_adjustment_id}/reject", RejectAdjustmentView
    ),
    rest_path(
        "admin/proposed-adjustments/{id:proposed_adjustment_id}/withdraw", WithdrawAdjustmentView
    ),
    rest_path("admin/user-groups/{id:user_group_id}/budgets", UserGroupBudgetsView),
    rest_path("user/profile", ProfileView),
    rest_path("admin/users/{id:user_id}/ledger", UserLedgerView),
    rest_path("admin/ledger/accounts", AccountsView),
    rest_path("admin/ledger/accounts/{id:account_id}", AccountView),
    rest_path("admin/ledger/accounts/{id:account_id}/entries", AccountEntriesView),
    rest_path("admin/ledger/transactions", TransactionsView),
    rest_path("admin/ledger/transactions/{uuid:transaction_id}", TransactionView),
    rest_path("admin/ledger/entries", EntriesView),
    rest_path("admin/ledger/proof", ProofView),
    rest_path("user/ledger", OwnLedgerView),
    rest_path("admin/users/{id:user_id}/requests", UserRequestsView),
    rest_path("admin/requests", RequestsView),
    rest_path("admin/requests/export", RequestExportView),
    rest_path("admin/requests/{uuid:request_id}", RequestView),
    rest_path("admin/requests/{uuid:request_id}/payload", RequestPayloadView),
    rest_path("user/requests", OwnRequestsView),
    rest_path("user/requests/export", OwnRequestExportView),
    rest_path("user/requests/{uuid:request_id}", OwnRequestView),
    rest_path("user/requests/{uuid:request_id}/payload", OwnRequestPayloadView),
    rest_path("admin/events", EventsView),
    rest_path("admin/events/{id:event_id}", EventView),
    rest_path("admin/refusals", RefusalsView),
    rest_path("admin/refusals/sum", RefusalSumsView),
]
