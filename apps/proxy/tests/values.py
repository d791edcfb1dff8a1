"""Snapshot values for tests: one of everything, changed where a test needs it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

from apps.billing.pricing import Price
from apps.core.addresses import ParsedUrl
from apps.proxy.snapshot import (
    Caller,
    Catalogue,
    Credential,
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

NOW: Final = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
EARLIER: Final = datetime(2026, 1, 1, tzinfo=UTC)
NO_PRICES: Final = PriceHistory((), ())
WALLET: Final = 100

PROVIDER: Final = Provider(
    id=1,
    name="provider",
    url=ParsedUrl("https", "api.example.com", 443, "/v1", "", None, False),
    base_url="https://api.example.com/v1",
    dialect="openai",
    payload_mode="full",
    connect_timeout_seconds=5.0,
    first_byte_timeout_seconds=60.0,
    idle_timeout_seconds=60.0,
    total_timeout_seconds=600.0,
    cap=None,
    failures_max=5,
    key_strategy="random",
    credentials=(Credential(id=1, weight=1, secret="sk-upstream"),),
    keyless_row="",
)
ROUTE: Final = Route(
    id=1,
    provider=PROVIDER,
    upstream_name="gpt",
    priority=0,
    weight=1,
    max_tokens_parameter="max_tokens",
    costs=NO_PRICES,
)
PUBLIC: Final = ModelGroup(
    id=1,
    is_public=True,
    multiplier_millionths=1_000_000,
    user_group_ids=frozenset(),
    model_count=5,
)
MODEL: Final = Model(
    id=1,
    name="gpt",
    position=0,
    created_at=EARLIER,
    context_length=1_000,
    max_output_tokens=500,
    image_tokens_max=100,
    routes=(ROUTE,),
    prices=PriceHistory((EARLIER,), (Price(id=1, input=2_500_000_000, output=10_000_000_000),)),
    groups=(PUBLIC,),
)
KEY: Final = Key(
    id=1,
    user_id=1,
    name="key",
    is_active=True,
    expires_at=None,
    allowed_models=frozenset(),
    allowed_networks=(),
    cap=None,
    scope=None,
    payload_mode="full",
)
MEMBER: Final = Member(
    id=1,
    name="alice",
    is_active=True,
    customer_id=1,
    wallet_id=WALLET,
    receivable_id=101,
    user_group_id=None,
    cap=None,
    scope=None,
    allowances=(),
)


def make_caller(
    *, key: dict[str, Any] | None = None, group: UserGroup | None = None, **member: Any
) -> Caller:
    """Return a caller; a user group makes the member belong to it."""
    if group is not None:
        member["user_group_id"] = group.id
    return Caller(replace(KEY, **(key or {})), replace(MEMBER, **member), group)


def make_snapshot(digest: bytes, **changes: Any) -> Snapshot:
    """Return a snapshot that knows one key, one member and one model."""
    key = replace(KEY, **changes.get("key", {}))
    member = replace(MEMBER, **changes.get("member", {}))
    model = replace(MODEL, **changes.get("model", {}))
    return Snapshot(
        version=1,
        keys={digest: key},
        digests={key.id: digest},
        members={member.id: member},
        catalogue=Catalogue(models={model.name: model}, user_groups={}),
    )
