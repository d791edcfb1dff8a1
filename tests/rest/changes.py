"""Every write operation of REST with a valid body, and the events that it must leave.

One row and more for each operation of docs/access.csv that is not a GET. Bodies name objects of the
world as "{name}"; `on` names those of the path.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from apps.users.models import User
from tests.rest.world import (
    NEW_PASSWORD,
    NEW_SECRET,
    PASSWORD,
    USERNAME,
    RestWorld,
    fill,
)

AGENT: Final = "rest-tests/1.0"
ADDRESS: Final = "192.0.2.99"
ARCHIVED: Final = 409
_REPEATED: Final = {"Idempotency-Key": "once"}


@dataclass(frozen=True, slots=True)
class Change:
    """One call that changes something.

    `apart` are events that stand by themselves: they tell what was tried, and stay when the change
    fails.
    """

    method: str
    path: str  # as in docs/access.csv
    status: int
    events: tuple[str, ...]  # in the order in which they are written
    body: Any = None
    on: tuple[str, ...] = ()
    by: str = "admin"
    headers: Mapping[str, str] = field(default_factory=dict)
    apart: tuple[str, ...] = ()
    why_silent: str = ""  # why there is no event

    def __str__(self) -> str:
        return f"{self.method} {self.path} {' '.join(self.on)} {self.status}"

    def url(self, world: RestWorld) -> str:
        """Return the path with its ids."""
        parts = iter(self.on)
        return "/".join(
            str(world.ids[next(parts)]) if part.startswith("{") else part
            for part in self.path.split("/")
        )

    def send(self, world: RestWorld, **more: Any) -> Any:
        """Make the call; `more` are further fields of its body."""
        body = fill(self.body, world.ids)
        if more:
            body = {**(body or {}), **more}
        return world.client(self.by).generic(
            self.method,
            self.url(world),
            "" if body is None else json.dumps(body),
            content_type="application/json",
            headers={"User-Agent": AGENT, **self.headers},
            REMOTE_ADDR=ADDRESS,
        )

    def actor(self, world: RestWorld) -> User:
        """Return who does it."""
        return world.users[self.by or "user"]


_KEY: Final = {
    "name": "laptop",
    "allowed_networks": ["192.0.2.0/24"],
    "cap": "25",
    "rpm": 60,
    "allowed_operations": ["chat", "models"],
}
_PROVIDER: Final = {"base_url": "https://new.example.com/v1", "api_key": NEW_SECRET}
_PRICES: Final = {"prices": {"input": "2.5", "output": "10"}}

CHANGES: Final = (
    # API keys
    Change("POST", "/api/admin/keys/", 201, ("api_key.created",), {**_KEY, "user": "{user}"}),
    Change(
        "PUT", "/api/admin/keys/{key_id}/", 200, ("api_key.changed",),
        {**_KEY, "user": "{user}", "is_active": False}, on=("key",),
    ),
    Change(
        "PATCH", "/api/admin/keys/{key_id}/", 200, ("api_key.changed",), {"name": "other"},
        on=("key",),
    ),
    Change("DELETE", "/api/admin/keys/{key_id}/", 204, ("api_key.deleted",), on=("spare_key",)),
    Change(
        "DELETE", "/api/admin/keys/{key_id}/", ARCHIVED, ("api_key.deactivated",), on=("key",)
    ),
    # Models
    Change(
        "POST", "/api/admin/known-models/import/", 200, ("model.imported",),
        {"models": [{"provider": "openai", "model": "gpt-4o"}], "route_provider": "{provider}"},
    ),
    Change(
        "POST", "/api/admin/model-groups/", 201, ("model_group.created",),
        {"name": "new", "models": ["{model}"], "user_groups": ["{user_group}"]},
    ),
    Change(
        "PUT", "/api/admin/model-groups/{model_group_id}/", 200, ("model_group.changed",),
        {"name": "with quotas", "models": [], "multiplier": "2"}, on=("group",),
    ),
    Change(
        "PATCH", "/api/admin/model-groups/{model_group_id}/", 200, ("model_group.changed",),
        {"user_groups": ["{user_group}"]}, on=("group",),
    ),
    Change(
        "DELETE", "/api/admin/model-groups/{model_group_id}/", 204, ("model_group.deleted",),
        on=("spare_group",),
    ),
    Change(
        "DELETE", "/api/admin/model-groups/{model_group_id}/", ARCHIVED,
        ("model_group.deactivated",), on=("group",),
    ),
    Change(
        "POST", "/api/admin/models/", 201, ("model.created", "route.created", "price.created"),
        {"name": "new", "provider": "{provider}", **_PRICES, "capabilities": {"vision": True}},
    ),
    Change(
        "POST", "/api/admin/models/", 200, ("model.changed", "route.created", "price.created"),
        {"name": "offered", "provider": "{spare_provider}", **_PRICES, "position": 7},
    ),
    Change(
        "PUT", "/api/admin/models/{model_id}/", 200, ("model.changed", "price.created"),
        {"name": "unpriced", "description": "Now priced.", **_PRICES}, on=("unpriced",),
    ),
    Change(
        "PATCH", "/api/admin/models/{model_id}/", 200, ("price.created",),
        {"input_price_per_1k": "0.25"}, on=("model",),
    ),
    Change(
        "DELETE", "/api/admin/models/{model_id}/", 204,
        ("route.deleted", "route.deleted", "model.deleted"), on=("unpriced",),
    ),
    Change(
        "DELETE", "/api/admin/models/{model_id}/", ARCHIVED, ("model.deactivated",), on=("model",)
    ),
    Change(
        "POST", "/api/admin/models/{model_id}/prices/", 201, ("price.created",), _PRICES,
        on=("model",),
    ),
    # Risk rules
    Change(
        "POST", "/api/admin/risk-rules/", 201, ("risk_rule.created",),
        {"name": "new", "kind": "content", "action": "record", "words": ["bomb"],
         "user_groups": ["{user_group}"]},
    ),
    Change(
        "POST", "/api/admin/risk-rules/test/", 200, (), {"text": "a bomb"},
        why_silent="It changes nothing.",
    ),
    Change(
        "PUT", "/api/admin/risk-rules/{risk_rule_id}/", 200, ("risk_rule.changed",),
        {"name": "other", "kind": "request", "action": "record", "networks": ["192.0.2.0/24"]},
        on=("risk_rule",),
    ),
    Change(
        "PATCH", "/api/admin/risk-rules/{risk_rule_id}/", 200, ("risk_rule.changed",),
        {"is_active": False, "message": "Not here."}, on=("risk_rule",),
    ),
    Change(
        "DELETE", "/api/admin/risk-rules/{risk_rule_id}/", 204, ("risk_rule.deleted",),
        on=("risk_rule",),
    ),
    # Providers
    Change(
        "POST", "/api/admin/providers/", 201, ("provider.created", "provider_key.created"),
        {**_PROVIDER, "name": "new", "cap": "10"},
    ),
    Change(
        "PUT", "/api/admin/providers/{provider_id}/", 200,
        (
            "provider.changed", "provider_key.deactivated", "provider_key.deactivated",
            "provider_key.created",
        ),
        {**_PROVIDER, "name": "moved"}, on=("spare_provider",),
    ),
    Change(
        "PATCH", "/api/admin/providers/{provider_id}/", 200, ("provider.changed",),
        {"weight": 9, "payload_mode": "off"}, on=("provider",),
    ),
    Change(
        "DELETE", "/api/admin/providers/{provider_id}/", 204,
        ("provider_key.deleted", "provider.deleted"), on=("unused_provider",),
    ),
    Change(
        "DELETE", "/api/admin/providers/{provider_id}/", ARCHIVED, ("provider.deactivated",),
        on=("provider",),
    ),
    Change(
        "POST", "/api/admin/providers/{provider_id}/keys/", 201, ("provider_key.created",),
        {"api_key": NEW_SECRET, "name": "second", "weight": 2}, on=("provider",),
    ),
    Change(
        "PUT", "/api/admin/providers/{provider_id}/keys/{key_id}/", 200,
        ("provider_key.secret_replaced", "provider_key.changed"),
        {"api_key": NEW_SECRET, "weight": 5}, on=("provider", "provider_key"),
    ),
    Change(
        "PATCH", "/api/admin/providers/{provider_id}/keys/{key_id}/", 200,
        ("provider_key.changed",), {"is_active": False}, on=("provider", "provider_key"),
    ),
    Change(
        "DELETE", "/api/admin/providers/{provider_id}/keys/{key_id}/", 204,
        ("provider_key.deleted",), on=("spare_provider", "spare_provider_key"),
    ),
    Change(
        "DELETE", "/api/admin/providers/{provider_id}/keys/{key_id}/", ARCHIVED,
        ("provider_key.deactivated",), on=("provider", "provider_key"),
    ),
    Change(
        "POST", "/api/admin/providers/{provider_id}/keys/{key_id}/enable/", 200,
        ("provider_key.enabled",), on=("provider", "refused_provider_key"),
    ),
    Change(
        "POST", "/api/admin/providers/{provider_id}/sync-models/", 200,
        ("provider.models_listed",), {"apply": False}, on=("provider",),
    ),
    Change(
        "POST", "/api/admin/providers/{provider_id}/sync-models/", 200,
        ("provider.models_listed", "model.created", "route.created"),
        {"apply": True, "models": [{"upstream_name": "demo-chat", "name": "synced"}]},
        on=("provider",), apart=("provider.models_listed",),
    ),
    Change(
        "POST", "/api/admin/providers/{provider_id}/test/", 200, ("provider.tested",),
        {"model": "demo-chat"}, on=("provider",),
    ),
    # Quotas
    Change(
        "POST", "/api/admin/quotas/", 201, ("quota.created",),
        {"user": "{user}", "model_group": "{group}", "total_quota": "1", "reason": "term"},
        headers=_REPEATED,
    ),
    Change(
        "POST", "/api/admin/quotas/bulk/", 201, ("quota.created", "quota.created"),
        {"users": ["{user}", "{spare_user}"], "model_group": "{group}", "total_quota": "1"},
        headers=_REPEATED,
    ),
    Change(
        "POST", "/api/admin/quotas/bulk-change/", 200, ("quota.changed", "quota.changed"),
        {"quotas": ["{quota}", "{spare_quota}"], "add": "1"}, headers=_REPEATED,
    ),
    Change(
        "PUT", "/api/admin/quotas/{quota_id}/", 200, ("quota.changed",),
        {"user": "{user}", "model_group": "{group}", "total_quota": "3"}, on=("quota",),
        headers=_REPEATED,
    ),
    Change(
        "PATCH", "/api/admin/quotas/{quota_id}/", 200, ("quota.changed",),
        {"is_active": False, "reason": "over"}, on=("quota",),
    ),
    Change("DELETE", "/api/admin/quotas/{quota_id}/", 204, ("quota.deleted",), on=("spare_quota",)),
    Change(
        "DELETE", "/api/admin/quotas/{quota_id}/", ARCHIVED, ("quota.deactivated",), on=("quota",)
    ),
    # Routes
    Change(
        "POST", "/api/admin/routes/", 201, ("route.created", "price.created"),
        {"model": "{model}", "provider": "{unused_provider}", "cost_prices": {"input": "1"}},
    ),
    Change(
        "PUT", "/api/admin/routes/{route_id}/", 200, ("route.changed",),
        {"model": "{model}", "provider": "{provider}", "weight": 4}, on=("route",),
    ),
    Change(
        "PATCH", "/api/admin/routes/{route_id}/", 200, ("route.changed", "price.created"),
        {"priority": 4, "cost_prices": {"input": "2"}}, on=("route",),
    ),
    Change("DELETE", "/api/admin/routes/{route_id}/", 204, ("route.deleted",), on=("spare_route",)),
    Change(
        "DELETE", "/api/admin/routes/{route_id}/", ARCHIVED, ("route.deactivated",), on=("route",)
    ),
    Change(
        "POST", "/api/admin/routes/{route_id}/costs/", 201, ("price.created",), _PRICES,
        on=("route",),
    ),
    # User groups
    Change(
        "POST", "/api/admin/user-groups/", 201, ("user_group.created",),
        {"name": "new", "multiplier": "0.5", "model_groups": ["{group}"], "cap": "10"},
    ),
    Change(
        "PUT", "/api/admin/user-groups/{user_group_id}/", 200, ("user_group.changed",),
        {"name": "renamed", "multiplier": "0.5"}, on=("user_group",),
    ),
    Change(
        "PATCH", "/api/admin/user-groups/{user_group_id}/", 200, ("user_group.changed",),
        {"model_groups": ["{group}"]}, on=("user_group",),
    ),
    Change(
        "DELETE", "/api/admin/user-groups/{user_group_id}/", 204, ("user_group.deleted",),
        on=("spare_user_group",),
    ),
    # Users
    Change(
        "POST", "/api/admin/users/", 201, ("user.created",),
        {"username": "new", "email": "new@example.com", "password": NEW_PASSWORD},
    ),
    Change(
        "PUT", "/api/admin/users/{user_id}/", 200,
        ("user.role_changed", "user.changed", "user.sessions_ended"),
        {"username": USERNAME, "email": "moved@example.com", "role": "analyst"}, on=("user",),
    ),
    Change(
        "PATCH", "/api/admin/users/{user_id}/", 200, ("user.password_set", "user.sessions_ended"),
        {"password": NEW_PASSWORD}, on=("user",),
    ),
    Change("DELETE", "/api/admin/users/{user_id}/", 204, ("user.deleted",), on=("spare_user",)),
    Change(
        "DELETE", "/api/admin/users/{user_id}/", ARCHIVED,
        ("user.deactivated", "user.sessions_ended"), on=("user",),
    ),
    Change(
        "POST", "/api/admin/users/{user_id}/adjust-balance/", 200, ("user.balance_adjusted",),
        {"amount": "-1", "reason": "mistake"}, on=("user",), headers=_REPEATED,
    ),
    Change(
        "POST", "/api/admin/proposed-adjustments/{proposed_adjustment_id}/approve/", 200,
        ("user.balance_adjusted", "proposed_adjustment.approved"), {}, on=("proposal",),
    ),
    Change(
        "POST", "/api/admin/proposed-adjustments/{proposed_adjustment_id}/reject/", 200,
        ("proposed_adjustment.rejected",), {"reason": "paid already"}, on=("doubtful_proposal",),
    ),
    Change(
        "POST", "/api/admin/proposed-adjustments/{proposed_adjustment_id}/withdraw/", 200,
        ("proposed_adjustment.withdrawn",), {}, on=("own_proposal",),
    ),
    Change(
        "POST", "/api/admin/users/{user_id}/end-sessions/", 200, ("user.sessions_ended",),
        {}, on=("user",),
    ),
    Change(
        "POST", "/api/admin/users/{user_id}/reset-key/", 200,
        ("api_key.deactivated", "api_key.created"), {}, on=("user",),
    ),
    # Signing in and out
    Change(
        "POST", "/api/auth/login/", 200, ("sign_in.succeeded",),
        {"username": USERNAME, "password": PASSWORD}, by="",
    ),
    Change("POST", "/api/auth/logout/", 204, ("sign_out",), {"refresh": "{refresh}"}, by="user"),
    Change(
        "POST", "/api/auth/refresh/", 200, (), {"refresh": "{refresh}"}, by="",
        why_silent="An open session goes on; that it began is on record, and so is a stolen token.",
    ),
    Change(
        "POST", "/api/auth/refresh-key/", 200, ("api_key.deactivated", "api_key.created"),
        {}, by="user",
    ),
    Change(
        "DELETE", "/api/auth/sessions/{session_id}/", 204, ("session.ended",), on=("session",),
        by="user",
    ),
    # One's own
    Change("POST", "/api/user/keys/", 201, ("api_key.created",), _KEY, by="user"),
    Change(
        "PUT", "/api/user/keys/{key_id}/", 200, ("api_key.changed",), _KEY, on=("key",), by="user"
    ),
    Change(
        "PATCH", "/api/user/keys/{key_id}/", 200, ("api_key.changed",), {"is_active": False},
        on=("key",), by="user",
    ),
    Change(
        "DELETE", "/api/user/keys/{key_id}/", 204, ("api_key.deleted",), on=("spare_key",),
        by="user",
    ),
    Change(
        "DELETE", "/api/user/keys/{key_id}/", ARCHIVED, ("api_key.deactivated",), on=("key",),
        by="user",
    ),
    Change(
        "PATCH", "/api/user/profile/", 200, ("user.changed", "user.password_changed"),
        {"name": "Ada", "password": NEW_PASSWORD, "current_password": PASSWORD}, by="user",
    ),
)  # fmt: skip
