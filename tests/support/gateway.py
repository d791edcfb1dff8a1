"""A real gateway process with a demo provider behind it, and what calls need: callers and models.

The gateway is `manage.py serve` on a database of the test session; the demo provider runs on an
event loop in a thread of this process, so that its log of calls can be read. Money is nano-USD.
"""

from __future__ import annotations

import asyncio
import http.client
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self, Unpack
from uuid import UUID

from openai import AsyncOpenAI, OpenAI

from apps.ai_models.catalogue import create_model
from apps.ai_models.models import AIModel, Route
from apps.api_keys.issue import KeyLimits, issue_key
from apps.api_keys.models import APIKey
from apps.audit.models import APIRequest, Attempt
from apps.billing.adjustments import adjust_balance
from apps.billing.customers import create_user
from apps.billing.models import Account, Entry, Hold
from apps.model_groups.models import ModelGroup
from apps.providers.credentials import add_key
from apps.providers.demo import DemoProvider
from apps.providers.demo.calls import Call
from apps.providers.models import Provider
from apps.users.models import User
from tests.support.databases import Database
from tests.support.environment import ENCRYPTION_KEY, PRIVATE_UPSTREAMS, SECRET_KEY
from tests.support.processes import free_port, wait_until

DOLLAR: Final = 1_000_000_000
# Nanos per million tokens, so that an input token costs 1000 nanos and an output token 4000.
PRICES: Final = {"input": 1_000_000_000, "output": 4_000_000_000}
INPUT_NANOS: Final = 1_000
OUTPUT_NANOS: Final = 4_000
PROVIDER_SECRET: Final = "sk-provider-secret-of-the-tests-0123456789"
MESSAGES: Final = [{"role": "user", "content": "Say something."}]
# The configuration is polled this often instead of once a second, so that tests need not wait.
FAST: Final = {"apps.proxy.gateway:POLL_SECONDS": 0.02, "apps.proxy.gateway:TICK_SECONDS": 0.05}

_ROOT: Final = Path(__file__).resolve().parent.parent.parent
_START_SECONDS: Final = 30
_STOP_SECONDS: Final = 20
_SEEN_SECONDS: Final = 5
_numbers = itertools.count(1)


class DemoThread:
    """A demo provider on an event loop of its own."""

    def __init__(self, *, api_key: str | None = None) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._provider = DemoProvider(api_key=api_key)
        asyncio.run_coroutine_threadsafe(self._provider.start(), self._loop).result(5)

    @property
    def base_url(self) -> str:
        """What a provider's row holds."""
        return self._provider.base_url

    def calls(self, upstream_name: str) -> list[Call]:
        """Return the calls of one model, oldest first."""
        return [call for call in list(self._provider.calls) if call["model"] == upstream_name]

    def ended(self, upstream_name: str) -> list[Call]:
        """Return the calls of one model when all of them have ended."""
        wait_until(
            lambda: all(call["ended"] for call in self.calls(upstream_name)),
            timeout_seconds=_SEEN_SECONDS,
            what=f"the end of the calls of {upstream_name}",
        )
        return self.calls(upstream_name)

    def stop(self) -> None:
        """Stop listening and end the thread."""
        asyncio.run_coroutine_threadsafe(self._provider.stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()


@dataclass(frozen=True, slots=True)
class GatewayProcess:
    """A running `manage.py serve`. Whoever started it stops it."""

    process: subprocess.Popen[bytes]
    port: int
    data_dir: Path
    log_path: Path

    @classmethod
    def start(
        cls,
        directory: Path,
        database: Database,
        *,
        environment: Mapping[str, str] | None = None,
        constants: Mapping[str, float] = FAST,
        plant: Sequence[str] = (),
    ) -> Self:
        """Start a gateway and return when it takes calls; `constants` by `module:NAME`."""
        data_dir = directory / "data"
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        log_path = directory / "stderr.log"
        port = free_port()
        command = [sys.executable, "manage.py", "serve"]
        if constants or plant:
            wishes = json.dumps({"constants": dict(constants), "plant": list(plant)})
            command = [sys.executable, "-m", "tests.support.serve", wishes]
        variables = {
            **os.environ,
            "DATA_DIR": str(data_dir),
            "DATABASE_URL": database.url,
            "SECRET_KEY": SECRET_KEY,
            "ENCRYPTION_KEY": ENCRYPTION_KEY,
            "PRIVATE_UPSTREAMS": PRIVATE_UPSTREAMS,
            "DRAIN_SECONDS": "2",
            "PAYLOADS": "full",
            **(environment or {}),
        }
        with log_path.open("ab") as log:
            process = subprocess.Popen(
                [*command, "--port", str(port)],
                cwd=_ROOT,
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        gateway = cls(process, port, data_dir, log_path)
        try:
            wait_until(gateway.is_ready, timeout_seconds=_START_SECONDS, what="the gateway")
        except BaseException:
            gateway.kill()
            sys.stderr.write(gateway.log())
            raise
        return gateway

    @property
    def url(self) -> str:
        """Where the gateway is reached."""
        return f"http://127.0.0.1:{self.port}"

    def is_ready(self) -> bool:
        """Return whether the gateway says that it takes calls. Raises when it has died."""
        if self.process.poll() is not None:
            raise ChildProcessError(self.log())
        try:
            return self.get("/readyz") == 200
        except OSError:
            return False

    def get(self, path: str, key: str = "") -> int:
        """Return the status of a GET."""
        caller = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            caller.request("GET", path, headers={"Authorization": f"Bearer {key}"} if key else {})
            with caller.getresponse() as response:
                return response.status
        finally:
            caller.close()

    def log(self) -> str:
        """Return all that the gateway has logged so far."""
        return self.log_path.read_text("utf-8", "replace")

    def stop(self) -> None:
        """End the gateway as an operator would, and see that it went in order."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
                raise

    def kill(self) -> None:
        """End the gateway at once."""
        self.process.kill()
        self.process.wait(_STOP_SECONDS)


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
        self.wait_for("/v1/models", caller.raw, 401)
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
        fallbacks: Sequence[tuple[str, Provider | None]] = (),
        **values: Any,
    ) -> AIModel:
        """Make a public model; `fallbacks` are upstream names of routes of lower priority."""
        model = create_model(
            name=f"model-{next(_numbers)}",
            provider=provider or self.provider,
            upstream_name=upstream_name,
            prices=prices,
            **values,
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
        wait_until(
            lambda: self.gateway.get(path, key) != unless,
            timeout_seconds=_SEEN_SECONDS,
            what=f"{path} in the gateway's configuration",
        )

    def wait_for_model(self, model: AIModel, caller: Caller) -> None:
        """Return when the gateway knows the model."""
        self.wait_for(f"/v1/models/{model.name}", caller.raw, 404)

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
            model = self.make_model(upstream_name, **values)
            caller = self._issue_key(10 * DOLLAR, None, None, {})
            made.append(Stage(self, caller, model, upstream_name))
        if waits:
            self.wait_for("/v1/models", made[-1].caller.raw, 401)
            self.wait_for_model(made[-1].model, made[-1].caller)
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
