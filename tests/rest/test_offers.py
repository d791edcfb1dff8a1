"""What REST says one may call, at which price, is what the data plane allows and charges."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from apps.ai_models.catalogue import set_price
from apps.ai_models.models import AIModel, PriceVersion, Route
from apps.api_keys.issue import issue_key
from apps.billing.pricing import charge_nanos
from apps.core.price_terms import ContextTier, ServiceTier, Terms
from apps.core.usage import Usage
from apps.model_groups.models import ModelGroup
from apps.providers.credentials import add_key
from apps.providers.models import Provider, ProviderKey
from apps.proxy import loader
from apps.proxy.snapshot import Caller, Snapshot, find_access
from apps.quotas.allowances import create_quota
from apps.quotas.models import UserQuota
from apps.quotas.offers import list_callable_names, list_offers
from apps.users.models import User, UserGroup
from tests.support.people import make_admin, make_user, rest_client

WORLDS: Final = 12
SAMPLE: Final = 7
MULTIPLIERS: Final = (0, 1, 333_333, 500_000, 1_000_000, 1_500_001, 1_000_000_000)
PRICES: Final = (None, 0, 1, 1, 999_999_999, 2_500_000_001, 10**12, 10**15)
MILLION: Final = 1_000_000


def _make_providers(dice: random.Random) -> list[Provider]:
    providers = []
    for number in range(4):
        provider = Provider.objects.create(
            name=f"provider {number}",
            base_url=dice.choice(
                ["http://127.0.0.1:9/v1", "http://127.0.0.1:9/v1", "http://10.1.1.1/"]
            ),
            is_active=dice.random() < 0.85,
        )
        for _ in range(dice.choice([0, 1, 2, 2])):
            add_key(provider=provider, secret="sk-upstream-0123456789")
        providers.append(provider)
    # In the order of their ids: PostgreSQL reuses the place of a row that was changed, so the order
    # of an unordered read depends on who else runs.
    keys = ProviderKey.objects.order_by("pk").values_list("pk", flat=True)
    ended = [key_id for key_id in keys if dice.random() < 0.2]
    ProviderKey.objects.filter(pk__in=ended).update(is_active=False)
    return providers


def _make_models(dice: random.Random, now: datetime) -> list[AIModel]:
    providers = _make_providers(dice)
    models = []
    for number in range(8):
        model = AIModel.objects.create(
            name=f"model-{number}", position=dice.randrange(3), is_active=dice.random() < 0.85
        )
        for provider in dice.sample(providers, dice.choice([0, 1, 2, 3, 3])):
            Route.objects.create(
                model=model, provider=provider, upstream_name="x", is_active=dice.random() < 0.85
            )
        for _ in range(dice.choice([0, 1, 2, 3, 3])):
            PriceVersion.objects.create(
                model=model,
                # Few moments, so that some meet: the later row counts then.
                effective_at=now + timedelta(hours=dice.choice([-2, -1, -1, 0, 1])),
                input_nanos=dice.choice(PRICES),
                output_nanos=dice.choice(PRICES),
                cache_read_nanos=dice.choice(PRICES),
                request_nanos=dice.choice([0, 7]),
            )
        models.append(model)
    return models


def _make_world(dice: random.Random, now: datetime) -> list[User]:
    models = _make_models(dice, now)
    user_groups = [
        UserGroup.objects.create(name=f"users {n}", multiplier_millionths=dice.choice(MULTIPLIERS))
        for n in range(2)
    ]
    groups = []
    for number in range(5):
        group = ModelGroup.objects.create(
            name=f"group {number}",
            is_public=dice.random() < 0.3,
            is_active=dice.random() < 0.85,
            multiplier_millionths=dice.choice(MULTIPLIERS),
        )
        group.models.set(dice.sample(models, dice.randrange(6)))
        group.user_groups.set(dice.sample(user_groups, dice.randrange(3)))
        groups.append(group)
    users = [make_user(user_group=dice.choice([None, *user_groups])) for _ in range(4)]
    for user in users:
        issue_key(user=user, name="main")
        for group in dice.sample(groups, dice.randrange(3)):
            quota = create_quota(user=user, model_group=group, total_nanos=dice.randrange(2))
            ends_at = dice.choice([None, now, now - timedelta(hours=1), now + timedelta(hours=1)])
            UserQuota.objects.filter(pk=quota.pk).update(
                expires_at=ends_at, is_active=dice.random() < 0.7
            )
    return users


def _caller(snapshot: Snapshot, user: User) -> Caller:
    (key,) = (key for key in snapshot.keys.values() if key.user_id == user.pk)
    member = snapshot.members[user.pk]
    groups = snapshot.catalogue.user_groups
    group = groups[member.user_group_id] if member.user_group_id is not None else None
    return Caller(key, member, group)


@pytest.mark.usefixtures("db")
@pytest.mark.parametrize("seed", range(WORLDS))
def test_offers_are_what_the_data_plane_allows_and_charges(seed: int) -> None:
    now = timezone.now()
    users = _make_world(random.Random(seed), now)
    snapshot = loader.load_snapshot()

    for user in users:
        caller = _caller(snapshot, user)
        expected, names = {}, set()
        for model in snapshot.catalogue.models.values():
            access = find_access(caller, model, now)
            if access is None:
                continue
            names.add(model.name)
            price = model.prices.at(now)
            has_way = any(route.provider.credentials for route in model.routes)
            if price is None or price.input is None or price.output is None or not has_way:
                continue
            expected[model.name] = (
                price.id,
                access.multiplier_millionths,
                charge_nanos(
                    Usage(input=MILLION, output=MILLION), price, access.multiplier_millionths
                ),
            )

        offers = list_offers(user=user, now=now)

        found = {}
        for offer in offers:
            amounts = [Decimal(offer.prices[name]) for name in ("input", "output")]
            amounts.append(Decimal(offer.prices.get("request", "0")))
            exact_nanos = sum(amounts) * 10**9
            charged_nanos = int(exact_nanos) + (exact_nanos != int(exact_nanos))
            found[offer.model.name] = (offer.price.pk, offer.multiplier_millionths, charged_nanos)
        assert found == expected
        assert list_callable_names(user=user, now=now) == names
        assert [offer.model.pk for offer in offers] == [
            model.pk for model in sorted(
                (offer.model for offer in offers), key=lambda row: (row.position, row.name)
            )
        ]  # fmt: skip


@pytest.mark.usefixtures("db")
def test_the_worlds_hold_offers_and_refusals() -> None:
    now = timezone.now()
    users = _make_world(random.Random(SAMPLE), now)

    assert [len(list_callable_names(user=user, now=now)) for user in users] == [6, 4, 3, 6]
    assert [len(list_offers(user=user, now=now)) for user in users] == [3, 3, 3, 3]


def _offer_one(user_group: UserGroup | None = None) -> User:
    """Write one model that a new user may call by two groups."""
    provider = Provider.objects.create(name="here", base_url="http://127.0.0.1:9/v1")
    add_key(provider=provider, secret="sk-upstream-0123456789")
    model = AIModel.objects.create(
        name="big", display_name="Big", context_length=1_000, max_output_tokens=100
    )
    Route.objects.create(model=model, provider=provider, upstream_name="x")
    PriceVersion.objects.create(
        model=model,
        effective_at=timezone.now() - timedelta(hours=1),
        input_nanos=2_500_000_001,
        output_nanos=10_000_000_000,
        request_nanos=3,
    )
    for name, multiplier in (("dear", 2_000_000), ("fair", 500_000)):
        group = ModelGroup.objects.create(
            name=name, is_public=True, multiplier_millionths=multiplier
        )
        group.models.add(model)
    return make_user(user_group=user_group)


@pytest.mark.usefixtures("db")
def test_an_offer_says_what_one_pays() -> None:
    vip = UserGroup.objects.create(name="vip", multiplier_millionths=900_000)
    client = rest_client(_offer_one(vip))

    answer = client.get("/api/user/models/")

    assert answer.json() == {
        "count": 1,
        "next": None,
        "previous": None,
        "results": [
            {
                "name": "big",
                "display_name": "Big",
                "context_length": 1_000,
                "max_output_tokens": 100,
                "prices": {
                    "input": "1.12500000045",
                    "output": "4.5",
                    "request": "0.00000000135",
                },
                "input_price_per_1k": "0.00112500000045",
                "output_price_per_1k": "0.0045",
                "multiplier": "0.45",
                "model_groups": ["dear", "fair"],
            }
        ],
    }
    assert client.get("/api/user/models/?search=BI").json()["count"] == 1
    assert client.get("/api/user/models/?search=x").json()["count"] == 0
    assert client.get("/api/user/models/?user=1").status_code == 400


@pytest.mark.usefixtures("db")
def test_offers_take_the_same_queries_whatever_their_number() -> None:
    now, user = timezone.now(), _offer_one(UserGroup.objects.create(name="vip"))
    first = AIModel.objects.get()
    with CaptureQueriesContext(
        connection,
    ) as few:
        assert len(list_offers(user=user, now=now)) == 1
    for number in range(5):
        model = AIModel.objects.create(name=f"model-{number}")
        Route.objects.create(
            model=model, provider=Provider.objects.get(), upstream_name=f"x{number}"
        )
        PriceVersion.objects.create(model=model, effective_at=now, input_nanos=1, output_nanos=1)
        model.model_groups.set(first.model_groups.all())
    with CaptureQueriesContext(connection) as many:
        assert len(list_offers(user=user, now=now)) == 6

    assert (len(few), len(many)) == (7, 7)


@pytest.mark.usefixtures("committed_db")
def test_a_key_disabled_over_rest_is_disabled_in_the_data_plane() -> None:
    user = make_user()
    key, _ = issue_key(user=user, name="main")
    snapshot = loader.load_snapshot()

    rest_client(user).patch(f"/api/user/keys/{key.pk}/", {"is_active": False})
    delta = loader.load_delta(snapshot.version)

    assert delta is not None
    loader.apply_delta(snapshot, delta)
    assert snapshot.keys[bytes(key.digest)].is_active is False


@pytest.mark.usefixtures("committed_db")
def test_a_quota_ended_over_rest_opens_no_model_any_more() -> None:
    user, group = make_user(), ModelGroup.objects.create(name="group")
    quota = create_quota(user=user, model_group=group, total_nanos=5)
    snapshot = loader.load_snapshot()

    rest_client(make_admin()).delete(f"/api/admin/quotas/{quota.pk}/")
    delta = loader.load_delta(snapshot.version)

    assert delta is not None
    loader.apply_delta(snapshot, delta)
    assert snapshot.members[user.pk].allowances == ()


@pytest.mark.usefixtures("db")
def test_an_offer_shows_pieces_minimum_and_terms_after_the_multiplier() -> None:
    user = _offer_one(UserGroup.objects.create(name="vip", multiplier_millionths=900_000))
    set_price(
        model=AIModel.objects.get(),
        prices={"input": 2_000_000_000, "output": 10_000_000_000, "web_search": 10_000_000},
        minimum_nanos=1_000_000,
        terms=Terms(
            (ContextTier(200_000, (("input", 4_000_000_000),)),),
            (ServiceTier("flex", 500_000),),
        ),
    )

    answer = rest_client(user).get("/api/user/models/").json()

    assert answer["results"][0]["prices"] == {
        "input": "0.9",
        "output": "4.5",
        "web_search": "0.0045",
        "minimum": "0.00045",
        "terms": {
            "context_tiers": [{"above_input_tokens": 200_000, "prices": {"input": "1.8"}}],
            "service_tiers": [{"name": "flex", "multiplier": "0.5"}],
        },
    }
