"""Builds and renews the Snapshot from the database. Everything here blocks: it runs in a thread.

The whole configuration is read at the start; afterwards only what the change log names. Keys and
users are replaced one by one, everything else (models, routes, providers, groups, and the prices
that may still count: small) as a whole.

Over 400 lines because it is one Snapshot, table by table.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from typing import Final

from django.db.models import Exists, OuterRef, QuerySet

from apps.ai_models.models import AIModel, PriceVersion
from apps.ai_models.models import Route as RouteRow
from apps.ai_models.overrides import Conversion, OverridesRefused, parse_overrides
from apps.api_keys.models import APIKey
from apps.billing.models import Account, AccountKind
from apps.billing.periods import make_budget
from apps.billing.pricing import MULTIPLIER_ONE, Price, PriceIncomplete, price_of_columns
from apps.core.moments import one_moment
from apps.core.pieces import leave_to_others
from apps.model_groups.models import ModelGroup as ModelGroupRow
from apps.providers.maximums import find_max_tokens_parameter
from apps.proxy.dialects.neutral import Target
from apps.proxy.dialects.targets import find_target
from apps.proxy.models import ConfigurationChange, ConfigurationVersion
from apps.proxy.provider_loader import load_providers
from apps.proxy.scopes import cap_of, scope_of
from apps.proxy.snapshot import (
    Allowance,
    Catalogue,
    Key,
    Member,
    Model,
    ModelGroup,
    PriceHistory,
    Provider,
    Route,
    Snapshot,
    UserGroup,
)
from apps.quotas.models import UserQuota
from apps.risk.loading import load_rules
from apps.risk.rules import RuleBook
from apps.users.models import User
from apps.users.models import UserGroup as UserGroupRow

CHANGES_MAX: Final = 10_000
# For how long prices are loaded that others have replaced: longer than a quote holds, and than
# clocks differ. A call keeps those of the Snapshot that it began with.
PAST_PRICES: Final = timedelta(days=1)
_CHUNK: Final = 2_000
# Of the change log, in one transaction and in one run.
PRUNE_ROWS: Final = 1_000
_PRUNE_PIECES_MAX: Final = 20

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Delta:
    """What has changed since a version. A None in `keys` or `members` is a row that is gone."""

    version: int
    keys: dict[int, tuple[bytes, Key] | None] = field(default_factory=dict)
    members: dict[int, Member | None] = field(default_factory=dict)
    catalogue: Catalogue | None = None
    has_rules: bool = False  # they changed, and are these now
    rules: RuleBook | None = None


def read_version() -> int:
    """Return the version of the configuration that is committed now."""
    return ConfigurationVersion.objects.values_list("version", flat=True).get(pk=1)


def load_snapshot() -> Snapshot:
    """Read the whole configuration, as of one moment."""
    with one_moment():
        version = read_version()
        keys = dict(_load_keys(APIKey.objects.all()))
        return Snapshot(
            version=version,
            keys=keys,
            digests={key.id: digest for digest, key in keys.items()},
            members=_load_members(User.objects.all()),
            catalogue=_load_catalogue(),
            rules=load_rules(),
        )


def load_delta(since: int) -> Delta | None:
    """Read what has changed since a version; None where only a full load can tell."""
    if read_version() == since:
        return Delta(since)
    with one_moment():
        version = read_version()
        rows = list(
            ConfigurationChange.objects.filter(version__gt=since)
            .order_by("version")
            .values_list("version", "table_name", "row_key")[: CHANGES_MAX + 1]
        )
        # Versions have no gaps: a missing first one was pruned while this process slept.
        if not rows or len(rows) > CHANGES_MAX or rows[0][0] != since + 1:
            return None
        changed: dict[str, set[int]] = defaultdict(set)
        for _, table, row_key in rows:
            changed[table].add(row_key)
        delta = Delta(version)
        if key_ids := changed.pop("api_keys_apikey", None):
            loaded = _load_keys(APIKey.objects.filter(pk__in=key_ids))
            delta.keys = dict.fromkeys(key_ids)
            delta.keys.update({key.id: (digest, key) for digest, key in loaded})
        user_ids = changed.pop("users_user", set()) | changed.pop("quotas_userquota", set())
        if customer_ids := changed.pop("billing_account", None):
            user_ids.update(
                User.objects.filter(customer_id__in=customer_ids).values_list("pk", flat=True)
            )
        if user_ids:
            delta.members = dict.fromkeys(user_ids)
            delta.members.update(_load_members(User.objects.filter(pk__in=user_ids)))
        if changed.pop("risk_riskrule", None):
            delta.has_rules, delta.rules = True, load_rules()
        if changed:
            delta.catalogue = _load_catalogue()
    return delta


def apply_delta(snapshot: Snapshot, delta: Delta) -> None:
    """Bring the snapshot to the delta's version. Runs on the event loop and takes microseconds."""
    for key_id, found in delta.keys.items():
        old = snapshot.digests.pop(key_id, None)
        if old is not None:
            snapshot.keys.pop(old, None)
        if found is not None:
            digest, key = found
            snapshot.keys[digest] = key
            snapshot.digests[key_id] = digest
    for user_id, member in delta.members.items():
        if member is None:
            snapshot.members.pop(user_id, None)
        else:
            snapshot.members[user_id] = member
    if delta.catalogue is not None:
        snapshot.catalogue = delta.catalogue
    if delta.has_rules:
        snapshot.rules = delta.rules
    snapshot.version = delta.version


def prune_changes(keep: int) -> int:
    """Delete all but the last `keep` versions from the change log and return how many rows went.

    The oldest first, some at a time, and as many as leave the polls in between on time: the next
    run goes on. A version goes as a whole, as who reads a part of it would take it for all.
    """
    deleted = 0
    rows = ConfigurationChange.objects.filter(version__lte=read_version() - keep)
    for _ in range(_PRUNE_PIECES_MAX):
        page = rows.order_by("version").values_list("version", flat=True)[:PRUNE_ROWS]
        last = max(page, default=None)
        if last is None:
            break
        deleted += rows.filter(version__lte=last).delete()[0]
        leave_to_others()
    return deleted


def _load_keys(rows: QuerySet[APIKey]) -> Iterable[tuple[bytes, Key]]:
    values = rows.values_list(
        "id", "digest", "user_id", "name", "is_active", "expires_at", "allowed_models",
        "allowed_networks", "allowed_operations", "cap_nanos", "payload_mode", "rpm", "tpm",
        "concurrency", "cache_seconds",
    )  # fmt: skip
    for row in values.iterator(chunk_size=_CHUNK):
        (
            key_id,
            digest,
            user_id,
            name,
            is_active,
            expires_at,
            models,
            networks,
            operations,
            cap,
            mode,
            *limits,
            cache_seconds,
        ) = row
        try:
            allowed_networks = tuple(ip_network(text, strict=False) for text in networks)
            allowed_models, allowed_operations = frozenset(models), frozenset(operations)
        except (TypeError, ValueError):
            # One bad row must not keep everybody's configuration from loading.
            logger.error("API key %d is treated as disabled: its lists cannot be read", key_id)
            allowed_networks, is_active = (), False
            allowed_models = allowed_operations = frozenset()
        yield (
            bytes(digest),
            Key(
                id=key_id,
                user_id=user_id,
                name=name,
                is_active=is_active,
                expires_at=expires_at,
                allowed_models=allowed_models,
                allowed_networks=allowed_networks,
                cap=cap_of("api_key", key_id, cap),
                scope=scope_of(f"key:{key_id}", *limits),
                payload_mode=mode,
                cache_seconds=cache_seconds,
                allowed_operations=allowed_operations,
            ),
        )


def _load_members(rows: QuerySet[User]) -> dict[int, Member]:
    users = list(
        rows.values_list(
            "id",
            "username",
            "is_active",
            "customer_id",
            "user_group_id",
            "cap_nanos",
            "daily_budget_nanos",
            "monthly_budget_nanos",
            "rpm",
            "tpm",
            "concurrency",
        )
    )
    is_all = rows.query.is_empty() or not rows.query.where
    accounts = Account.objects.filter(kind__in=[AccountKind.WALLET, AccountKind.RECEIVABLE])
    quotas = UserQuota.objects.filter(is_active=True)
    if not is_all:
        accounts = accounts.filter(customer_id__in=[user[3] for user in users])
        quotas = quotas.filter(user_id__in=[user[0] for user in users])
    account_ids = {
        (customer_id, kind): account_id
        for account_id, customer_id, kind in accounts.values_list("id", "customer_id", "kind")
    }
    allowances: dict[int, list[Allowance]] = defaultdict(list)
    for user_id, account_id, model_group_id, expires_at in quotas.values_list(
        "user_id", "account_id", "model_group_id", "expires_at"
    ):
        allowances[user_id].append(Allowance(account_id, model_group_id, expires_at))
    members = {}
    for user_id, name, is_active, customer_id, group_id, cap, day, month, *limits in users:
        wallet_id = account_ids.get((customer_id, AccountKind.WALLET))
        receivable_id = account_ids.get((customer_id, AccountKind.RECEIVABLE))
        if wallet_id is None or receivable_id is None:
            continue  # Being created: the accounts' own change loads the user again.
        members[user_id] = Member(
            id=user_id,
            name=name,
            is_active=is_active,
            customer_id=customer_id,
            wallet_id=wallet_id,
            receivable_id=receivable_id,
            user_group_id=group_id,
            cap=cap_of("user", user_id, cap),
            scope=scope_of(f"user:{user_id}", *limits),
            allowances=tuple(allowances.get(user_id, ())),
            budget=make_budget("user", user_id, day, month),
        )
    return members


def _cap_parameter_of(row: RouteRow, provider: Provider) -> str:
    return row.max_tokens_parameter or find_max_tokens_parameter(provider.base_url)


def _target_of(row: RouteRow, provider: Provider, conversion: Conversion | None) -> Target:
    asked = conversion or Conversion()
    return find_target(
        dialect=provider.dialect,
        host=provider.url.host,
        upstream_name=row.upstream_name,
        cap_parameter=_cap_parameter_of(row, provider),
        reasoning=asked.reasoning,
        sampling=asked.sampling,
        efforts=asked.efforts,
        extensions=asked.extensions,
    )


def _load_catalogue() -> Catalogue:
    providers = load_providers()
    prices, costs = _load_prices()
    routes: dict[int, list[Route]] = defaultdict(list)
    for row in RouteRow.objects.filter(is_active=True, provider_id__in=providers):
        provider, headers = providers[row.provider_id]
        try:
            overrides = parse_overrides(row.overrides)
        except OverridesRefused as error:
            logger.error("route %d is left out: its overrides cannot be read: %s", row.pk, error)
            continue
        if overrides is not None:
            headers = tuple({**dict(headers), **dict(overrides.headers)}.items())
        routes[row.model_id].append(
            Route(
                id=row.pk,
                provider=provider,
                upstream_name=row.upstream_name,
                priority=row.priority,
                weight=row.weight,
                max_tokens_parameter=_cap_parameter_of(row, provider),
                costs=costs.get(row.pk, _NO_PRICES),
                parameters=overrides.parameters if overrides else None,
                headers=headers,
                target=_target_of(row, provider, overrides.conversion if overrides else None),
            )
        )
    groups: dict[int, list[ModelGroup]] = defaultdict(list)
    for group, model_ids in _load_model_groups():
        for model_id in model_ids:
            groups[model_id].append(group)
    models = {
        row.name: Model(
            id=row.pk,
            name=row.name,
            position=row.position,
            created_at=row.created_at,
            context_length=row.context_length,
            max_output_tokens=row.max_output_tokens,
            image_tokens_max=row.image_tokens_max,
            cache_seconds=row.cache_seconds,
            cache_share_millionths=(
                MULTIPLIER_ONE if row.cache_share_millionths is None else row.cache_share_millionths
            ),
            routes=tuple(routes.get(row.pk, ())),
            prices=prices.get(row.pk, _NO_PRICES),
            groups=tuple(groups.get(row.pk, ())),
            strategy=row.strategy,
            is_sticky=row.is_sticky,
            added_tokens=max(
                (r.parameters.added_bytes for r in routes.get(row.pk, ()) if r.parameters),
                default=0,
            ),
        )
        for row in AIModel.objects.filter(is_active=True).order_by("position", "name")
    }
    user_groups = {
        row.pk: UserGroup(
            id=row.pk,
            multiplier_millionths=row.multiplier_millionths,
            cap=cap_of("user_group", row.pk, row.cap_nanos),
            scope=scope_of(f"user_group:{row.pk}", row.rpm, row.tpm, row.concurrency),
            budget=make_budget(
                "user_group", row.pk, row.daily_budget_nanos, row.monthly_budget_nanos
            ),
        )
        for row in UserGroupRow.objects.all()
    }
    return Catalogue(models=models, user_groups=user_groups)


_NO_PRICES: Final = PriceHistory((), ())


def _price(row: PriceVersion) -> Price:
    try:
        return price_of_columns(vars(row))
    except PriceIncomplete:
        # One bad row must not keep everybody's configuration from loading. Nothing is sold by it.
        logger.error("price version %d cannot be used: its terms cannot be read", row.pk)
        return Price(id=row.pk)


def _load_prices() -> tuple[dict[int, PriceHistory], dict[int, PriceHistory]]:
    """Return the price histories of models and of routes, by their ids."""
    found: dict[tuple[int | None, int | None], list[PriceVersion]] = defaultdict(list)
    for row in _prices_that_may_count(datetime.now(UTC)).order_by("effective_at", "pk"):
        found[row.model_id, row.route_id].append(row)
    models, routes = {}, {}
    for (model_id, route_id), rows in found.items():
        history = PriceHistory(
            tuple(row.effective_at for row in rows),
            tuple(_price(row) for row in rows),
        )
        if model_id is not None:
            models[model_id] = history
        elif route_id is not None:
            routes[route_id] = history
    return models, routes


def _prices_that_may_count(now: datetime) -> QuerySet[PriceVersion]:
    """Return all versions but those that were replaced PAST_PRICES ago, which pile up for years."""
    replacing = PriceVersion.objects.filter(
        effective_at__gt=OuterRef("effective_at"), effective_at__lte=now - PAST_PRICES
    )
    # Each has an index of its own.
    return PriceVersion.objects.exclude(Exists(replacing.filter(model=OuterRef("model")))).exclude(
        Exists(replacing.filter(route=OuterRef("route")))
    )


def _load_model_groups() -> Iterable[tuple[ModelGroup, list[int]]]:
    rows = ModelGroupRow.objects.filter(is_active=True).prefetch_related("models", "user_groups")
    for row in rows:
        model_ids = [model.pk for model in row.models.all()]
        yield (
            ModelGroup(
                id=row.pk,
                is_public=row.is_public,
                multiplier_millionths=row.multiplier_millionths,
                user_group_ids=frozenset(group.pk for group in row.user_groups.all()),
                model_count=len(model_ids),
            ),
            model_ids,
        )
