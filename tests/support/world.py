"""The smallest world in which a call can be made and paid: one of each, written as rows."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.db import connection, transaction

from apps.ai_models.models import AIModel, PriceVersion, Route
from apps.api_keys.models import APIKey
from apps.audit.records import DETAIL_COLUMNS
from apps.billing.chains import REQUEST_FIELDS
from apps.billing.ledger.commands import (
    Batch,
    Cap,
    Held,
    HoldRefused,
    Line,
    PlaceHold,
    Posting,
    Resolve,
    Resolved,
)
from apps.billing.ledger.postgres import PostgresEngine
from apps.billing.ledger.sqlite import SqliteEngine
from apps.billing.ledger.store import Engine, flush, post
from apps.billing.models import Account
from apps.core.ids import new_uuid7
from apps.model_groups.models import ModelGroup
from apps.providers.models import Provider
from apps.users.models import Customer, User

DOLLAR = 1_000_000_000
UNIT = 1_000  # nanos, of stories about amounts
LEASE_SECONDS = 3_600  # no test outlives it
NOW = datetime(2026, 11, 21, 12, 0, 0, 123_456, tzinfo=UTC)
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class World:
    """A customer who can pay, a key, and a model that can be called. Ids are those of rows."""

    customer: Customer
    user: User
    wallet_id: int
    receivable_id: int
    revenue_id: int
    clearing_id: int
    promotion_id: int
    key: APIKey
    provider: Provider
    model: AIModel
    route: Route
    price: PriceVersion
    group: ModelGroup


def make_world(wallet_nanos: int = 10 * DOLLAR, *, input_nanos: int = DOLLAR) -> World:
    """Write a world with `wallet_nanos` in the wallet.

    The model's price is `input_nanos` per million input tokens and four times that for output.
    """
    number = next(_numbers)
    with transaction.atomic():
        customer = Customer.objects.create(name=f"customer {number}")
        user = User.objects.create(
            username=f"user{number}", email=f"user{number}@example.com", customer=customer
        )
        wallet, receivable = (
            Account.objects.create(kind=kind, customer=customer, name=f"{kind} {number}")
            for kind in ("wallet", "receivable")
        )
        raw = f"sk-audit-{number:032d}"
        key = APIKey.objects.create(
            user=user,
            name="default",
            digest=hashlib.sha256(raw.encode()).digest(),
            prefix=raw[:16],
            last_four=raw[-4:],
            is_default=True,
        )
        provider = Provider.objects.create(
            name=f"provider {number}", base_url="http://127.0.0.1:9/v1"
        )
        model = AIModel.objects.create(name=f"model-{number}")
        route = Route.objects.create(
            model=model, provider=provider, upstream_name=f"upstream-{number}"
        )
        price = PriceVersion.objects.create(
            model=model, effective_at=NOW, input_nanos=input_nanos, output_nanos=4 * input_nanos
        )
        group = ModelGroup.objects.create(name=f"public {number}", is_public=True)
        group.models.add(model)
        operator = {
            account.name: account.pk
            for account in Account.objects.filter(
                customer=None, name__in=("revenue 00", "clearing", "promotion")
            )
        }
        world = World(
            customer=customer,
            user=user,
            wallet_id=wallet.pk,
            receivable_id=receivable.pk,
            revenue_id=operator["revenue 00"],
            clearing_id=operator["clearing"],
            promotion_id=operator["promotion"],
            key=key,
            provider=provider,
            model=model,
            route=route,
            price=price,
            group=group,
        )
        if wallet_nanos:
            top_up(world, wallet_nanos)
    return world


def make_quota(world: World, nanos: int) -> int:
    """Write a quota account with `nanos` in it, from promotion, and return its id."""
    number = next(_numbers)
    with transaction.atomic():
        account = Account.objects.create(
            kind="quota", customer=world.customer, name=f"quota {number}"
        )
        if nanos:
            lines = (
                Line(account.pk, "credit", nanos),
                Line(world.promotion_id, "debit", -nanos),
            )
            post_lines("quota", *lines)
    return int(account.pk)


def top_up(world: World, nanos: int) -> None:
    """Move money from clearing to the customer: what is owed is repaid first."""
    owed = -Account.objects.get(pk=world.receivable_id).posted_nanos
    repaid = min(owed, nanos)
    lines = [Line(world.clearing_id, "debit", -nanos)]
    if repaid:
        lines.append(Line(world.receivable_id, "repayment", repaid))
    if nanos > repaid:
        lines.append(Line(world.wallet_id, "credit", nanos - repaid))
    with transaction.atomic():
        post_lines("top_up", *lines)


def post_lines(kind: str, *lines: Line) -> UUID:
    """Post a transaction on Django's connection, inside its open transaction; return its id."""
    transaction_id = new_uuid7()
    posting = Posting(transaction_id, kind, f"test:{transaction_id}", None, "tests", "test", lines)
    post(django_engine(), posting, now=NOW)
    return transaction_id


def django_engine() -> Engine:
    """Return the ledger on Django's own connection of this thread."""
    connection.ensure_connection()
    if connection.vendor == "postgresql":
        return PostgresEngine(connection.connection)
    return SqliteEngine(connection.connection)


def request_row(world: World, request_id: UUID, **changes: Any) -> dict[str, Any]:
    """Return the columns of an APIRequest that a gateway gives to the ledger."""
    row: dict[str, Any] = {
        "id": request_id,
        "customer_id": world.customer.pk,
        "user_id": world.user.pk,
        "user_name": world.user.username,
        "api_key_id": world.key.pk,
        "api_key_name": world.key.name,
        "model_id": world.model.pk,
        "requested_model": world.model.name,
        "route_id": world.route.pk,
        "provider_id": world.provider.pk,
        "provider_name": world.provider.name,
        "upstream_model": world.route.upstream_name,
        "endpoint": "chat/completions",
        "method": "POST",
        "dialect": "openai",
        "is_stream": False,
        "state": "completed",
        "status_code": 200,
        "error_code": "",
        "finish_reason": "stop",
        "usage_source": "reported",
        "is_usage_suspect": False,
        "cost_nanos": None,
        "hold_nanos": 0,
        "price_version_id": world.price.pk,
        "cost_version_id": None,
        "multiplier_millionths": 1_000_000,
        "attempt_count": 0,
        "input_bytes": 100,
        "output_bytes": 200,
        "started_at": NOW,
        "ttft_ms": 12,
        "duration_ms": 34,
        "ip_address": "127.0.0.1",
        "user_agent": "tests",
        "upstream_request_id": "",
        "payload_digest": None,
        "service_tier": "",
        "answered_from": "",
        "counts": "",
    }
    for name in REQUEST_FIELDS:
        if name.endswith("_tokens"):
            row[name] = 0
    row.update(changes)
    return row


def hold_detail(world: World) -> dict[str, Any]:
    """Return what a hold keeps of a call, so that anybody can end it."""
    row = request_row(world, new_uuid7())
    detail = {name: row[name] for name in DETAIL_COLUMNS}
    return detail | {"wallet_id": world.wallet_id, "receivable_id": world.receivable_id}


@dataclass(slots=True)
class Gateway:
    """Holds and resolves one call at a time through the ledger, as one incarnation."""

    world: World
    engine: Engine
    incarnation_id: int = 0
    holds: dict[UUID, Held] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.incarnation_id:
            self.incarnation_id = self.engine.open_incarnation(
                kind="gateway", host="tests", pid=1, lease_seconds=LEASE_SECONDS
            )

    def hold(
        self,
        nanos: int,
        *,
        minimum: int | None = None,
        quotas: tuple[int, ...] = (),
        caps: tuple[Cap, ...] = (),
        spare_caps: tuple[Cap, ...] = (),
        request_id: UUID | None = None,
        at: datetime = NOW,
    ) -> Held | HoldRefused:
        """Place a hold, on quotas first, and remember it where it was granted."""
        command = self.placement(
            nanos,
            minimum=minimum,
            quotas=quotas,
            caps=caps,
            spare_caps=spare_caps,
            request_id=request_id,
        )
        _, (answer,) = flush(
            self.engine, self.batch(holds=(command,), at=at), incarnation_id=self.incarnation_id
        )
        if isinstance(answer, Held):
            self.holds[answer.request_id] = answer
        return answer

    def placement(
        self,
        nanos: int,
        *,
        minimum: int | None = None,
        quotas: tuple[int, ...] = (),
        caps: tuple[Cap, ...] = (),
        spare_caps: tuple[Cap, ...] = (),
        request_id: UUID | None = None,
    ) -> PlaceHold:
        """Return the command that places a hold."""
        return PlaceHold(
            request_id=request_id or new_uuid7(),
            customer_id=self.world.customer.pk,
            buckets=(*quotas, self.world.wallet_id),
            receivable_id=self.world.receivable_id,
            amount_nanos=nanos,
            amount_nanos_min=nanos if minimum is None else minimum,
            detail=hold_detail(self.world),
            caps=caps,
            spare_caps=spare_caps,
        )

    def resolve(self, held: Held, tokens: int, *, at: datetime = NOW, **row: Any) -> Resolved:
        """Charge a hold for input tokens (0 voids it)."""
        command = self.resolution(held, tokens, **row)
        (answer,), _ = flush(
            self.engine, self.batch(resolves=(command,), at=at), incarnation_id=self.incarnation_id
        )
        self.holds.pop(held.request_id, None)
        return answer

    def resolution(self, held: Held, tokens: int, **row: Any) -> Resolve:
        """Return the command that charges a hold for input tokens, at the world's price."""
        assert self.world.price.input_nanos is not None
        charge = -(-tokens * self.world.price.input_nanos // 1_000_000)
        columns: dict[str, Any] = {"input_tokens": tokens, "hold_nanos": held.amount_nanos}
        if not tokens:
            columns |= {"state": "voided", "usage_source": "none"}
        return Resolve(
            request_id=held.request_id,
            wallet_id=self.world.wallet_id,
            receivable_id=self.world.receivable_id,
            legs=held.legs,
            counters=held.counters,
            charge_nanos=charge,
            row=request_row(self.world, held.request_id, **(columns | row)),
        )

    def batch(
        self,
        *,
        resolves: tuple[Resolve, ...] = (),
        holds: tuple[PlaceHold, ...] = (),
        at: datetime = NOW,
    ) -> Batch:
        """Return a batch of this gateway."""
        return Batch(resolves, holds, revenue_id=self.world.revenue_id, now=at)
