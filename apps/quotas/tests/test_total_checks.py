"""A quota that says something else than the ledger is found by a verification of everything."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone

from apps.billing.models import Account
from apps.billing.verification import report
from apps.model_groups.models import ModelGroup
from apps.quotas.allowances import change_quota, create_quota
from apps.quotas.leftovers import remove_quota, take_back_expired
from apps.quotas.models import UserQuota
from tests.support.databases import Database
from tests.support.people import make_user
from tests.support.tampering import Tamper


@pytest.fixture
def quotas(committed_db: Database) -> list[UserQuota]:
    """Quotas of two users, after all that can change a total."""
    group = ModelGroup.objects.create(name="group")
    users = [make_user(), make_user()]
    kept = [create_quota(user=user, model_group=group, total_nanos=1_000) for user in users]
    for nanos in (3_000, 500):
        change_quota(quota_id=kept[0].pk, changes={"total_nanos": nanos}, actor=None)
    change_quota(quota_id=kept[1].pk, changes={"add_nanos": 7}, actor=None)
    expired = create_quota(user=users[0], model_group=group, total_nanos=20)
    UserQuota.objects.filter(pk=expired.pk).update(expires_at=timezone.now() - timedelta(days=1))
    assert take_back_expired() == 1
    assert not remove_quota(
        quota_id=create_quota(user=users[1], model_group=group, total_nanos=9).pk, actor=None
    )
    create_quota(user=users[1], model_group=group, total_nanos=0)
    return kept


def find(*, is_full: bool = True) -> list[tuple[str, str, str]]:
    found = report(is_full=is_full, anchors_path=Path("/nonexistent"), now=timezone.now())
    return [(one.invariant, one.subject, one.message) for one in found.findings]


def test_totals_that_changed_as_they_may_are_what_was_given(quotas: list[UserQuota]) -> None:
    assert find() == []


@pytest.mark.parametrize(("change", "off"), [("+ 5", 5), ("- 5", -5)])
def test_a_total_that_nobody_gave_is_found(
    quotas: list[UserQuota], committed_db: Database, change: str, off: int
) -> None:
    quota = quotas[0]
    Tamper(committed_db).run(
        f"UPDATE quotas_userquota SET total_nanos = total_nanos {change} WHERE id = {quota.pk}"  # noqa: S608 (constants)
    )

    assert find() == [
        (
            "I-25",
            f"quota {quota.pk}",
            f"its total is {500 + off}, expected 500: off by {off} nanos",
        )
    ]
    # It sums over all quotas there ever were.
    assert find(is_full=False) == []


def test_quotas_that_draw_on_each_other_s_accounts_are_found(
    quotas: list[UserQuota], committed_db: Database
) -> None:
    change = "UPDATE quotas_userquota SET account_id = {} WHERE id = {}"
    first, second = quotas
    # An account has one quota at any time.
    spare = Account.objects.get(kind="wallet", customer_id=first.user.customer_id).pk

    Tamper(committed_db).run(
        change.format(spare, first.pk),
        change.format(first.account_id, second.pk),
        change.format(second.account_id, first.pk),
        f"UPDATE quotas_userquota SET total_nanos = 1507 - total_nanos WHERE id <= {second.pk}",  # noqa: S608 (constants)
    )

    assert [message for _, _, message in find()] == [
        f"its account {account.account_id} is no quota of its user's customer, {customer_id}"
        for account, customer_id in (
            (second, first.user.customer_id),
            (first, second.user.customer_id),
        )
    ]
