"""What tests of the anchors share: calls, what is found, and attacks that leave no trace inside."""

# ruff: noqa: S608 (the attacks are SQL, put together here)

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from django.db import connection

from apps.billing.anchor_checks import AnchorMemory
from apps.billing.chains import entry_hash, transaction_digest
from apps.billing.findings import Finding, as_moment, as_uuid, fetch
from apps.billing.ledger.commands import Held
from apps.billing.models import Account
from apps.billing.verification import report
from tests.support.tampering import Tamper
from tests.support.world import Gateway


def settle(gateway: Gateway, count: int) -> None:
    for _ in range(count):
        held = gateway.hold(1_000)
        assert isinstance(held, Held)
        gateway.resolve(held, 1)


def find(path: Path, *, is_full: bool = True, memory: AnchorMemory | None = None) -> list[Finding]:
    found = report(is_full=is_full, anchors_path=path, now=datetime.now(UTC), memory=memory)
    return list(found.findings)


def cut_off_the_tail(tamper: Tamper) -> None:
    """Undo the last call everywhere, so that the tables agree with each other."""
    (transaction_id,) = fetch("SELECT transaction_id FROM billing_entry ORDER BY id DESC LIMIT 1")[
        0
    ]
    key = f"'{transaction_id}'"
    accounts = fetch(f"SELECT account_id FROM billing_entry WHERE transaction_id = {key}")
    tamper.run(
        f"DELETE FROM billing_entry WHERE transaction_id = {key}",
        f"DELETE FROM billing_transaction WHERE id = {key}",
        "DELETE FROM audit_apirequest "
        "WHERE sequence = (SELECT MAX(sequence) FROM audit_apirequest)",
        *(
            "UPDATE billing_account SET (posted_nanos, sequence, head) = "
            "(SELECT balance_after_nanos, sequence, hash FROM billing_entry AS entry "
            "WHERE entry.account_id = billing_account.id ORDER BY sequence DESC LIMIT 1) "
            f"WHERE id = {account_id}"
            for (account_id,) in accounts
        ),
        "UPDATE billing_incarnation SET (sequence, head) = (SELECT sequence, hash "
        "FROM audit_apirequest ORDER BY sequence DESC LIMIT 1)",
        "DELETE FROM billing_verifiedhead WHERE chain IN ('account', 'incarnation')",
    )


def rewrite_all(tamper: Tamper) -> None:
    """Change the first reason and compute every link of every account again."""
    tamper.run("UPDATE billing_transaction SET reason = 'never happened'")
    statements = []
    for account in Account.objects.filter(sequence__gt=0):
        head = b""
        for row in fetch(
            "SELECT e.id, e.sequence, e.kind, e.amount_nanos, e.balance_after_nanos, e.request_id, "
            "e.corrects_id, t.id, t.kind, t.idempotency_key, t.actor_id, t.actor_name, t.reason, "
            "t.created_at "
            "FROM billing_entry e JOIN billing_transaction t ON t.id = e.transaction_id "
            "WHERE e.account_id = %s ORDER BY e.sequence",
            (account.pk,),
        ):
            head = entry_hash(
                head,
                account_id=account.pk,
                sequence=row[1],
                kind=row[2],
                amount_nanos=row[3],
                balance_after_nanos=row[4],
                request_id=as_uuid(row[5]) if row[5] else None,
                corrects_id=row[6],
                digest=transaction_digest(
                    transaction_id=as_uuid(row[7]),
                    kind=row[8],
                    idempotency_key=row[9],
                    actor_id=row[10],
                    actor_name=row[11],
                    reason=row[12],
                    created_at=as_moment(row[13]),
                ),
            )
            statements.append(
                f"UPDATE billing_entry SET hash = {literal(head)} WHERE id = {row[0]}"
            )
        statements.append(
            f"UPDATE billing_account SET head = {literal(head)} WHERE id = {account.pk}"
        )
    tamper.run(*statements, "DELETE FROM billing_verifiedhead WHERE chain = 'account'")


def literal(value: bytes) -> str:
    return f"'\\x{value.hex()}'" if connection.vendor == "postgresql" else f"x'{value.hex()}'"
