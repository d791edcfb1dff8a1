"""Many changes of quotas at once, each on a connection of its own: no money made or lost."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connection, connections, transaction
from rest_framework.test import APIClient

from apps.audit.models import AdminEvent
from apps.billing.adjustments import adjust_balance
from apps.billing.ledger.commands import Held, Line
from apps.billing.ledger.store import Engine
from apps.billing.models import Account, Entry, Transaction
from apps.model_groups.models import ModelGroup
from apps.quotas import bulk
from apps.quotas.allowances import change_quota, create_quota
from apps.quotas.models import RepeatKey, UserQuota
from apps.quotas.repeats import Repeat, claim
from apps.users.models import User
from tests.support.people import make_admin, make_user, rest_client
from tests.support.processes import wait_until
from tests.support.races import BARRIER_SECONDS, CROWD, at_once
from tests.support.soundness import is_sound
from tests.support.world import Gateway, make_world, post_lines

pytestmark = pytest.mark.usefixtures("committed_db")

USD = 10**9
ROUNDS = 10


def _client() -> APIClient:
    return rest_client(make_admin(username="root"))


def test_eight_changes_of_one_quota_take_turns() -> None:
    client = _client()
    group = ModelGroup.objects.create(name="group")
    quota = create_quota(user=make_user(), model_group=group, total_nanos=100 * USD)

    def change(number: int) -> int:
        path = f"/api/admin/quotas/{quota.pk}/"
        return int(client.patch(path, {"total_quota": str(number + 1)}).status_code)

    assert at_once(CROWD, change) == [200] * CROWD
    quota = UserQuota.objects.select_related("account").get()
    assert quota.account.posted_nanos == quota.total_nanos
    assert quota.total_nanos in [n * USD for n in range(1, CROWD + 1)]
    assert Transaction.objects.count() == CROWD + 1
    assert Entry.objects.filter(account=quota.account).count() == CROWD + 1
    assert is_sound()


def test_control_eight_that_read_then_write_lose_money() -> None:
    group = ModelGroup.objects.create(name="group")
    quota = create_quota(user=make_user(), model_group=group, total_nanos=100 * USD)
    barrier = threading.Barrier(CROWD, timeout=BARRIER_SECONDS)

    def change(number: int) -> None:
        row = UserQuota.objects.get(pk=quota.pk)
        barrier.wait()
        UserQuota.objects.filter(pk=quota.pk).update(total_nanos=row.total_nanos + USD)

    at_once(CROWD, change)

    assert UserQuota.objects.get().total_nanos == 101 * USD


def test_eight_calls_with_one_key_give_one_quota() -> None:
    client = _client()
    group = ModelGroup.objects.create(name="group")
    body = {"user": make_user().pk, "model_group": group.pk, "total_quota": "3"}

    def give(number: int) -> Any:
        answer = client.post("/api/admin/quotas/", body, headers={"Idempotency-Key": "k"})
        return answer.status_code, answer.json()

    answers = at_once(CROWD, give)

    assert answers == [answers[0]] * CROWD
    assert answers[0][0] == 201
    assert UserQuota.objects.count() == 1
    assert Account.objects.get(kind="promotion").posted_nanos == -3 * USD
    assert is_sound()


def test_two_calls_for_many_with_one_key_share_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "PIECE", 3)
    client = _client()
    group = ModelGroup.objects.create(name="group")
    users = [make_user().pk for _ in range(10)]
    body = {"users": users, "model_group": group.pk, "total_quota": "3"}

    def give(number: int) -> Any:
        answer = client.post("/api/admin/quotas/bulk/", body, headers={"Idempotency-Key": "k"})
        return answer.status_code, answer.json()

    answers = at_once(2, give)

    assert answers[0] == answers[1]
    assert answers[0][0] == 201
    assert [row["user"] for row in answers[0][1]["quotas"]] == users
    assert UserQuota.objects.count() == 10
    assert Account.objects.get(kind="promotion").posted_nanos == -30 * USD
    assert is_sound()


def test_a_user_gets_a_quota_or_is_deleted() -> None:
    client = _client()
    group = ModelGroup.objects.create(name="group")
    users = [make_user().pk for _ in range(CROWD // 2)]
    client.raise_request_exception = False

    def act(number: int) -> tuple[int, int]:
        user_id = users[number // 2]
        if number % 2:
            answer = client.delete(f"/api/admin/users/{user_id}/")
        else:
            body = {"user": user_id, "model_group": group.pk, "total_quota": "3"}
            answer = client.post("/api/admin/quotas/", body)
        return number % 2, answer.status_code

    answers = at_once(CROWD, act)

    given, deleted = ([code for kind, code in answers if kind == one] for one in (0, 1))
    # 400 where the user was gone before the call was read, 404 where he went afterwards.
    assert set(given) <= {201, 400, 404}
    assert set(deleted) <= {204, 409}
    assert given.count(201) == deleted.count(409) == UserQuota.objects.count()
    assert User.objects.filter(pk__in=users).count() == UserQuota.objects.count()
    assert is_sound()


def test_a_quota_given_while_its_user_is_being_deleted_is_refused() -> None:
    client = _client()
    client.raise_request_exception = False
    group, user = ModelGroup.objects.create(name="group"), make_user()
    body = {"user": user.pk, "model_group": group.pk, "total_quota": "3"}

    def give() -> int:
        try:
            return int(client.post("/api/admin/quotas/", body).status_code)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as threads:
        with transaction.atomic():
            User.objects.filter(pk=user.pk).delete()
            answer = threads.submit(give)
            if connection.vendor == "postgresql":
                wait_until(_somebody_waits, timeout_seconds=10, what="the call that gives")
        status_code = answer.result()

    # SQLite lets the call read before or after, but write only afterwards.
    assert status_code in ((404,) if connection.vendor == "postgresql" else (400, 404))
    assert UserQuota.objects.count() == 0
    assert not AdminEvent.objects.filter(action="quota.created").exists()


def test_a_key_forgotten_while_a_call_waits_for_it_is_a_new_key() -> None:
    repeat = Repeat("give:1:k", "digest")
    with transaction.atomic():
        claim(repeat, [1])

    def call() -> list[int]:
        try:
            with transaction.atomic():
                subjects: list[int] = claim(repeat, [2]).subjects
                return subjects
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as threads:
        with transaction.atomic():
            RepeatKey.objects.all().delete()
            waiting = threads.submit(call)
            if connection.vendor == "postgresql":
                wait_until(_somebody_waits, timeout_seconds=10, what="the call with the key")
        subjects = waiting.result()

    assert subjects == [2]
    assert RepeatKey.objects.count() == 1


def _somebody_waits() -> bool:
    with connection.cursor() as cursor:
        # PostgreSQL shows a transaction the sessions that there were when it first asked.
        cursor.execute("SELECT pg_stat_clear_snapshot()")
        cursor.execute(
            "SELECT 1 FROM pg_locks JOIN pg_stat_activity USING (pid) "
            "WHERE NOT granted AND datname = current_database()"
        )
        return cursor.fetchone() is not None


def test_all_that_moves_one_customer_s_money_takes_turns(
    ledger_connect: Callable[[], Engine],
) -> None:
    world = make_world(100 * USD)
    group = ModelGroup.objects.create(name="group")
    quota = create_quota(user=world.user, model_group=group, total_nanos=USD)
    adjustment_id = Account.objects.get(kind="adjustment").pk
    gateways = {
        number: Gateway(world, ledger_connect()) for number in range(CROWD) if number % 4 == 1
    }

    def transfer() -> None:
        adjust_balance(customer_id=world.customer.pk, amount_nanos=USD, actor=None, reason="gift")

    def post() -> None:
        # A transaction of the ledger over the same accounts.
        with transaction.atomic():
            post_lines(
                "adjustment",
                Line(world.wallet_id, "credit", USD),
                Line(adjustment_id, "debit", -USD),
            )

    def fund() -> None:
        change_quota(quota_id=quota.pk, changes={"add_nanos": USD}, actor=None)

    def settle(gateway: Gateway) -> None:
        held = gateway.hold(3 * USD // 2, quotas=(quota.account_id,))
        assert isinstance(held, Held)
        gateway.resolve(held, 1_000_000)

    def act(number: int) -> None:
        for _ in range(ROUNDS):
            (transfer, lambda: settle(gateways[number]), fund, post)[number % 4]()

    at_once(CROWD, act)

    turns = 2 * ROUNDS
    accounts = Account.objects.in_bulk([world.wallet_id, quota.account_id])
    left = sum(account.posted_nanos for account in accounts.values())
    assert left == (101 + turns + turns + turns - turns) * USD
    assert [account.held_nanos for account in accounts.values()] == [0, 0]
    assert Account.objects.get(pk=adjustment_id).posted_nanos == -2 * turns * USD
    assert UserQuota.objects.get().total_nanos == (1 + turns) * USD
    assert is_sound()
