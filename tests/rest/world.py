"""One of everything for tests of the whole REST API: what can be deleted, and what has history.

Secrets and masked values are canaries: texts that stand nowhere else.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
from asgiref.sync import async_to_sync
from django.apps import apps
from django.conf import settings
from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper
from django.test import AsyncClient
from django.utils import timezone
from rest_framework.test import APIClient
from rest_framework_simplejwt.tokens import AccessToken

from apps.ai_models.catalogue import create_model, ensure_route, set_price
from apps.api_keys.issue import issue_key
from apps.api_keys.models import APIKey
from apps.audit.models import AdminEvent, Attempt
from apps.billing.customers import adjust_user_balance
from apps.billing.models import Transaction
from apps.billing.proposals import propose_adjustment
from apps.core.counters import process_counts
from apps.model_groups.groups import create_group
from apps.providers.credentials import add_key
from apps.providers.health import disable_key
from apps.providers.models import DisabledReason, Provider, ProviderKey
from apps.providers.registration import create_provider
from apps.quotas.allowances import create_quota
from apps.users.models import Role, Session, User, UserGroup
from apps.users.tokens import SESSION_CLAIM, TokenPair, open_session
from tests.access.people import Cast, build_cast, keep_payload
from tests.support.calls import record_call
from tests.support.people import make_user
from tests.support.risk import make_rule

DOLLAR: Final = 10**9
PASSWORD: Final = "canary-PASSWORD-7b1f0d92"
NEW_PASSWORD: Final = "canary-NEWPASSWORD-7b1f0d92"
PROVIDER_SECRET: Final = "sk-canary-PROVIDER-7b1f0d92"
NEW_SECRET: Final = "sk-canary-NEWPROVIDER-29d0f1b7"
SENT: Final = (PASSWORD, NEW_PASSWORD, PROVIDER_SECRET, NEW_SECRET)

# Masked from some roles.
EMAIL: Final = "canaryemail@example.com"
USERNAME: Final = "canaryuser"
HOST: Final = "canaryhost.example.com"
KEY_NAME: Final = "canarykeyname"
CALLER_ADDRESS: Final = "203.0.113.77"
CALLER_AGENT: Final = "canaryagent"
ERROR_TEXT: Final = "canaryerror"
UPSTREAM_ID: Final = "canaryupstream"
COST_NANOS: Final = 7_654_321
COST: Final = "0.007654321"
COST_PRICE_NANOS: Final = 3_141_592_653
COST_PRICE: Final = "3.141592653"


@dataclass(frozen=True, slots=True)
class RestWorld:
    """Who calls, and the ids of what they can change, by name."""

    cast: Cast
    users: dict[str, User]
    ids: dict[str, Any]
    tokens: list[TokenPair] = field(default_factory=list)
    raw_keys: list[str] = field(default_factory=list)

    def client(self, role: str) -> APIClient:
        """Return a client, signed in unless the role is "", that gets 500 for what goes wrong."""
        client = APIClient(raise_request_exception=False)
        if role:
            client.credentials(HTTP_AUTHORIZATION=f"Bearer {self.tokens_of(role).access}")
        return client

    def tokens_of(self, role: str) -> TokenPair:
        """Return the tokens of who stands for a role."""
        return self.tokens[list(self.users).index(role)]

    def read(self, role: str, path: str) -> tuple[int, str, bytes]:
        """Return status, type and body of a GET, read as an ASGI server reads it."""
        process_counts.clear()  # The throttle is not what is tested here.
        headers = {"Authorization": f"Bearer {self.tokens_of(role).access}"} if role else {}

        async def read() -> tuple[int, str, bytes]:
            client = AsyncClient(raise_request_exception=False)
            answer: Any = await client.get(path, headers=headers)
            kind = answer.headers.get("Content-Type", "")
            if not answer.streaming:
                return answer.status_code, kind, answer.content
            return answer.status_code, kind, b"".join([piece async for piece in answer])

        return async_to_sync(read)()

    def path(self, path: str) -> str:
        """Return a path of docs/access.csv with the ids of what holds canaries."""
        event = AdminEvent.objects.filter(action="provider.created", object_name="spare").get()
        wallet = self.users["user"].customer.accounts.get(kind="wallet")
        named = {
            "user_id": self.ids["user"],
            "user_group_id": self.ids["user_group"],
            "provider_id": self.ids["spare_provider"],
            "model_id": self.ids["model"],
            "route_id": self.ids["route"],
            "model_group_id": self.ids["group"],
            "quota_id": self.ids["quota"],
            "proposed_adjustment_id": self.ids["proposal"],
            "risk_rule_id": self.ids["risk_rule"],
            "key_id": self.ids["spare_provider_key" if "/providers/" in path else "key"],
            "request_id": self.ids["call"],
            "account_id": wallet.pk,
            "transaction_id": Transaction.objects.latest("created_at").pk,
            "event_id": event.pk,
        }
        return path.format(**named)

    def secrets(self) -> list[str]:
        """Return every secret there is, as it is stored and as it was typed."""
        found: list[str] = [*SENT, *self.raw_keys, settings.SECRET_KEY, settings.ENCRYPTION_KEY]
        found += [str(settings.SIMPLE_JWT["SIGNING_KEY"])]
        found += [token for pair in self.tokens for token in (pair.access, pair.refresh)]
        found += [row.password for row in User.objects.all()]
        found += [row.sealed_secret for row in ProviderKey.objects.all()]
        for session in Session.objects.all():
            found += [session.refresh_id, session.auth_hash]
        for raw in (settings.API_KEY_PEPPER, *APIKey.objects.values_list("digest", flat=True)):
            found += [bytes(raw).hex(), base64.b64encode(bytes(raw)).decode()]
        return found


@contextmanager
def undone() -> Iterator[None]:
    """Roll back what was done inside."""
    with transaction.atomic():
        savepoint = transaction.savepoint()
        yield
        transaction.savepoint_rollback(savepoint)


def all_rows() -> dict[str, list[dict[str, Any]]]:
    """Return everything that the database holds, by table, as the driver reads it.

    Tests read all of it often, and building queries and objects takes most of the time of that.
    """
    with connection.cursor() as cursor:
        return {
            model._meta.db_table: _read_table(cursor, model._meta)
            for model in apps.get_models(include_auto_created=True)
            if model._meta.managed and not model._meta.proxy
        }


def _read_table(cursor: CursorWrapper, table: Any) -> list[dict[str, Any]]:
    name, key = (connection.ops.quote_name(part) for part in (table.db_table, table.pk.column))
    cursor.execute(f"SELECT * FROM {name} ORDER BY {key}")  # noqa: S608  # names of models
    columns = [column[0] for column in cursor.description]
    return [
        {column: _plain(value) for column, value in zip(columns, row, strict=True)}
        for row in cursor.fetchall()
    ]


def differences(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Return the rows that are new or other than they were, by table."""
    return {
        table: [row for row in rows if row not in before[table]] or "some are gone"
        for table, rows in after.items()
        if rows != before[table]
    }


def fill(value: Any, ids: dict[str, Any]) -> Any:
    """Return a body with ids in the place of the texts "{name}"."""
    if isinstance(value, dict):
        return {name: fill(inner, ids) for name, inner in value.items()}
    if isinstance(value, list):
        return [fill(inner, ids) for inner in value]
    if isinstance(value, str) and value.startswith("{"):
        return ids[value.strip("{}")]
    return value


def body_of(answer: Any) -> Any:
    """Return what an answer says, None where it says nothing."""
    return orjson.loads(answer.content) if answer.content else None


def build_world(*, base_url: str) -> RestWorld:
    """Write the world; a provider answers at `base_url`."""
    cast = build_cast()
    root = User.objects.filter(role=Role.ADMIN).order_by("pk")[0]
    users = {
        "user": make_user(username=USERNAME, email=EMAIL, password=PASSWORD),
        "viewer": User.objects.get(role=Role.VIEWER),
        "analyst": User.objects.get(role=Role.ANALYST),
        "admin": root,
    }
    world = RestWorld(cast=cast, users=users, ids={})
    world.tokens.extend(open_session(user=user, request=None) for user in users.values())
    world.ids.update(_configuration(root, base_url))
    world.ids.update(_people(world, root))
    _write_call(world)
    return world


def _configuration(root: User, base_url: str) -> dict[str, Any]:
    provider = create_provider(name="asked", base_url=base_url, secret=PROVIDER_SECRET, actor=root)
    spare = create_provider(
        name="spare",
        base_url=f"https://{HOST}/v1",
        secret=PROVIDER_SECRET,
        values={"cap_nanos": DOLLAR},
        actor=root,
    )
    unused = create_provider(
        name="unused", base_url="https://api.example.com/v1", secret=PROVIDER_SECRET, actor=root
    )
    used_key = add_key(provider=provider, secret=PROVIDER_SECRET, name="second", actor=root)
    named_key = add_key(provider=spare, secret=PROVIDER_SECRET, name=KEY_NAME, actor=root)
    refused_key = add_key(provider=provider, secret=PROVIDER_SECRET, name="refused", actor=root)
    disable_key(
        key_id=refused_key.pk,
        secret=PROVIDER_SECRET,
        reason=DisabledReason.AUTH,
        now=timezone.now(),
    )
    model = create_model(name="offered", provider=provider, prices={"input": 1, "output": 1})
    unpriced = create_model(name="unpriced", provider=provider, actor=root)
    route = model.routes.get()
    cost = set_price(route=route, prices={"input": COST_PRICE_NANOS}, actor=root)
    group = create_group(name="with quotas", models=[model], is_public=True, actor=root)
    return {
        "provider": provider.pk,
        "spare_provider": spare.pk,
        "unused_provider": unused.pk,
        "provider_key": used_key.pk,
        "spare_provider_key": named_key.pk,
        "refused_provider_key": refused_key.pk,
        "cost": cost.pk,
        "model": model.pk,
        "unpriced": unpriced.pk,
        "route": route.pk,
        "spare_route": ensure_route(model=unpriced, provider=spare).pk,
        "group": group.pk,
        "spare_group": create_group(name="without quotas", actor=root).pk,
        "user_group": UserGroup.objects.create(
            name="with members", cap_nanos=DOLLAR, monthly_budget_nanos=DOLLAR
        ).pk,
        "spare_user_group": UserGroup.objects.create(name="without members").pk,
        "risk_rule": make_rule("about requests", kind="request", operations=["rerank"]).pk,
    }


def _people(world: RestWorld, root: User) -> dict[str, Any]:
    user = world.users["user"]
    user.user_group_id = UserGroup.objects.get(name="with members").pk
    user.cap_nanos = user.daily_budget_nanos = 9 * DOLLAR
    user.save(update_fields=["user_group", "cap_nanos", "daily_budget_nanos"])
    adjust_user_balance(user=user, amount_nanos=5 * DOLLAR, reason="gift", actor=root)
    used, used_raw = issue_key(user=user, name="main", is_default=True, actor=root)
    spare, spare_raw = issue_key(user=user, name="unused", actor=user)
    world.raw_keys.extend([used_raw, spare_raw])
    group = world.ids["group"]
    given = {"user": user, "model_group": _group(group), "actor": root}
    # Two of somebody who was an administrator then.
    proposed, doubtful, own = (
        propose_adjustment(user=user, amount_nanos=DOLLAR, reason="gift", actor=actor)
        for actor in (*[world.users["analyst"]] * 2, root)
    )
    session = AccessToken(open_session(user=user, request=None).access)  # type: ignore[arg-type]  # text
    second = open_session(user=user, request=None)
    world.tokens.append(second)
    return {
        "user": user.pk,
        "spare_user": make_user(username="unused").pk,
        "key": used.pk,
        "spare_key": spare.pk,
        "quota": create_quota(**given, total_nanos=2 * DOLLAR).pk,
        "spare_quota": create_quota(**given, total_nanos=0).pk,
        "proposal": proposed.pk,
        "doubtful_proposal": doubtful.pk,
        "own_proposal": own.pk,
        "session": session[SESSION_CLAIM],
        "refresh": second.refresh,
    }


def _group(group_id: int) -> Any:
    return apps.get_model("model_groups", "ModelGroup").objects.get(pk=group_id)


def _write_call(world: RestWorld) -> None:
    """Write a call of the user's that gives key, provider key, route and provider a history."""
    user, provider = world.users["user"], Provider.objects.get(pk=world.ids["provider"])
    call = record_call(
        user_id=user.pk,
        user_name=user.username,
        customer_id=user.customer_id,
        api_key_id=world.ids["key"],
        model_id=world.ids["model"],
        requested_model="offered",
        route_id=world.ids["route"],
        provider_id=provider.pk,
        provider_name=provider.name,
        price_version_id=1,
        cost_nanos=COST_NANOS,
        cost_version_id=world.ids["cost"],
        payload_digest=b"\x05" * 32,
        ip_address=CALLER_ADDRESS,
        user_agent=CALLER_AGENT,
        upstream_request_id=UPSTREAM_ID,
        attempt_count=1,
        sequence=900,
    )
    Attempt.objects.create(
        request_id=call.pk,
        number=1,
        route_id=world.ids["route"],
        provider_id=provider.pk,
        provider_name=provider.name,
        provider_key_id=world.ids["provider_key"],
        upstream_model="offered",
        started_at=call.started_at,
        duration_ms=1,
        outcome="ok",
        error_text=ERROR_TEXT,
        upstream_request_id=UPSTREAM_ID,
    )
    keep_payload(call.pk)
    world.ids["call"] = str(call.pk)


def _plain(value: Any) -> Any:
    return bytes(value) if isinstance(value, memoryview) else value
