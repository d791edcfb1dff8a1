"""A form of the Django admin that is sent twice moves money once."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from apps.audit.models import AdminEvent
from apps.billing.accounts import find_standing
from apps.billing.models import Account
from apps.quotas.models import UserQuota
from tests.support.house import (
    DOLLAR,
    House,
    page_of,
    read_values,
    send_values,
    texts_of,
)

LOST = "This form cannot be sent. Open it again."
REUSED = "This form was sent before, with other values. Open it again."


def _adjust(house: House) -> str:
    return reverse("admin:users_user_adjust_balance", args=[house.user.pk])


def _balance(house: House) -> int:
    return find_standing(house.user.customer_id).balance_nanos


def _count(action: str) -> int:
    return AdminEvent.objects.filter(action=action).count()


def test_an_adjustment_that_is_sent_twice_pays_once(client: Client, house: House) -> None:
    path = _adjust(house)
    values = read_values(client.get(path)) | {"amount": "2.5", "reason": "refund"}

    answers = [send_values(client, path, values) for _ in range(2)]

    assert [texts_of(answer) for answer in answers] == [["Adjusted by $2.5."]] * 2
    assert _balance(house) == 12_500_000_000
    assert _count("user.balance_adjusted") == 2  # one of them made the house


def test_an_adjustment_with_other_values_wants_another_form(client: Client, house: House) -> None:
    path = _adjust(house)
    values = read_values(client.get(path)) | {"amount": "2.5", "reason": "refund"}
    send_values(client, path, values)

    refused = send_values(client, path, values, amount="3")
    anew = send_values(client, path, read_values(client.get(path)), amount="3", reason="refund")

    assert refused.context["form"].non_field_errors() == [REUSED]
    assert texts_of(anew) == ["Adjusted by $3."]
    assert _balance(house) == 15_500_000_000


def test_a_refused_adjustment_may_be_mended_in_the_same_form(client: Client, house: House) -> None:
    path = _adjust(house)
    values = read_values(client.get(path)) | {"amount": "-100", "reason": "mistake"}

    refused = send_values(client, path, values)
    mended = send_values(client, path, read_values(refused), amount="-1")

    assert "The balance does not cover this." in refused.content.decode()
    assert texts_of(mended) == ["Adjusted by -$1."]
    assert _balance(house) == 9 * DOLLAR


@pytest.mark.parametrize("key", [None, "", "nonsense"])
def test_a_form_without_its_key_is_not_obeyed(client: Client, house: House, key: Any) -> None:
    values = {"amount": "2.5", "reason": "refund"}
    quota = {"user": house.user.pk, "model_group": 1, "total": "5", "reason": "trial"}

    adjusted = send_values(client, _adjust(house), values, idempotency_key=key)
    added = send_values(client, page_of(UserQuota, "add"), quota, idempotency_key=key)

    assert adjusted.context["form"].errors == {"idempotency_key": [LOST]}
    assert LOST in adjusted.content.decode()
    assert added.context["adminform"].form.non_field_errors() == [LOST]
    assert _balance(house) == 10 * DOLLAR
    assert UserQuota.objects.count() == 1


def _quota_values(client: Client, house: House) -> dict[str, Any]:
    given = {
        "user": house.user.pk,
        "model_group": house.quota.model_group_id,
        "total": "5",
        "reason": "trial",
        "expires_at_0": "2100-01-01",
        "expires_at_1": "00:00:00",
    }
    return read_values(client.get(page_of(UserQuota, "add"))) | given


def test_a_quota_that_is_sent_twice_is_given_once(client: Client, house: House) -> None:
    values = _quota_values(client, house)

    answers = [send_values(client, page_of(UserQuota, "add"), values) for _ in range(2)]

    told = [texts_of(answer) for answer in answers]
    assert [len(texts) for texts in told] == [1, 1]
    assert told[0] == told[1]
    assert "was added successfully" in told[0][0]
    assert list(UserQuota.objects.order_by("pk").values_list("total_nanos", flat=True)) == [
        DOLLAR,
        5 * DOLLAR,
    ]
    assert Account.objects.get(kind="promotion").posted_nanos == -6 * DOLLAR
    assert _count("quota.created") == 2


def test_a_quota_with_other_values_wants_another_form(client: Client, house: House) -> None:
    values = _quota_values(client, house)
    send_values(client, page_of(UserQuota, "add"), values)

    refused = send_values(client, page_of(UserQuota, "add"), values, total="6")
    anew = send_values(client, page_of(UserQuota, "add"), _quota_values(client, house))

    assert texts_of(refused) == [REUSED]
    assert "was added successfully" in texts_of(anew)[0]
    assert UserQuota.objects.count() == 3
    assert Account.objects.get(kind="promotion").posted_nanos == -11 * DOLLAR
