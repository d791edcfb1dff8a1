"""A place for accidents: gateways, a provider, clients, and the check of the books afterwards."""

from __future__ import annotations

import io
import itertools
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import orjson
from django.core.management import call_command
from django.db import connection

from apps.ai_models.catalogue import create_model
from apps.ai_models.models import AIModel, Route
from apps.api_keys.issue import issue_key
from apps.audit.models import APIRequest
from apps.billing.adjustments import adjust_balance
from apps.billing.customers import create_user
from apps.billing.models import Account, Entry, Hold
from apps.model_groups.models import ModelGroup
from apps.providers.credentials import add_key
from apps.providers.models import Provider
from tests.e2e.wire import post_with
from tests.faults.crowd import Crowd, Outcome
from tests.support.databases import Database
from tests.support.gateway import GatewayProcess
from tests.support.processes import wait_until

DOLLAR: Final = 1_000_000_000
# Nanos per million tokens: an input token costs 1000 nanos, an output token 4000.
INPUT_NANOS: Final = 1_000
OUTPUT_NANOS: Final = 4_000
PROMPT_TOKENS: Final = 10
PROVIDER_SECRET: Final = "sk-demo-0123456789abcdef"
RECOVERY_SECONDS_MAX: Final = 60.0
ROUNDS: Final = int(os.environ.get("ROUNDS") or "1")
SHORT_LEASE: Final = "tests.faults.planted:short_lease"
_PROVIDER: Final = (sys.executable, "-m", "apps.providers.demo")
_ROOT: Final = Path(__file__).resolve().parent.parent.parent
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Payer:
    """A customer with a key."""

    customer_id: int
    key: str
    user_id: int

    @property
    def wallet(self) -> Account:
        """The wallet as it is now."""
        return Account.objects.get(customer_id=self.customer_id, kind="wallet")

    @property
    def owed_nanos(self) -> int:
        """What the customer owes beyond the wallet."""
        return -Account.objects.get(customer_id=self.customer_id, kind="receivable").posted_nanos


@dataclass(slots=True)
class Site:
    """Everything one test of a fault needs. `stop` ends it all."""

    directory: Path
    database: Database
    report: Callable[[str], None]
    gateways: dict[str, GatewayProcess] = field(default_factory=dict)
    crowd: Crowd = field(default_factory=Crowd)
    _provider: subprocess.Popen[str] | None = None
    provider_port: int = 0
    _row: Provider | None = None
    _group: ModelGroup | None = None

    def start_provider(self) -> None:
        """Start the demo provider and make its row; again, where it had been."""
        if self._provider is not None:
            self._provider.kill()
            self._provider.communicate()
        self._provider = subprocess.Popen(
            [*_PROVIDER, "--log", str(self.log), "--port", str(self.provider_port)],
            cwd=_ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._provider.stdout is not None
        self.provider_port = int(self._provider.stdout.readline().rpartition(":")[2])
        if self._row is None:
            self._row = self.make_provider("demo")
            self._group = ModelGroup.objects.create(name="public", is_public=True)

    @property
    def provider_process(self) -> subprocess.Popen[str]:
        """The demo provider; started again it has the port that it had."""
        assert self._provider is not None
        return self._provider

    def make_provider(self, name: str = "", port: int = 0, **values: Any) -> Provider:
        """Make a row for the demo provider, or for what stands before it on another port."""
        version = "v1beta" if values.get("dialect") == "gemini" else "v1"
        row = Provider.objects.create(
            name=name or f"demo-{next(_numbers)}",
            base_url=f"http://127.0.0.1:{port or self.provider_port}/{version}",
            **values,
        )
        add_key(provider=row, secret=PROVIDER_SECRET)
        return row

    def signal_provider(self, number: signal.Signals) -> None:
        """Send the demo provider a signal, for example SIGSTOP."""
        assert self._provider is not None
        self._provider.send_signal(number)

    @property
    def log(self) -> Path:
        """The provider's log of ended calls."""
        return self.directory / "provider.jsonl"

    def make_model(
        self, wishes: str = "", *, provider: Provider | None = None, **values: Any
    ) -> AIModel:
        """Make a model; `wishes` are options of the demo provider."""
        assert self._group is not None
        values.setdefault(
            "prices", {"input": INPUT_NANOS * 1_000_000, "output": OUTPUT_NANOS * 1_000_000}
        )
        values.setdefault("name", f"model-{next(_numbers):04d}")
        model = create_model(
            provider=provider or self._row, upstream_name=upstream_name(wishes), **values
        )
        self._group.models.add(model)
        return model

    def add_route(self, model: AIModel, wishes: str, *, provider: Provider) -> None:
        """Give a model another route, to be tried after those that it has."""
        Route.objects.create(
            model=model,
            provider=provider,
            upstream_name=upstream_name(wishes),
            priority=model.routes.count(),
        )

    def make_payer(self, wallet_nanos: int = 100 * DOLLAR, **limits: Any) -> Payer:
        """Make a customer with money and a key; `limits` are those of the key."""
        name = f"payer{next(_numbers)}"
        user = create_user(username=name, email=f"{name}@example.com", password=None)
        adjust_balance(
            customer_id=user.customer_id, amount_nanos=wallet_nanos, actor=None, reason="for a test"
        )
        key = issue_key(user=user, name="default", **limits)[1]
        return Payer(user.customer_id, key, user.pk)

    def start_gateways(
        self,
        *names: str,
        plant: Sequence[str] = (),
        database_url: str = "",
        environment: Mapping[str, str] | None = None,
        constants: Mapping[str, float] | None = None,
        port: int = 0,
    ) -> list[GatewayProcess]:
        """Start gateways at once and return when all take calls. A name keeps its DATA_DIR."""
        variables = dict(environment or {})
        if database_url:
            variables["DATABASE_URL"] = database_url

        def start(name: str) -> GatewayProcess:
            return GatewayProcess.start(
                self.directory / name,
                self.database,
                environment=variables,
                constants=constants or {},
                plant=plant,
                port=port,
            )

        with ThreadPoolExecutor(len(names)) as threads:
            futures = {name: threads.submit(start, name) for name in names}
        errors = [error for future in futures.values() if (error := future.exception())]
        for name, future in futures.items():
            if future.exception() is None:
                self.gateways[name] = future.result()
        if errors:
            raise errors[0]
        return [self.gateways[name] for name in names]

    def database_url_through(self, port: int) -> str:
        """Return the URL of the database by way of a proxy on a port."""
        assert self.database.server is not None
        return self.database.url.replace(f":{self.database.server.port}/", f":{port}/")

    def stop(self) -> None:
        """End all processes."""
        try:
            self.crowd.stop()
        finally:
            for gateway in self.gateways.values():
                gateway.kill()
            if self._provider is not None:
                self._provider.kill()
                self._provider.communicate()

    def upstream_calls(self) -> dict[UUID, int]:
        """Return the calls that reached the provider and have ended, and what they cost."""
        lines = self.log.read_bytes().splitlines() if self.log.exists() else []
        calls = (orjson.loads(line) for line in lines)
        return {
            UUID(call["request_headers"]["x-request-id"]): call["input_tokens"] * INPUT_NANOS
            + call["output_tokens"] * OUTPUT_NANOS
            for call in calls
        }

    def attempts_upstream(self) -> int:
        """Return how often the provider was asked, by all calls together."""
        return self.log.read_bytes().count(b"\n") if self.log.exists() else 0

    # ---- the check of the books

    def check_books(
        self,
        fault: str,
        outcomes: Sequence[Outcome],
        *,
        healed_at: float,
        faults: int = 1,
        seconds_max: float = RECOVERY_SECONDS_MAX,
    ) -> None:
        """Wait until nothing is held, then check every promise, and report one line."""
        connection.close()  # It may be one of those that the fault has broken.
        wait_until(
            lambda: not Hold.objects.exists(),
            timeout_seconds=max(1.0, healed_at + seconds_max - time.monotonic()),
            what="the end of all holds",
        )
        whole = {UUID(one.request_id) for one in outcomes if one.is_whole}
        # What a journal holds may come after the holds are gone, where others had voided them.
        wait_until(
            lambda: not self._unpaid(whole) and not self._unrecorded(),
            timeout_seconds=max(1.0, healed_at + seconds_max - time.monotonic()),
            what=f"the settlement of {len(whole)} answers seen to their end",
        )
        # A stream that runs on when all is well again holds its money, as it should.
        over_at = max([healed_at, *(one.ended_at for one in outcomes)])
        recovery = max(0.0, time.monotonic() - over_at)
        self.check_that_nothing_is_held()
        self._check_charges()
        self.verify()
        charged = -sum(
            Entry.objects.exclude(request_id=None).values_list("amount_nanos", flat=True)
        )
        answers = Counter(one.status for one in outcomes)
        self.report(
            f"{fault}: {len(outcomes)} calls {dict(sorted(answers.items()))}, "
            f"{len(self.upstream_calls())} upstream, {len(whole)} complete, {faults} faults, "
            f"charged {charged} nanos, recovered in {recovery:.1f} s"
        )

    def check_that_nothing_is_held(self) -> None:
        """See that no account thinks that something is held."""
        held = Account.objects.exclude(held_nanos=0)
        assert list(held.values_list("kind", "held_nanos")) == []

    def verify(self) -> None:
        """Verify the whole ledger."""
        out = io.StringIO()
        try:
            call_command("verify_ledger", "--full", stdout=out)
        except SystemExit as error:
            raise AssertionError(out.getvalue()) from error

    def _unrecorded(self) -> set[UUID]:
        """Return the calls that reached the provider and have no final row."""
        return self.upstream_calls().keys() - set(APIRequest.objects.values_list("id", flat=True))

    def _unpaid(self, whole: set[UUID]) -> set[UUID]:
        """Return the calls that a client saw to their end and that are not paid exactly."""
        paid, costs = paid_by_call(), self.upstream_calls()
        return {one for one in whole if paid[one] != costs.get(one)}

    def _check_charges(self) -> None:
        """Nobody pays more than what the provider reported, or the hold where it did not."""
        costs, paid = self.upstream_calls(), paid_by_call()
        for row in APIRequest.objects.all():
            most = row.hold_nanos
            if row.usage_source == "reported":
                most = costs[row.pk]
            assert 0 <= paid[row.pk] <= most, (row.pk, row.state, paid[row.pk], most)


def upstream_name(wishes: str) -> str:
    """Return the demo provider's name of a model with options."""
    return f"demo-chat:prompt={PROMPT_TOKENS}" + (f",{wishes}" if wishes else "")


def chat(model: AIModel, **values: Any) -> dict[str, Any]:
    """Return the body of a chat."""
    return {"model": model.name, "messages": [{"role": "user", "content": "Say it."}], **values}


def raw_chat(key: str, body: dict[str, Any], extra: str = "") -> bytes:
    """Return a chat as it goes over the wire; `extra` are header lines."""
    return post_with(key, orjson.dumps(body), extra=extra)


def paid_by_call() -> Counter[UUID]:
    """Return what each call has been charged, late settlements too."""
    paid: Counter[UUID] = Counter()
    customers = Entry.objects.filter(account__kind__in=["wallet", "receivable", "quota"])
    for request_id, nanos in customers.exclude(request_id=None).values_list(
        "request_id", "amount_nanos"
    ):
        assert request_id is not None
        paid[request_id] -= nanos
    return paid
