"""Many changes of quotas at once, each on a connection of its own: no money made or lost."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import pytest
from django.db import connections
from rest_framework.test import APIClient

from apps.billing.models import Account, Entry, Transaction
from apps.billing.verification import report
from apps.model_groups.models import ModelGroup
from apps.quotas import bulk
from apps.quotas.allowances import create_quota
from apps.quotas.models import UserQuota
from tests.support.people import make_admin, make_user, rest_client

pytestmark = pytest.mark.usefixtures("committed_db")

USD = 10**9
CROWD = 8
BARRIER_SECONDS = 30
Answer = TypeVar("Answer")


def race(act: Callable[[int], Answer], count: int = CROWD) -> list[Answer]:
    """Run `act` in as many threads at once, and return what each returned."""
    barrier = threading.Barrier(count, timeout=BARRIER_SECONDS)

    def run(number: int) -> Answer:
        try:
            barrier.wait()
            return act(number)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(count) as threads:
        return [future.result() for future in [threads.submit(run, n) for n in range(count)]]


def _client() -> APIClient:
    return rest_client(make_admin(username="root"))


def _is_sound() -> bool:
    found = report(is_full=True, anchors_path=Path("/nonexistent"), now=datetime.now(UTC))
    return found.findings == ()


def test_eight_changes_of_one_quota_take_turns() -> None:
    client = _client()
    group = ModelGroup.objects.create(name="group")
    quota = create_quota(user=make_user(), model_group=group, total_nanos=100 * USD)

    def change(number: int) -> int:
        path = f"/api/admin/quotas/{quota.pk}/"
        return int(client.patch(path, {"total_quota": str(number + 1)}).status_code)

    assert race(change) == [200] * CROWD
    quota = UserQuota.objects.select_related("account").get()
    assert quota.account.posted_nanos == quota.total_nanos
    assert quota.total_nanos in [n * USD for n in range(1, CROWD + 1)]
    assert Transaction.objects.count() == CROWD + 1
    assert Entry.objects.filter(account=quota.account).count() == CROWD + 1
    assert _is_sound()


def test_control_eight_that_read_then_write_lose_money() -> None:
    group = ModelGroup.objects.create(name="group")
    quota = create_quota(user=make_user(), model_group=group, total_nanos=100 * USD)
    barrier = threading.Barrier(CROWD, timeout=BARRIER_SECONDS)

    def change(number: int) -> None:
        row = UserQuota.objects.get(pk=quota.pk)
        barrier.wait()
        UserQuota.objects.filter(pk=quota.pk).update(total_nanos=row.total_nanos + USD)

    race(change)

    assert UserQuota.objects.get().total_nanos == 101 * USD


def test_eight_calls_with_one_key_give_one_quota() -> None:
    client = _client()
    group = ModelGroup.objects.create(name="group")
    body = {"user": make_user().pk, "model_group": group.pk, "total_quota": "3"}

    def give(number: int) -> Any:
        answer = client.post("/api/admin/quotas/", body, headers={"Idempotency-Key": "k"})
        return answer.status_code, answer.json()

    answers = race(give)

    assert answers == [answers[0]] * CROWD
    assert answers[0][0] == 201
    assert UserQuota.objects.count() == 1
    assert Account.objects.get(kind="promotion").posted_nanos == -3 * USD
    assert _is_sound()


def test_two_calls_for_many_with_one_key_share_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "PIECE", 3)
    client = _client()
    group = ModelGroup.objects.create(name="group")
    users = [make_user().pk for _ in range(10)]
    body = {"users": users, "model_group": group.pk, "total_quota": "3"}

    def give(number: int) -> Any:
        answer = client.post("/api/admin/quotas/bulk/", body, headers={"Idempotency-Key": "k"})
        return answer.status_code, answer.json()

    answers = race(give, 2)

    assert answers[0] == answers[1]
    assert answers[0][0] == 201
    assert [row["user"] for row in answers[0][1]["quotas"]] == users
    assert UserQuota.objects.count() == 10
    assert Account.objects.get(kind="promotion").posted_nanos == -30 * USD
    assert _is_sound()
