"""Verifies that quotas say what the ledger says: how much was given, and to whom (I-25)."""

from __future__ import annotations

from typing import Final

from apps.billing.findings import Findings, fetch, limited

# What was given, less what was taken back: a charge is no part of it.
_WRONG_TOTALS: Final = """WITH given AS (
        SELECT entry.account_id, SUM(entry.amount_nanos) AS nanos
        FROM billing_transaction AS txn
            JOIN billing_entry AS entry ON entry.transaction_id = txn.id
        WHERE txn.kind = 'quota' GROUP BY entry.account_id
    )
    SELECT quota.id, quota.total_nanos, COALESCE(given.nanos, 0)
    FROM quotas_userquota AS quota LEFT JOIN given ON given.account_id = quota.account_id
    WHERE quota.total_nanos <> COALESCE(given.nanos, 0)
    ORDER BY quota.id"""
_WRONG_ACCOUNTS: Final = """SELECT quota.id, quota.account_id, owner.customer_id
    FROM quotas_userquota AS quota
        JOIN users_user AS owner ON owner.id = quota.user_id
        LEFT JOIN billing_account AS account ON account.id = quota.account_id
            AND account.kind = 'quota' AND account.customer_id = owner.customer_id
    WHERE account.id IS NULL
    ORDER BY quota.id"""


def check_quotas(findings: Findings) -> None:
    """Verify that a quota's total is what was given to it, and that its account is its user's."""
    for quota_id, total, given in fetch(limited(_WRONG_TOTALS)):
        findings.add_amount(
            "I-25", f"quota {quota_id}", expected=int(given), found=total, what="its total"
        )
    for quota_id, account_id, customer_id in fetch(limited(_WRONG_ACCOUNTS)):
        findings.add(
            "I-25",
            f"quota {quota_id}",
            expected=f"a quota account of customer {customer_id}",
            found=f"account {account_id}",
            message=f"its account {account_id} is no quota of its user's customer, {customer_id}",
        )
