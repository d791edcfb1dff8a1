"""The Snapshot follows every committed change, whoever made it and how.

Over 400 lines because it is one case a table and a way to change it.
"""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from importlib import import_module
from typing import Any

import pytest
from django.db import connection, transaction
from django.db.models import Model
from django.utils import timezone

from apps.ai_models.models import AIModel, PriceVersion, Route
from apps.api_keys.issue import issue_key
from apps.api_keys.models import APIKey
from apps.billing.ledger.commands import Cap
from apps.billing.models import Account
from apps.billing.periods import Budget
from apps.billing.pricing import Price
from apps.model_groups.models import ModelGroup
from apps.providers.credentials import add_key
from apps.providers.models import Provider, ProviderKey
from apps.proxy import loader
from apps.proxy.models import ConfigurationChange
from apps.proxy.snapshot import Snapshot
from apps.quotas.allowances import create_quota
from apps.quotas.limits import Scope
from apps.users.models import User, UserGroup
from tests.support.people import make_user

pytestmark = pytest.mark.usefixtures("committed_db")


def _follow(snapshot: Snapshot) -> loader.Delta:
    """Bring the snapshot up to date the way a gateway does, and check it against a full load."""
    delta = loader.load_delta(snapshot.version)
    assert delta is not None
    loader.apply_delta(snapshot, delta)
    assert snapshot == loader.load_snapshot()
    return delta


def test_a_new_user_with_a_key_appears() -> None:
    snapshot = loader.load_snapshot()
    user = make_user()
    key, _ = issue_key(user=user, name="new")

    delta = _follow(snapshot)

    assert snapshot.members[user.pk].name == user.username
    assert snapshot.keys[bytes(key.digest)].id == key.pk
    assert delta.catalogue is None


@pytest.mark.parametrize("how", ["save", "update", "sql", "delete"])
def test_a_key_is_followed_however_it_changes(how: str) -> None:
    user = make_user()
    key, _ = issue_key(user=user, name="key")
    other, _ = issue_key(user=user, name="other")
    snapshot = loader.load_snapshot()
    if how == "save":
        key.is_active = False
        key.save()
    elif how == "update":
        APIKey.objects.filter(pk=key.pk).update(is_active=False)
    elif how == "delete":
        key.delete()
    else:
        with connection.cursor() as cursor:
            cursor.execute("UPDATE api_keys_apikey SET is_active = false WHERE id = %s", [key.pk])

    delta = _follow(snapshot)

    assert bytes(other.digest) in snapshot.keys
    assert len(delta.keys) == 1
    found = snapshot.keys.get(bytes(key.digest))
    assert found is None if how == "delete" else found is not None and not found.is_active


def test_a_quota_and_a_user_group_change_their_users() -> None:
    user = make_user()
    snapshot = loader.load_snapshot()
    group = ModelGroup.objects.create(name="group")
    quota = create_quota(user=user, model_group=group, total_nanos=5)
    user.user_group = UserGroup.objects.create(name="vip", rpm=7)
    user.save()

    _follow(snapshot)

    member = snapshot.members[user.pk]
    assert [a.account_id for a in member.allowances] == [quota.account_id]
    scope = snapshot.catalogue.user_groups[user.user_group.pk].scope
    assert scope is not None
    assert scope.rpm == 7


@pytest.mark.parametrize("how", ["update", "sql"])
def test_caps_are_followed_however_they_change(how: str) -> None:
    group = UserGroup.objects.create(name="group")
    user = make_user(user_group=group)
    provider = Provider.objects.create(name="p", base_url="http://127.0.0.1:9/v1")
    model = AIModel.objects.create(name="m")
    Route.objects.create(model=model, provider=provider, upstream_name="u")
    snapshot = loader.load_snapshot()
    rows: tuple[tuple[type[Model], int], ...] = (
        (User, user.pk),
        (UserGroup, group.pk),
        (Provider, provider.pk),
    )
    for kind, row_id in rows:
        if how == "update":
            kind._default_manager.filter(pk=row_id).update(cap_nanos=5)
        else:
            with connection.cursor() as cursor:
                table = kind._meta.db_table
                cursor.execute(f"UPDATE {table} SET cap_nanos = 5 WHERE id = %s", [row_id])  # noqa: S608 (no input)

        _follow(snapshot)

    (route,) = snapshot.catalogue.models["m"].routes
    assert snapshot.members[user.pk].cap == Cap("user", user.pk, 5)
    assert snapshot.catalogue.user_groups[group.pk].cap == Cap("user_group", group.pk, 5)
    assert route.provider.cap == Cap("provider", provider.pk, 5)


@pytest.mark.parametrize("column", ["daily_budget_nanos", "monthly_budget_nanos"])
def test_budgets_are_followed(column: str) -> None:
    group = UserGroup.objects.create(name="group")
    user = make_user(user_group=group)
    snapshot = loader.load_snapshot()
    amounts = (5, None) if column == "daily_budget_nanos" else (None, 5)
    for kind, row_id in ((User, user.pk), (UserGroup, group.pk)):
        kind._default_manager.filter(pk=row_id).update(**{column: 5})

        _follow(snapshot)

    assert snapshot.members[user.pk].budget == Budget("user", user.pk, *amounts)
    budget = snapshot.catalogue.user_groups[group.pk].budget
    assert budget == Budget("user_group", group.pk, *amounts)


@pytest.mark.parametrize(
    ("table", "change"),
    [
        ("ai_models_aimodel", "strategy = 'least_cost'"),
        ("ai_models_aimodel", "cache_seconds = 5"),
        ("ai_models_aimodel", "cache_share_millionths = 5"),
        ("ai_models_route", "upstream_name = 'another'"),
        ("ai_models_route", "max_tokens_parameter = 'another'"),
        ("providers_provider", "name = 'another'"),
        ("providers_provider", "base_url = 'https://another.example/v1'"),
        ("providers_provider", "payload_mode = 'off'"),
        ("providers_provider", "key_strategy = 'round_robin'"),
        ("ai_models_aimodel", "is_sticky = TRUE"),
        ("ai_models_route", """overrides = '{"parameters": {"set": {"seed": 1}}}'"""),
        ("providers_provider", "rpm = 5"),
        ("providers_provider", "tpm = 5"),
        ("providers_provider", "concurrency = 5"),
        ("providers_provider", "daily_cost_nanos = 5"),
        ("providers_provider", "leaving_policy = 'drain'"),
        ("providers_provider", 'headers = \'{"x-a": "b"}\''),
        ("providers_providerkey", "rpm = 5"),
        ("providers_providerkey", "daily_cost_nanos = 5"),
    ],
)
def test_what_routing_goes_by_is_followed(table: str, change: str) -> None:
    provider = Provider.objects.create(name="p", base_url="http://127.0.0.1:9/v1")
    add_key(provider=provider, secret="sk-upstream-0123456789")
    model = AIModel.objects.create(name="m")
    Route.objects.create(model=model, provider=provider, upstream_name="u")
    snapshot = loader.load_snapshot()
    before = snapshot.catalogue.models["m"]
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE {table} SET {change}")  # noqa: S608 (no input)

    _follow(snapshot)

    assert snapshot.catalogue.models["m"] != before


def test_what_the_table_had_watched_before_is_watched_still() -> None:
    provider = Provider.objects.create(name="p", base_url="http://127.0.0.1:9/v1")
    before = loader.read_version()

    Provider.objects.filter(pk=provider.pk).update(idle_timeout_seconds=7)
    Provider.objects.filter(pk=provider.pk).update(cap_nanos=7)

    assert loader.read_version() == before + 2


def test_routing_is_loaded_as_it_is_stored() -> None:
    provider = Provider.objects.create(
        name="p",
        base_url="http://127.0.0.1:9/v1",
        rpm=1,
        tpm=2,
        concurrency=3,
        daily_cost_nanos=4,
        leaving_policy="drain",
        drain_seconds=5,
        headers={"x-a": "1", "x-b": "2"},
    )
    key = add_key(provider=provider, secret="sk-upstream-0123456789", rpm=6)
    model = AIModel.objects.create(name="m", strategy="least_latency", is_sticky=True)
    overrides = {
        "parameters": {"set": {"seed": 7}},
        "headers": {"set": {"x-b": "3"}, "remove": ["x-a"]},
    }
    Route.objects.create(model=model, provider=provider, upstream_name="u", overrides=overrides)

    loaded = loader.load_snapshot().catalogue.models["m"]

    (route,) = loaded.routes
    assert (loaded.strategy, loaded.is_sticky, loaded.added_tokens) == ("least_latency", True, 11)
    assert route.parameters is not None
    assert route.parameters.set == {"seed": 7}
    assert dict(route.headers) == {"x-a": None, "x-b": "3"}
    assert route.provider.scope == Scope(f"provider:{provider.pk}", 1, 2, 3)
    assert (route.provider.daily_cost_nanos, route.provider.drain_seconds) == (4, 5.0)
    assert route.provider.is_limited
    assert route.provider.credentials[0].scope == Scope(f"provider_key:{key.pk}", 6, None, None)


@pytest.mark.parametrize(
    ("base_url", "of_the_route", "parameter"),
    [
        ("https://api.openai.com/v1", "", "max_completion_tokens"),
        ("https://api.deepseek.com/v1", "", "max_tokens"),
        ("https://api.deepseek.com/v1", "max_new", "max_new"),
    ],
)
def test_a_maximum_is_told_by_the_name_of_the_route_else_by_that_of_the_address(
    base_url: str, of_the_route: str, parameter: str
) -> None:
    provider = Provider.objects.create(name="p", base_url=base_url)
    model = AIModel.objects.create(name="m")
    Route.objects.create(
        model=model, provider=provider, upstream_name="u", max_tokens_parameter=of_the_route
    )

    (route,) = loader.load_snapshot().catalogue.models["m"].routes

    assert (route.max_tokens_parameter, route.target.cap_parameter) == (parameter, parameter)


@pytest.mark.parametrize("of", ["route", "provider"])
def test_what_cannot_be_sent_is_left_out_and_said(
    of: str, caplog: pytest.LogCaptureFixture
) -> None:
    headers = {"host": "elsewhere"}
    provider = Provider.objects.create(
        name="p",
        base_url="http://127.0.0.1:9/v1",
        headers=headers if of == "provider" else {},
    )
    model = AIModel.objects.create(name="m")
    Route.objects.create(
        model=model,
        provider=provider,
        upstream_name="u",
        overrides={"headers": {"set": headers}} if of == "route" else {},
    )

    assert loader.load_snapshot().catalogue.models["m"].routes == ()
    assert "is left out" in caplog.text


def test_every_watched_table_has_its_triggers() -> None:
    watched = import_module("apps.proxy.migrations.0002_stamp_configuration").WATCHED
    if connection.vendor == "sqlite":
        # Django rebuilds a table for some changes of it, and forgets its triggers.
        sql, each = "SELECT tbl_name FROM sqlite_master WHERE type = 'trigger'", 3
    else:
        sql, each = "SELECT tgrelid::regclass::text FROM pg_trigger WHERE NOT tgisinternal", 2
    with connection.cursor() as cursor:
        cursor.execute(sql + (" AND name" if each == 3 else " AND tgname") + " LIKE '%_stamp%'")
        found = Counter(table for (table,) in cursor.fetchall())

    assert found == dict.fromkeys([*watched, "risk_riskrule"], each)


def test_money_is_not_configuration() -> None:
    make_user()
    snapshot = loader.load_snapshot()
    Account.objects.filter(kind="receivable").update(name="renamed")
    with connection.cursor() as cursor:
        cursor.execute("UPDATE billing_account SET sequence = sequence WHERE kind = 'wallet'")

    delta = loader.load_delta(snapshot.version)

    assert delta == loader.Delta(snapshot.version)


def test_a_save_that_changes_nothing_used_here_stamps_nothing() -> None:
    user = make_user()
    snapshot = loader.load_snapshot()
    user.last_login = timezone.now()
    user.save()

    assert loader.read_version() == snapshot.version


def test_models_routes_and_providers_are_followed() -> None:
    snapshot = loader.load_snapshot()
    provider = Provider.objects.create(name="p", base_url="http://127.0.0.1:9/v1")
    model = AIModel.objects.create(name="m")
    Route.objects.create(model=model, provider=provider, upstream_name="u")

    _follow(snapshot)
    Provider.objects.update(is_active=False)
    delta = _follow(snapshot)

    assert delta.catalogue is not None
    assert snapshot.catalogue.models["m"].routes == ()


def test_a_provider_at_a_forbidden_address_or_with_a_moved_secret_is_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    good = Provider.objects.create(name="good", base_url="http://127.0.0.1:9/v1")
    bad = Provider.objects.create(name="bad", base_url="http://169.254.169.254/v1")
    ProviderKey.objects.create(provider=good, sealed_secret="v1.x.y", last_four="1234")
    model = AIModel.objects.create(name="m")
    for provider in (good, bad):
        Route.objects.create(model=model, provider=provider, upstream_name="u")

    routes = loader.load_snapshot().catalogue.models["m"].routes

    assert [(route.provider.name, route.provider.credentials) for route in routes] == [("good", ())]
    assert "provider bad is left out" in caplog.text
    assert "a key of provider good is left out" in caplog.text


def test_a_price_with_terms_that_cannot_be_read_sells_nothing_and_keeps_nothing_from_loading(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model, other = AIModel.objects.create(name="m"), AIModel.objects.create(name="n")
    now = timezone.now()
    amounts: dict[str, Any] = {"effective_at": now, "input_nanos": 5, "output_nanos": 6}
    bad = PriceVersion.objects.create(model=model, terms={"tiers": []}, **amounts)
    good = PriceVersion.objects.create(model=other, web_search_nanos=7, **amounts)

    models = loader.load_snapshot().catalogue.models

    assert models["m"].prices.at(now) == Price(id=bad.pk)
    assert models["n"].prices.at(now) == Price(id=good.pk, input=5, output=6, web_search=7)
    assert f"price version {bad.pk} cannot be used" in caplog.text


def test_prices_that_were_replaced_long_ago_are_not_loaded() -> None:
    provider = Provider.objects.create(name="p", base_url="https://api.example.com/v1")
    model, resting = AIModel.objects.create(name="m"), AIModel.objects.create(name="n")
    route = Route.objects.create(model=model, provider=provider, upstream_name="m")
    now = timezone.now()

    def add(hours: int, **owner: Any) -> int:
        return PriceVersion.objects.create(effective_at=now + timedelta(hours=hours), **owner).pk

    # Replaced two months ago, three days ago, just now, and the others not yet.
    sold = [add(hours, model=model) for hours in (-9000, -1440, -72, 0, 72)]
    billed = [add(hours, route=route) for hours in (-9000, -1440, -72)]
    never_replaced = add(-9000, model=resting)

    models = loader.load_snapshot().catalogue.models

    assert [price.id for price in models["m"].prices.prices] == sold[2:]
    assert [price.id for price in models["m"].routes[0].costs.prices] == billed[2:]
    assert [price.id for price in models["n"].prices.prices] == [never_replaced]


def test_disabled_keys_are_left_out_and_the_reason_is_known_where_none_is_left() -> None:
    provider = Provider.objects.create(name="p", base_url="https://api.example.com/v1")
    model = AIModel.objects.create(name="m")
    Route.objects.create(model=model, provider=provider, upstream_name="m")
    first, second = (add_key(provider=provider, secret=f"sk-{n}") for n in range(2))
    snapshot = loader.load_snapshot()

    def found() -> tuple[list[int], str]:
        _follow(snapshot)
        seen = snapshot.catalogue.models["m"].routes[0].provider
        return [one.id for one in seen.credentials], seen.keyless_row

    def disable(key: ProviderKey, reason: str) -> None:
        ProviderKey.objects.filter(pk=key.pk).update(
            disabled_at=timezone.now(), disabled_reason=reason
        )

    assert found() == ([first.pk, second.pk], "")

    disable(first, "balance")
    assert found() == ([second.pk], "")

    disable(second, "auth")
    assert found() == ([], "E42")

    ProviderKey.objects.filter(pk=first.pk).update(is_active=False)
    assert found() == ([], "E41")

    Provider.objects.update(key_strategy="round_robin", failures_max=9)
    _follow(snapshot)
    seen = snapshot.catalogue.models["m"].routes[0].provider
    assert (seen.key_strategy, seen.failures_max) == ("round_robin", 9)


def test_a_rolled_back_change_leaves_no_version() -> None:

    make_user()
    before = loader.read_version()

    def change_and_fail() -> None:
        with transaction.atomic():
            User.objects.update(is_active=False)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        change_and_fail()

    assert loader.read_version() == before


def test_the_change_log_is_pruned_by_whole_versions_oldest_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loader, "PRUNE_ROWS", 2)
    monkeypatch.setattr(loader, "_PRUNE_PIECES_MAX", 2)
    ConfigurationChange.objects.all().delete()
    now = loader.read_version()
    versions = [now - 6, now - 5, now - 5, now - 5, now - 4, now - 3, now - 2, now]
    ConfigurationChange.objects.bulk_create(
        ConfigurationChange(version=version, table_name="users_user", row_key=0)
        for version in versions
    )

    def left() -> list[int]:
        rows = ConfigurationChange.objects.order_by("version")
        return [version - now for version in rows.values_list("version", flat=True)]

    pruned, after = loader.prune_changes(2), left()

    # Two pieces: of one version and the whole of the next, and of two more.
    assert (pruned, after) == (6, [-2, 0])
    assert (loader.prune_changes(2), left()) == (1, [0])
    assert (loader.prune_changes(2), left()) == (0, [0])


def test_a_gateway_that_slept_through_pruned_changes_loads_everything() -> None:
    old = loader.read_version()
    make_user()
    make_user()
    pruned = loader.prune_changes(1)

    assert pruned > 0
    assert loader.load_delta(old) is None
    assert loader.load_delta(loader.read_version() - 1) is not None


def test_one_transaction_is_one_version_whatever_it_changes() -> None:

    user = make_user()
    keys = [issue_key(user=user, name=f"key {n}")[0] for n in range(3)]
    before = loader.read_version()

    with transaction.atomic():
        for key in keys:
            APIKey.objects.filter(pk=key.pk).update(expires_at=timezone.now() + timedelta(days=1))

    changes: list[Any] = list(
        ConfigurationChange.objects.filter(version__gt=before).values_list("row_key", flat=True)
    )
    assert sorted(changes) == sorted(key.pk for key in keys)
    if connection.vendor == "postgresql":
        assert loader.read_version() == before + 1


def test_what_a_key_may_be_used_for_is_followed() -> None:
    key, _ = issue_key(user=make_user(), name="key")
    snapshot = loader.load_snapshot()
    APIKey.objects.filter(pk=key.pk).update(allowed_operations=["chat", "models"])

    delta = _follow(snapshot)

    assert list(delta.keys) == [key.pk]
    assert snapshot.keys[bytes(key.digest)].allowed_operations == {"chat", "models"}


@pytest.mark.parametrize("lists", [{"allowed_networks": ["10.0.0.300"]}, {"allowed_operations": 7}])
def test_a_key_with_lists_that_cannot_be_read_is_disabled_and_the_others_load(
    caplog: pytest.LogCaptureFixture, lists: dict[str, Any]
) -> None:
    user = make_user()
    bad, _ = issue_key(user=user, name="bad")
    good, _ = issue_key(user=user, name="good")
    APIKey.objects.filter(pk=bad.pk).update(**lists)

    keys = loader.load_snapshot().keys

    assert not keys[bytes(bad.digest)].is_active
    assert keys[bytes(good.digest)].is_active
    assert f"API key {bad.pk} is treated as disabled" in caplog.text


def test_reading_the_configuration_does_not_wait_for_a_writer(committed_db: Any) -> None:
    writer = committed_db.connect()
    try:
        writer.execute("BEGIN IMMEDIATE" if connection.vendor == "sqlite" else "BEGIN")
        writer.execute("UPDATE billing_account SET name = name")

        snapshot = loader.load_snapshot()
    finally:
        writer.execute("ROLLBACK")
        writer.close()

    assert snapshot.version == loader.read_version()
