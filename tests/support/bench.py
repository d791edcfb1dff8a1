"""What calls need: callers with money, models, clients; and what the database knows of them.

Money is nano-USD.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Unpack
from uuid import UUID

from django.db import transaction
from django.utils import timezone
from openai import AsyncOpenAI, OpenAI

from apps.ai_models.models import AIModel, PriceVersion, Route
from apps.ai_models.prices import NO_PRICE, Price
from apps.api_keys.issue import KeyLimits, issue_key
from apps.api_keys.models import APIKey
from apps.audit.models import APIRequest, Attempt
from apps.billing.adjustments import adjust_balance
from apps.billing.customers import create_user
from apps.billing.models import Account, Entry, Hold
from apps.model_groups.models import ModelGroup
from apps.providers.credentials import add_key
from apps.providers.demo.calls import Call
from apps.providers.models import Provider
from apps.users.models import User
from tests.support.databases import Database
from tests.support.gateway import DemoThread, GatewayProcess
from tests.support.processes import wait_until

DOLLAR: Final = 1_000_000_000
# Nanos per million tokens, so that an input token costs 1000 nanos and an output token 4000.
PRICES: Final = {"input": 1_000_000_000, "output": 4_000_000_000}
INPUT_NANOS: Final = 1_000
OUTPUT_NANOS: Final = 4_000
PROVIDER_SECRET: Final = "sk-provider-secret-of-the-tests-0123456789"
MESSAGES: Final = [{"role": "user", "content": "Say something."}]

# Asked for often: a list would grow with what all tests have made.
_NO_MODEL: Final = "/v1/models/none"
_SEEN_SECONDS: Final = 20  # Two processors may have other work.
# Half as long as a gateway of the tests takes to look for changes itself.
_POLL_SECONDS: Final = 0.025
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody with money and an API key."""

    user: User
    key: APIKey
    raw: str

    @property
    def headers(self) -> dict[str, str]:
        """The headers of a call."""
        return {"Authorization": f"Bearer {self.raw}", "Content-Type": "application/json"}


@dataclass(frozen=True, slots=True)
class Statement:
    """What the database knows of one caller. Rows are in the order in which the calls began."""

    rows: tuple[APIRequest, ...]
    attempts: tuple[Attempt, ...]
    entries: tuple[tuple[str, int], ...]  # kind and amount, on the wallet and the receivable
    posted_nanos: int  # of the wallet
    held_nanos: int
    owed_nanos: int
    holds: int

    @property
    def charges(self) -> tuple[int, ...]:
        """The charge of each call."""
        return tuple(row.charge_nanos for row in self.rows)

    @property
    def states(self) -> tuple[str, ...]:
        """The state of each call."""
        return tuple(row.state for row in self.rows)


class ImpatientOpenAI(OpenAI):
    """The official SDK, which obeys all headers but does not sleep before it tries again."""

    def _calculate_retry_timeout(self, *args: Any, **kwargs: Any) -> float:
        return 0.01


@dataclass(slots=True)
class Bench:
    """A gateway, its provider and its database, with builders for everything that calls need."""

    gateway: GatewayProcess
    demo: DemoThread
    database: Database
    group: ModelGroup
    provider: Provider
    clients: list[OpenAI] = field(default_factory=list)

    # ---- what calls need

    def make_caller(
        self,
        wallet_nanos: int = 10 * DOLLAR,
        *,
        user: User | None = None,
        user_values: Mapping[str, Any] | None = None,
        **limits: Unpack[KeyLimits],
    ) -> Caller:
        """Make a user (or take one) with a key, and return when the gateway knows the key."""
        caller = self._issue_key(wallet_nanos, user, user_values, limits)
        self.wait_for(_NO_MODEL, caller.raw, 401)
        return caller

    def _issue_key(
        self,
        wallet_nanos: int,
        user: User | None,
        user_values: Mapping[str, Any] | None,
        limits: KeyLimits,
    ) -> Caller:
        number = next(_numbers)
        if user is None:
            user = create_user(
                username=f"caller{number}", email=f"caller{number}@example.com", password=None
            )
            if user_values:
                User.objects.filter(pk=user.pk).update(**user_values)
            if wallet_nanos:
                adjust_balance(
                    customer_id=user.customer_id,
                    amount_nanos=wallet_nanos,
                    actor=None,
                    reason="for a test",
                )
        key, raw = issue_key(user=user, name=f"key {number}", **limits)
        return Caller(user, key, raw)

    def make_provider(
        self, base_url: str = "", *, secret: str = PROVIDER_SECRET, **values: Any
    ) -> Provider:
        """Make a provider with a key; without a URL it is the demo provider."""
        provider = Provider.objects.create(
            name=f"provider {next(_numbers)}", base_url=base_url or self.demo.base_url, **values
        )
        add_key(provider=provider, secret=secret)
        return provider

    def make_model(
        self,
        upstream_name: str = "demo-chat:prompt=10",
        *,
        provider: Provider | None = None,
        prices: Mapping[str, int] | None = PRICES,
        request_nanos: int = 0,
        fallbacks: Sequence[tuple[str, Provider | None]] = (),
        **values: Any,
    ) -> AIModel:
        """Make a public model; `fallbacks` are upstream names of routes of lower priority."""
        provider = provider or self.provider
        # As rows: to offer a model with all events is 30 statements, and most tests need one.
        with transaction.atomic():
            model = AIModel.objects.create(name=f"model-{next(_numbers)}", **values)
            Route.objects.create(
                model=model,
                provider=provider,
                upstream_name=upstream_name,
                priority=provider.priority,
                weight=provider.weight,
            )
            price = Price(prices or {}, request_nanos)
            if price != NO_PRICE:
                price.check()
                PriceVersion.objects.create(
                    model=model, effective_at=timezone.now(), **price.columns()
                )
        for position, (name, other) in enumerate(fallbacks, start=1):
            Route.objects.create(
                model=model,
                provider=other or self.provider,
                upstream_name=name,
                priority=position,
            )
        self.group.models.add(model)
        return model

    def wait_for(self, path: str, key: str, unless: int) -> None:
        """Return when a GET answers anything but that status."""
        with self.gateway.asking() as get:
            wait_until(
                lambda: get(path, key) != unless,
                timeout_seconds=_SEEN_SECONDS,
                what=f"{path} in the gateway's configuration",
                pause_seconds=_POLL_SECONDS,
            )

    def wait_for_model(self, model: AIModel, caller: Caller) -> None:
        """Return when the gateway knows the model."""
        self.wait_for(f"/v1/models/{model.name}", caller.raw, 404)

    def wait_for_stage(self, stage: Stage) -> None:
        """Return when the gateway knows a stage, and all that was made before it."""
        self.wait_for(_NO_MODEL, stage.caller.raw, 401)
        self.wait_for_model(stage.model, stage.caller)

    def stage(self, upstream_name: str = "demo-chat:prompt=10", **values: Any) -> Stage:
        """Return a caller and a model of their own, known to the gateway.

        The upstream name gets a number, so that the provider's log tells the stages apart.
        """
        (stage,) = self.stages(upstream_name, **values)
        return stage

    def stages(self, *upstream_names: str, waits: bool = True, **values: Any) -> list[Stage]:
        """Return several stages after one wait: the gateway sees changes in their order."""
        made = []
        for wanted in upstream_names:
            base, colon, wishes = wanted.partition(":")
            upstream_name = f"{base}-{next(_numbers)}{colon}{wishes}"
            # At once: for each commit that it sees, a gateway reads its catalogue anew.
            with transaction.atomic():
                model = self.make_model(upstream_name, **values)
                caller = self._issue_key(10 * DOLLAR, None, None, {})
            made.append(Stage(self, caller, model, upstream_name))
        if waits:
            self.wait_for_stage(made[-1])
        return made

    # ---- clients

    def client(self, caller: Caller, *, prefix: str = "/v1", **options: Any) -> OpenAI:
        """Return the official SDK for a caller."""
        client = ImpatientOpenAI(
            api_key=caller.raw,
            base_url=self.gateway.url + prefix,
            timeout=options.pop("timeout", 20),
            **options,
        )
        self.clients.append(client)
        return client

    def async_client(self, caller: Caller, *, prefix: str = "/v1") -> AsyncOpenAI:
        """Return the official SDK for a caller; whoever asked for it closes it."""
        return AsyncOpenAI(
            api_key=caller.raw, base_url=self.gateway.url + prefix, timeout=20, max_retries=0
        )

    def close_clients(self) -> None:
        """Close the connections of all clients."""
        while self.clients:
            self.clients.pop().close()

    # ---- what became of the calls

    def statement(self, caller: Caller) -> Statement:
        """Return what the database knows of a caller."""
        customer_id = caller.user.customer_id
        accounts = {
            account.kind: account for account in Account.objects.filter(customer_id=customer_id)
        }
        wallet, receivable = accounts["wallet"], accounts["receivable"]
        rows = tuple(APIRequest.objects.filter(user_id=caller.user.pk).order_by("started_at", "id"))
        entries = Entry.objects.filter(account__in=[wallet, receivable]).exclude(request_id=None)
        return Statement(
            rows=rows,
            attempts=tuple(
                Attempt.objects.filter(request_id__in=[row.id for row in rows]).order_by(
                    "request_id", "number"
                )
            ),
            entries=tuple(entries.order_by("pk").values_list("kind", "amount_nanos")),
            posted_nanos=wallet.posted_nanos,
            held_nanos=wallet.held_nanos,
            owed_nanos=-receivable.posted_nanos,
            holds=Hold.objects.filter(customer_id=customer_id).count(),
        )

    def settled(self, caller: Caller, count: int) -> Statement:
        """Return the statement when that many calls have ended and nothing is held."""
        wait_until(
            lambda: (
                APIRequest.objects.filter(user_id=caller.user.pk).count() >= count
                and not Hold.objects.filter(customer_id=caller.user.customer_id).exists()
            ),
            timeout_seconds=_SEEN_SECONDS,
            what=f"the end of {count} calls",
        )
        return self.statement(caller)

    def request_row(self, request_id: str) -> APIRequest:
        """Return the row of one call."""
        return APIRequest.objects.get(pk=UUID(request_id))


@dataclass(frozen=True, slots=True)
class Stage:
    """A caller and a model that no other test uses."""

    bench: Bench
    caller: Caller
    model: AIModel
    upstream_name: str

    def body(self, **values: Any) -> dict[str, Any]:
        """Return the body of a chat."""
        return {"model": self.model.name, "messages": MESSAGES, **values}

    @property
    def upstream_calls(self) -> list[Call]:
        """The calls that the provider got, all ended."""
        return self.bench.demo.ended(self.upstream_name)

    def client(self, **options: Any) -> OpenAI:
        """Return the official SDK of the caller."""
        return self.bench.client(self.caller, **options)

    def settled(self, count: int = 1) -> Statement:
        """Return the statement of the caller when that many calls have ended."""
        return self.bench.settled(self.caller, count)


def open_bench(directory: Path, database: Database, demo: DemoThread, **options: Any) -> Bench:
    """Start a gateway on a database whose Django connection is selected; the caller stops it."""
    gateway = GatewayProcess.start(directory, database, **options)
    group = ModelGroup.objects.create(name="public", is_public=True)
    provider = Provider.objects.create(name="demo", base_url=demo.base_url)
    add_key(provider=provider, secret=PROVIDER_SECRET)
    return Bench(gateway, demo, database, group, provider)
