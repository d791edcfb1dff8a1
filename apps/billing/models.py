"""Money: accounts, transactions, entries, holds and the leases of those who hold.

Amounts are nano-USD. `posted_nanos` and `held_nanos` are projections of entries and holds; they
change only in `apps.billing.ledger`, never through `save()`.
"""

from __future__ import annotations

from django.db import models

from apps.core.ids import new_uuid7
from apps.core.money import show_usd
from apps.users.models import Customer, User


class AccountKind(models.TextChoices):
    WALLET = "wallet", "wallet"
    QUOTA = "quota", "quota"
    RECEIVABLE = "receivable", "receivable"
    REVENUE = "revenue", "revenue"
    PROMOTION = "promotion", "promotion"
    ADJUSTMENT = "adjustment", "adjustment"
    CLEARING = "clearing", "payment clearing"


class Account(models.Model):
    """Something with a balance: a customer's wallet, quota or debt, or one of the operator's
    accounts.
    """

    kind = models.CharField(max_length=16, choices=AccountKind.choices)
    customer = models.ForeignKey(
        Customer, null=True, blank=True, on_delete=models.PROTECT, related_name="accounts"
    )
    name = models.CharField(max_length=100)
    posted_nanos = models.BigIntegerField(default=0, editable=False)
    held_nanos = models.BigIntegerField(default=0, editable=False)
    sequence = models.BigIntegerField(default=0, editable=False)
    head = models.BinaryField(max_length=32, default=b"", editable=False)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=~models.Q(kind__in=["wallet", "quota"])
                | models.Q(held_nanos__gte=0, posted_nanos__gte=models.F("held_nanos")),
                name="billing_account_covers_holds",
            ),
            models.CheckConstraint(
                condition=~models.Q(kind="receivable")
                | models.Q(posted_nanos__lte=0, held_nanos=0),
                name="billing_account_owes",
            ),
            models.UniqueConstraint(
                fields=["customer", "kind"],
                condition=models.Q(kind__in=["wallet", "receivable"]),
                name="billing_account_one_wallet",
            ),
            models.UniqueConstraint(
                fields=["kind", "name"],
                condition=models.Q(customer__isnull=True),
                name="billing_account_operator_unique",
            ),
        ]

    def __str__(self) -> str:
        return self.name


class TransactionKind(models.TextChoices):
    SETTLEMENT = "settlement", "settlement of calls"
    LATE_SETTLEMENT = "late_settlement", "settlement after the hold was resolved"
    ADJUSTMENT = "adjustment", "manual adjustment"
    TOP_UP = "top_up", "top-up"
    QUOTA = "quota", "change of a quota"
    REFUND = "refund", "refund"


class Transaction(models.Model):
    """Entries that belong together and sum to zero. Written once."""

    id = models.UUIDField(primary_key=True, default=new_uuid7, editable=False)
    kind = models.CharField(max_length=32, choices=TransactionKind.choices)
    idempotency_key = models.CharField(max_length=200, unique=True)
    actor_id = models.BigIntegerField(null=True)
    actor_name = models.CharField(max_length=150)
    reason = models.CharField(max_length=500)
    created_at = models.DateTimeField()

    class Meta:
        indexes = [
            models.Index(fields=["-created_at"], name="billing_transaction_created"),
            # Lists and sums of what is not a settlement: few rows among very many.
            models.Index(
                fields=["kind", "-created_at"],
                condition=~models.Q(kind="settlement"),
                name="billing_transaction_rare",
            ),
            # What one person did.
            models.Index(
                fields=["actor_id", "-created_at"],
                condition=models.Q(actor_id__isnull=False),
                name="billing_transaction_actor",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.id}"


class EntryKind(models.TextChoices):
    CHARGE = "charge", "charge"
    EXCESS = "excess", "charge above the hold"
    LATE = "late", "late charge"
    REVENUE = "revenue", "revenue"
    CREDIT = "credit", "credit"
    DEBIT = "debit", "debit"
    REPAYMENT = "repayment", "repayment of a debt"
    REFUND = "refund", "refund"


class Entry(models.Model):
    """One signed line on one account, chained to the one before it. Written once."""

    transaction = models.ForeignKey(
        Transaction, on_delete=models.PROTECT, related_name="entries", db_index=True
    )
    account = models.ForeignKey(
        Account, on_delete=models.PROTECT, related_name="entries", db_index=False
    )
    request_id = models.UUIDField(null=True)
    kind = models.CharField(max_length=16, choices=EntryKind.choices)
    amount_nanos = models.BigIntegerField()
    sequence = models.BigIntegerField()
    balance_after_nanos = models.BigIntegerField()
    corrects_id = models.BigIntegerField(null=True)
    hash = models.BinaryField(max_length=32)

    class Meta:
        verbose_name_plural = "entries"
        indexes = [
            # Lists of what is neither a charge nor revenue: few rows among very many.
            models.Index(
                fields=["kind", "-id"],
                condition=~models.Q(kind__in=["charge", "revenue"]),
                name="billing_entry_rare",
            ),
        ]
        constraints = [
            models.UniqueConstraint(fields=["account", "sequence"], name="billing_entry_sequence"),
            models.UniqueConstraint(
                fields=["request_id", "account", "kind"],
                condition=models.Q(request_id__isnull=False),
                name="billing_entry_once",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {show_usd(self.amount_nanos)}"


class ProposalStatus(models.TextChoices):
    PENDING = "pending", "waits for a second administrator"
    APPROVED = "approved", "approved and posted"
    REJECTED = "rejected", "rejected"
    WITHDRAWN = "withdrawn", "withdrawn"
    EXPIRED = "expired", "expired"


class ProposedAdjustment(models.Model):
    """An adjustment beyond what its administrator may move alone: a second one decides.

    Once it is decided it stays as it is. `repeat_key`, which is named as its column, is the
    idempotency key that it came with, as the transaction of an adjustment would have it.
    """

    user = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    amount_nanos = models.BigIntegerField()
    reason = models.CharField(max_length=500)
    corrects_id = models.BigIntegerField(null=True)
    requested_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    requested_at = models.DateTimeField()
    status = models.CharField(
        max_length=16, choices=ProposalStatus.choices, default=ProposalStatus.PENDING
    )
    decided_by = models.ForeignKey(User, null=True, on_delete=models.PROTECT, related_name="+")
    decided_at = models.DateTimeField(null=True)
    decision_reason = models.CharField(max_length=500, blank=True)
    transaction = models.OneToOneField(
        Transaction, null=True, on_delete=models.PROTECT, related_name="proposal"
    )
    repeat_key = models.CharField(max_length=200, null=True, unique=True)

    class Meta:
        indexes = [
            # What has expired is looked for among what is pending.
            models.Index(
                fields=["requested_at"],
                condition=models.Q(status="pending"),
                name="billing_proposal_pending",
            ),
        ]
        constraints = [
            models.CheckConstraint(
                condition=~models.Q(amount_nanos=0), name="billing_proposal_amount"
            ),
            models.CheckConstraint(
                condition=models.Q(
                    status="pending",
                    decided_by__isnull=True,
                    decided_at__isnull=True,
                    transaction__isnull=True,
                )
                | models.Q(
                    status="approved",
                    decided_by__isnull=False,
                    decided_at__isnull=False,
                    transaction__isnull=False,
                )
                | models.Q(
                    status__in=["rejected", "withdrawn"],
                    decided_by__isnull=False,
                    decided_at__isnull=False,
                    transaction__isnull=True,
                )
                | models.Q(
                    status="expired",
                    decided_by__isnull=True,
                    decided_at__isnull=False,
                    transaction__isnull=True,
                ),
                name="billing_proposal_status",
            ),
            # Nobody is his own second administrator, whatever the code says.
            models.CheckConstraint(
                condition=~models.Q(status__in=["approved", "rejected"])
                | ~models.Q(decided_by=models.F("requested_by")),
                name="billing_proposal_second",
            ),
        ]

    def __str__(self) -> str:
        return f"{show_usd(self.amount_nanos)} for {self.user}"


class Incarnation(models.Model):
    """One life of a process that holds money. Its lease is renewed on the database's clock.

    `sequence` and `head` are the chain of the APIRequests that it wrote.
    """

    kind = models.CharField(max_length=16)
    host = models.CharField(max_length=200)
    pid = models.IntegerField()
    started_at = models.DateTimeField()
    renewed_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True)
    sequence = models.BigIntegerField(default=0)
    head = models.BinaryField(max_length=32, default=b"")

    class Meta:
        indexes = [
            # The reaper looks for leases that ran out.
            models.Index(
                fields=["expires_at"],
                condition=models.Q(ended_at__isnull=True),
                name="billing_lease_open",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.host}/{self.pid}"


class Hold(models.Model):
    """Money reserved for a call that has begun: the proof that it began.

    `legs` is JSON `[[account id, nanos], …]` in the order in which the money was taken,
    `counters` JSON `[counter id, …]`, `detail` JSON with all that an APIRequest needs,
    `checkpoint` JSON of the usage so far.
    """

    request_id = models.UUIDField(primary_key=True)
    incarnation_id = models.BigIntegerField()
    customer_id = models.BigIntegerField()
    amount_nanos = models.BigIntegerField()
    legs = models.TextField()
    counters = models.TextField()
    detail = models.TextField()
    checkpoint = models.TextField(null=True)
    placed_at = models.DateTimeField()

    class Meta:
        indexes = [models.Index(fields=["incarnation_id"], name="billing_hold_owner")]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(amount_nanos__gte=0), name="billing_hold_amount"
            ),
        ]

    def __str__(self) -> str:
        return str(self.request_id)


class SpendCounter(models.Model):
    """What one capped thing has spent and holds, counted inside the hold's transaction.

    It begins with the first call under a cap, and counts the calls that were placed under one.
    Of a budget each period has a counter of its own, deleted when it is long over.
    """

    scope = models.CharField(
        max_length=32,
        help_text="What is capped: api_key, user, user_group or provider; of a budget with its "
        "period, such as user:2026-11-29 or user_group:2026-11.",
    )
    scope_id = models.BigIntegerField()
    spent_nanos = models.BigIntegerField(default=0, editable=False)
    held_nanos = models.BigIntegerField(default=0, editable=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["scope", "scope_id"], name="billing_counter_unique"),
            models.CheckConstraint(
                condition=models.Q(spent_nanos__gte=0, held_nanos__gte=0),
                name="billing_counter_positive",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.scope} {self.scope_id}"


class VerifiedHead(models.Model):
    """How far a chain has been verified: the next verification starts there."""

    chain = models.CharField(
        max_length=16, help_text="account, incarnation, anchor, anchor account or anchor requests"
    )
    chain_id = models.BigIntegerField()
    sequence = models.BigIntegerField()
    head = models.BinaryField(max_length=32)
    verified_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["chain", "chain_id"], name="billing_verifiedhead_unique"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.chain} {self.chain_id} at {self.sequence}"


class Verification(models.Model):
    """What one verification of the ledger looked at and found."""

    started_at = models.DateTimeField()
    finished_at = models.DateTimeField()
    is_full = models.BooleanField(help_text="Everything, and not only what was new.")
    started_by = models.CharField(max_length=16, help_text="schedule or command")
    entries = models.BigIntegerField(help_text="Links verified in the accounts' chains.")
    requests = models.BigIntegerField(help_text="Links verified in the incarnations' chains.")
    anchors = models.BigIntegerField(help_text="Lines of the anchor file.")
    finding_count = models.BigIntegerField()
    findings = models.TextField(blank=True, help_text="The first ones, at most 2,000 characters.")

    def __str__(self) -> str:
        return f"verification {self.pk}: {self.finding_count} findings"
