"""A quota's total changes only by transactions against promotion, and never below its use."""

from __future__ import annotations

import pytest
from django.db import connection

from apps.audit.models import AdminEvent
from apps.billing.customers import delete_user
from apps.billing.models import Account, Entry
from apps.model_groups.groups import GroupGone, remove_group
from apps.model_groups.models import ModelGroup
from apps.quotas.allowances import (
    Cause,
    QuotaUse,
    TotalBelowUse,
    TotalOutOfRange,
    change_quota,
    change_quotas,
    create_quota,
    remaining,
)
from apps.quotas.models import UserQuota
from apps.users.changes import UserGone
from apps.users.models import User
from tests.support.people import make_user

USD = 10**9


def _quota(total: int) -> UserQuota:
    group = ModelGroup.objects.create(name="group")
    return create_quota(user=make_user(), model_group=group, total_nanos=total)


def _hold(quota: UserQuota, nanos: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE billing_account SET held_nanos = %s WHERE id = %s", [nanos, quota.account_id]
        )


@pytest.mark.django_db
def test_a_quota_is_funded_from_promotion() -> None:
    quota = _quota(5 * USD)

    amounts = dict(Entry.objects.values_list("account__kind", "amount_nanos"))
    assert amounts == {"promotion": -5 * USD, "quota": 5 * USD}
    quota.refresh_from_db()
    assert remaining(quota) == QuotaUse(used_nanos=0, held_nanos=0, remaining_nanos=5 * USD)


@pytest.mark.django_db
def test_a_total_can_grow_and_shrink_down_to_what_is_held() -> None:
    quota = _quota(5 * USD)
    _hold(quota, 2 * USD)

    change_quota(quota_id=quota.pk, changes={"total_nanos": 7 * USD}, actor=None, reason="more")
    change_quota(quota_id=quota.pk, changes={"total_nanos": 2 * USD}, actor=None, reason="less")

    account = Account.objects.get(pk=quota.account_id)
    assert (account.posted_nanos, account.held_nanos) == (2 * USD, 2 * USD)
    assert UserQuota.objects.get().total_nanos == 2 * USD


@pytest.mark.django_db
def test_a_total_below_what_is_held_is_refused_and_nothing_moves() -> None:
    quota = _quota(5 * USD)
    _hold(quota, 2 * USD)

    with pytest.raises(TotalBelowUse):
        change_quota(quota_id=quota.pk, changes={"total_nanos": 2 * USD - 1}, actor=None)

    assert Account.objects.get(pk=quota.account_id).posted_nanos == 5 * USD
    assert UserQuota.objects.get().total_nanos == 5 * USD
    assert Entry.objects.count() == 2


@pytest.mark.django_db
def test_the_same_total_makes_no_transaction() -> None:
    quota = _quota(5 * USD)

    change_quota(quota_id=quota.pk, changes={"total_nanos": 5 * USD}, actor=None)

    assert Entry.objects.count() == 2
    assert AdminEvent.objects.filter(action="quota.changed").count() == 0


@pytest.mark.django_db
@pytest.mark.parametrize("total", [-1, 1_000_001 * USD])
def test_a_total_out_of_range_is_refused(total: int) -> None:
    with pytest.raises(TotalOutOfRange):
        _quota(total)


@pytest.mark.django_db
def test_changes_that_cancel_out_post_no_line_of_nothing() -> None:
    group = ModelGroup.objects.create(name="group")
    small, big = (
        create_quota(user=make_user(), model_group=group, total_nanos=nanos) for nanos in (5, 15)
    )

    change_quotas(
        quota_ids=[small.pk, big.pk], changes={"total_nanos": 10}, cause=Cause(actor=None)
    )

    assert list(Entry.objects.order_by("id").values_list("amount_nanos", flat=True)) == [
        *(-5, 5, -15, 15),
        *(5, -5),
    ]


@pytest.mark.django_db
def test_nobody_gives_a_quota_to_who_was_deleted_meanwhile() -> None:
    group, user = ModelGroup.objects.create(name="group"), make_user()
    deleted = User.objects.get(pk=user.pk)
    delete_user(user=user, actor=None)

    with pytest.raises(UserGone):
        create_quota(user=deleted, model_group=group, total_nanos=USD)
    assert not Account.objects.filter(kind="quota").exists()


@pytest.mark.django_db
def test_nobody_gives_a_quota_on_a_group_that_was_deleted_meanwhile() -> None:
    group, user = ModelGroup.objects.create(name="group"), make_user()
    deleted = ModelGroup.objects.get(pk=group.pk)
    remove_group(group=group)

    with pytest.raises(GroupGone):
        create_quota(user=user, model_group=deleted, total_nanos=USD)
    assert not Account.objects.filter(kind="quota").exists()
