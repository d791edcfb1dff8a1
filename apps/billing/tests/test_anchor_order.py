"""Where more chains move than a line takes, each is signed in its turn (I-70)."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from django.db.models import F

from apps.billing.anchors import append_anchor, read_anchors
from apps.billing.models import Account
from apps.users.models import Customer
from tests.support.world import NOW

MOVING = 5_003  # A line takes 5,000.


def test_no_account_is_passed_over_for_ever(db: None, tmp_path: Path) -> None:
    path = tmp_path / "anchors.jsonl"
    customer = Customer.objects.create(name="busy")
    Account.objects.bulk_create(
        [
            Account(kind="quota", customer=customer, name=f"moving {number}")
            for number in range(MOVING)
        ],
        batch_size=1_000,
    )
    moving = Account.objects.filter(name__startswith="moving ").order_by("pk")
    ids = list(moving.values_list("pk", flat=True))

    for line in range(3):
        moving.update(sequence=F("sequence") + 1, head=bytes(32))
        assert append_anchor(path, NOW + timedelta(seconds=30 * line)) == 5_000

    first, second, third = (
        {chain_id for chain_id, _, _ in anchor.accounts} for anchor in read_anchors(path)
    )
    # First by id; then those that never were, then those that waited longest.
    assert first == set(ids[:5_000])
    assert second == {*ids[5_000:], *ids[:4_997]}
    assert third == {*ids[4_997:5_000], *ids[:4_997]}
