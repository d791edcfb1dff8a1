"""Tests that a list takes as many queries for one row as for five, and how many."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from apps.ai_models.catalogue import create_model, set_price
from apps.ai_models.models import AIModel, Route
from apps.api_keys.issue import issue_key
from apps.audit.models import RefusalCount
from apps.billing.customers import adjust_user_balance
from apps.billing.proposals import propose_adjustment
from apps.model_groups.models import ModelGroup
from apps.model_groups.user_groups import create_user_group
from apps.providers.credentials import add_key
from apps.providers.models import Provider
from apps.providers.registration import create_provider
from apps.quotas.allowances import create_quota
from apps.users.models import User
from apps.users.tokens import open_session
from tests.rest.world import DOLLAR, RestWorld, body_of
from tests.support.calls import record_call
from tests.support.people import make_user
from tests.support.risk import make_rule, note_finding

SCHEMA: Final = json.loads((Path(__file__).parents[2] / "openapi.json").read_text())
ROWS: Final = 5
# The first query of each finds the session and its user.
QUERIES: Final = {
    "/api/admin/events/": 2,
    "/api/admin/keys/": 4,
    "/api/admin/known-models/": 2,
    "/api/admin/ledger/accounts/": 3,
    "/api/admin/ledger/accounts/{account_id}/entries/": 3,
    "/api/admin/ledger/entries/": 2,
    "/api/admin/ledger/transactions/": 2,
    "/api/admin/model-groups/": 5,
    "/api/admin/models/": 6,
    "/api/admin/models/{model_id}/prices/": 5,
    "/api/admin/proposed-adjustments/": 2,
    "/api/admin/providers/": 4,
    "/api/admin/providers/{provider_id}/keys/": 4,
    "/api/admin/quotas/": 3,
    "/api/admin/refusals/": 2,
    "/api/admin/requests/": 2,
    "/api/admin/risk-findings/": 2,
    "/api/admin/risk-rules/": 3,
    "/api/admin/routes/": 4,
    "/api/admin/routes/{route_id}/costs/": 5,
    "/api/admin/user-groups/": 4,
    "/api/admin/users/": 4,
    "/api/admin/users/{user_id}/keys/": 5,
    "/api/admin/users/{user_id}/ledger/": 4,
    "/api/admin/users/{user_id}/requests/": 3,
    "/api/auth/sessions/": 3,
    "/api/user/keys/": 4,
    "/api/user/ledger/": 3,
    "/api/user/models/": 8,
    "/api/user/quotas/": 3,
    "/api/user/requests/": 2,
}


@pytest.fixture(scope="module")
def full_world(world: RestWorld) -> RestWorld:
    """Return the world with five rows and more in every list."""
    user, root = world.users["user"], world.users["admin"]
    model = AIModel.objects.get(pk=world.ids["model"])
    route = Route.objects.get(pk=world.ids["route"])
    provider = Provider.objects.get(pk=world.ids["spare_provider"])
    group = ModelGroup.objects.get(pk=world.ids["group"])
    for number in range(ROWS):
        _add_configuration(number, group, root)
        for priced in ({"model": model}, {"route": route}):
            set_price(prices={"input": number, "output": 1}, **priced)
        add_key(provider=provider, secret="sk-provider-0123456789", name=f"key {number}")
        issue_key(user=user, name=f"key {number}", is_default=True, cap_nanos=DOLLAR)
        adjust_user_balance(user=user, amount_nanos=1, reason="gift", actor=root)
        propose_adjustment(user=user, amount_nanos=1, reason="gift", actor=root)
        create_quota(user=user, model_group=group, total_nanos=1)
        open_session(user=user, request=None)
        RefusalCount.objects.create(
            api_key_id=number, code="rate_limited", minute=timezone.now(), count=1
        )
        record_call(
            user_id=user.pk,
            customer_id=user.customer_id,
            api_key_id=world.ids["key"],
            sequence=1_000 + number,
        )
    return world


def _add_configuration(number: int, group: ModelGroup, root: User) -> None:
    """Write one of what administrators list, each with others that belong to it."""
    provider = create_provider(
        name=f"provider {number}",
        base_url="https://api.example.com/v1",
        secret="sk-provider-0123456789",
    )
    prices = {"input": 1, "output": 1}
    made = create_model(name=f"model-{number}", provider=provider, prices=prices)
    set_price(route=made.routes.get(), prices=prices)
    group.models.add(made)
    note_finding(make_rule(f"rule {number}"))
    other = ModelGroup.objects.create(name=f"group {number}")
    other.models.set(AIModel.objects.all()[: number + 1])
    user_group = create_user_group(name=f"user group {number}", model_groups=[group, other])
    person = make_user(user_group=user_group)
    issue_key(user=person, name="main", actor=root)
    create_quota(user=person, model_group=other, total_nanos=1)


def test_every_list_is_counted() -> None:
    lists = {
        path
        for path, item in SCHEMA["paths"].items()
        if "/Paginated" in json.dumps(item.get("get", {}).get("responses", {}).get("200"))
    }

    assert set(QUERIES) == lists


@pytest.mark.parametrize("path", QUERIES)
def test_a_list_takes_the_same_queries_for_one_row_and_for_five(
    full_world: RestWorld, path: str
) -> None:
    client = full_world.client("admin" if path.startswith("/api/admin/") else "user")
    filled = full_world.path(path)
    counts = []

    for size in (1, ROWS):
        with CaptureQueriesContext(connection) as captured:
            answer = client.get(f"{filled}?page_size={size}")
        assert answer.status_code == 200, answer.content
        assert len(body_of(answer)["results"]) == size
        counts.append(len(captured))

    assert counts == [QUERIES[path]] * 2
