"""The configuration as the data plane sees it: frozen values in memory, built by `loader`.

A request takes the values it needs once, when it starts, and keeps them. The dicts of a Snapshot
are changed only by the loader, on the event loop, one whole value at a time.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass, field
from datetime import datetime
from ipaddress import IPv4Network, IPv6Network
from typing import NamedTuple

from apps.ai_models.overrides import Parameters
from apps.billing.ledger.commands import Cap
from apps.billing.periods import Budget
from apps.billing.pricing import Price
from apps.core.addresses import ParsedUrl
from apps.providers.authorisation import BEARER, Authorisation
from apps.providers.hosting import Hosting
from apps.providers.identities import Identity
from apps.proxy.dialects.neutral import USUAL_TARGET, Target
from apps.quotas.limits import Scope
from apps.risk.rules import RuleBook

Network = IPv4Network | IPv6Network
PAYLOAD_MODES = ("off", "metadata", "full")  # strictest first


@dataclass(frozen=True, slots=True)
class Key:
    """An API key."""

    id: int
    user_id: int
    name: str
    is_active: bool
    expires_at: datetime | None
    allowed_models: frozenset[str]  # empty: all
    allowed_networks: tuple[Network, ...]  # empty: from anywhere
    cap: Cap | None
    scope: Scope | None
    payload_mode: str
    cache_seconds: int | None = None  # how old an answer from the cache may be; None: none
    allowed_operations: frozenset[str] = frozenset()  # empty: all


@dataclass(frozen=True, slots=True)
class Allowance:
    """A user's quota on one model group."""

    account_id: int
    model_group_id: int
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class UserGroup:
    """What users share."""

    id: int
    multiplier_millionths: int
    cap: Cap | None
    scope: Scope | None
    budget: Budget | None = None


@dataclass(frozen=True, slots=True)
class Member:
    """A user, with the accounts that pay."""

    id: int
    name: str
    is_active: bool
    customer_id: int
    wallet_id: int
    receivable_id: int
    user_group_id: int | None
    cap: Cap | None
    scope: Scope | None
    allowances: tuple[Allowance, ...]
    budget: Budget | None = None


@dataclass(frozen=True, slots=True)
class Credential:
    """A provider's key. Its secret never appears in a representation of this value."""

    id: int
    weight: int
    secret: str = field(repr=False)
    scope: Scope | None = None
    daily_cost_nanos: int | None = None
    identity: Identity | None = field(default=None, repr=False)  # where requests are signed


@dataclass(frozen=True, slots=True)
class Provider:
    """A provider that can be called."""

    id: int
    name: str
    url: ParsedUrl
    base_url: str  # without a slash at the end
    dialect: str
    payload_mode: str
    connect_timeout_seconds: float
    first_byte_timeout_seconds: float
    idle_timeout_seconds: float
    total_timeout_seconds: float
    cap: Cap | None
    failures_max: int  # in a row, before a route rests
    key_strategy: str
    credentials: tuple[Credential, ...]
    keyless_row: str  # the error where it refused all its keys; "" where it has one, or never had
    scope: Scope | None = None
    daily_cost_nanos: int | None = None
    is_limited: bool = False  # itself, or one of its keys
    drain_seconds: float = 0.0  # how long answers are read on when their client has left
    authorisation: Authorisation = BEARER
    hosting: Hosting | None = None  # where a cloud serves the dialect in its own way


@dataclass(frozen=True, slots=True)
class PriceHistory:
    """The prices of a model or a route, by the moment from which they count."""

    moments: tuple[datetime, ...]  # ascending
    prices: tuple[Price, ...]

    def find(self, version_id: int) -> Price | None:
        """Return a version by its id."""
        return next((price for price in self.prices if price.id == version_id), None)

    def at(self, now: datetime) -> Price | None:
        """Return the price that counts at `now`."""
        position = bisect.bisect_right(self.moments, now)
        return self.prices[position - 1] if position else None


@dataclass(frozen=True, slots=True)
class Route:
    """A way from a model to a provider."""

    id: int
    provider: Provider
    upstream_name: str
    priority: int
    weight: int
    max_tokens_parameter: str
    costs: PriceHistory
    parameters: Parameters | None = None  # what is changed of bodies
    headers: tuple[tuple[str, str | None], ...] = ()  # set, or None: not sent
    target: Target = USUAL_TARGET  # what its model takes, where a request is converted


@dataclass(frozen=True, slots=True)
class ModelGroup:
    """A model group as far as access and price go."""

    id: int
    is_public: bool
    multiplier_millionths: int
    user_group_ids: frozenset[int]
    model_count: int


@dataclass(frozen=True, slots=True)
class Model:
    """A model that clients can ask for."""

    id: int
    name: str
    position: int
    created_at: datetime
    context_length: int
    max_output_tokens: int
    image_tokens_max: int
    routes: tuple[Route, ...]
    prices: PriceHistory
    groups: tuple[ModelGroup, ...]
    cache_seconds: int | None = None  # how long an answer may be kept; None: not at all
    cache_share_millionths: int = 1_000_000  # what one from the cache costs, of its price
    strategy: str = "priority"
    is_sticky: bool = False
    added_tokens: int = 0  # the most by which a route's overrides lengthen an input


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All that is not a person or a key; replaced as a whole."""

    models: dict[str, Model]
    user_groups: dict[int, UserGroup]


@dataclass(slots=True)
class Snapshot:
    """Everything the data plane knows, at one version of the configuration."""

    version: int
    keys: dict[bytes, Key]  # by keyed digest
    digests: dict[int, bytes]  # key id → digest
    members: dict[int, Member]
    catalogue: Catalogue
    rules: RuleBook | None = None  # None: there are none


class Caller(NamedTuple):
    """Who is calling: one consistent view of key, user and user group."""

    key: Key
    member: Member
    group: UserGroup | None

    @property
    def scopes(self) -> tuple[Scope, ...]:
        """The limits that this caller counts against."""
        found = (self.key.scope, self.member.scope, self.group.scope if self.group else None)
        return tuple(scope for scope in found if scope is not None)

    def caps_at(self, at: datetime) -> tuple[Cap, ...]:
        """Return what this caller may spend: in all, and in the periods of a call that begins
        then.
        """
        member, group = self.member, self.group
        found = (self.key.cap, member.cap, group.cap if group else None)
        caps = tuple(cap for cap in found if cap is not None)
        for budget in (member.budget, group.budget if group else None):
            if budget is not None:
                caps += budget.caps_at(at)
        return caps


class Access(NamedTuple):
    """What a caller may do with a model.

    At which multiplier, paid from which accounts in which order.
    """

    multiplier_millionths: int
    buckets: tuple[int, ...]


def find_access(caller: Caller, model: Model, now: datetime) -> Access | None:
    """Return the caller's access to the model, or None.

    Open are public groups, groups of the caller's user group, and groups for which he has a
    running quota. The cheapest open group counts; quotas pay first, the soonest to expire, then
    the narrowest.
    """
    group_id = caller.member.user_group_id
    running = [a for a in caller.member.allowances if a.expires_at is None or a.expires_at > now]
    funded = {allowance.model_group_id for allowance in running}
    open_groups = [
        group
        for group in model.groups
        if group.is_public or group.id in funded or group_id in group.user_group_ids
    ]
    if not open_groups:
        return None
    if caller.key.allowed_models and model.name not in caller.key.allowed_models:
        return None
    multiplier = min(group.multiplier_millionths for group in open_groups)
    if caller.group is not None:
        # Rounded up, so that no product of discounts becomes free by rounding.
        multiplier = -(-multiplier * caller.group.multiplier_millionths // 1_000_000)
    if not running:
        return Access(multiplier, (caller.member.wallet_id,))
    sizes = {group.id: group.model_count for group in open_groups}
    usable = [allowance for allowance in running if allowance.model_group_id in sizes]
    usable.sort(
        key=lambda a: (
            a.expires_at is None,
            a.expires_at.timestamp() if a.expires_at else 0.0,
            sizes[a.model_group_id],
            a.account_id,
        )
    )
    return Access(multiplier, (*(a.account_id for a in usable), caller.member.wallet_id))


def strictest_payload_mode(*modes: str) -> str:
    """Return the mode that keeps least."""
    return min(modes, key=PAYLOAD_MODES.index)
