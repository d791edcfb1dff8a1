"""A customer's accounts and what they show."""

from __future__ import annotations

from dataclasses import dataclass

from apps.billing.models import Account, AccountKind
from apps.users.models import Customer


@dataclass(frozen=True, slots=True)
class Standing:
    """What a customer's wallet shows, in nanos.

    Balance = wallet − debt, available = balance − held.
    """

    balance_nanos: int
    held_nanos: int
    owed_nanos: int

    @property
    def available_nanos(self) -> int:
        """What new calls can hold."""
        return self.balance_nanos - self.held_nanos


def open_accounts(customer: Customer) -> None:
    """Give a new customer a wallet and a receivable account."""
    Account.objects.bulk_create(
        [
            Account(
                kind=AccountKind.WALLET, customer=customer, name=f"wallet of {customer.name}"[:100]
            ),
            Account(
                kind=AccountKind.RECEIVABLE,
                customer=customer,
                name=f"debt of {customer.name}"[:100],
            ),
        ]
    )


def find_standing(customer_id: int) -> Standing:
    """Return what the customer's wallet shows; zeros where there is none."""
    return list_standings([customer_id])[customer_id]


def list_standings(customer_ids: list[int]) -> dict[int, Standing]:
    """Return customer id → standing, in one query."""
    rows = Account.objects.filter(
        customer_id__in=customer_ids, kind__in=[AccountKind.WALLET, AccountKind.RECEIVABLE]
    ).values_list("customer_id", "kind", "posted_nanos", "held_nanos")
    posted: dict[tuple[int | None, str], tuple[int, int]] = {
        (customer_id, kind): (amount, held) for customer_id, kind, amount, held in rows
    }
    found = {}
    for customer_id in customer_ids:
        wallet, held = posted.get((customer_id, AccountKind.WALLET), (0, 0))
        debt, _ = posted.get((customer_id, AccountKind.RECEIVABLE), (0, 0))
        found[customer_id] = Standing(wallet + debt, held, -debt)
    return found
