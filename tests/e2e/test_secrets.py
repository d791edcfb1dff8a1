"""Canaries: secrets that are planted, used in every way, and then looked for everywhere."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest
from django.test import Client

from apps.providers.credentials import add_key
from apps.providers.models import Provider, ProviderKey
from tests.e2e.answers import HttpAnswer, ask, check_error
from tests.e2e.dump import find_text
from tests.e2e.faults import LockedAccounts
from tests.e2e.wire import open_stream
from tests.support.bench import Bench, Caller, Stage, open_bench
from tests.support.databases import Database, TestDatabases
from tests.support.environment import ENCRYPTION_KEY, SECRET_KEY
from tests.support.gateway import DemoThread
from tests.support.people import make_admin
from tests.support.processes import wait_until

CHAT = "/v1/chat/completions"
KEY = "sk-canary-provider-6f1d0c2b9a7e4853"
# Not every provider's keys look like keys.
PLAIN_KEY = "canaryproviderplain6f1d0c2b9a7e4853"
PASSWORD = "canary-password-6f1d0c2b9a7e4853"
PROMPT = "canary prompt 6f1d0c2b9a7e4853"
FAULTS = [
    "ok", "no_usage", "set_cookie", "dup_id", "json_for_stream", "status(400)", "status(401)",
    "status(402)", "status(403)", "status(404)", "status(413)", "status(422)", "status(429)",
    "status(500)", "status(529)", "echo_headers", "html", "garbage", "wrong_shape", "redirect",
    "gzip_unasked", "cut_after(-1)", "cut_after(0)", "cut_after(3)", "rst_after(3)", "half_close",
    "err_event_first", "err_event_mid(3)", "stall_after(3)", "stall_after(-1)", "bad_usage(-1)",
]  # fmt: skip


@dataclass(slots=True)
class Run:
    """All that was sent to anybody."""

    bench: Bench
    caller: Caller
    answers: list[bytes] = field(default_factory=list)

    def keep(self, answer: HttpAnswer) -> HttpAnswer:
        """Remember an answer."""
        self.answers.append(orjson.dumps(answer.headers) + answer.body)
        return answer

    def post(self, body: bytes, **headers: str) -> HttpAnswer:
        """Make a call with any body."""
        return self.keep(
            ask(
                self.bench.gateway,
                "POST",
                CHAT,
                headers={**self.caller.headers, **headers},
                body=body,
            )
        )


@pytest.fixture(scope="module")
def run(
    module_db: Database, demo: DemoThread, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Run]:
    """Exercise everything once."""
    bench = open_bench(tmp_path_factory.mktemp("gateway"), module_db, demo)
    made = Run(bench, bench.make_caller())
    try:
        for secret in (KEY, PLAIN_KEY):
            _call_all_faults(made, secret)
        _send_refused_bodies(made)
        _lose_the_database(made)
        _sign_in(made)
        yield made
    finally:
        bench.gateway.stop()


def _messages(run: Run) -> list[dict[str, str]]:
    # Prompts hold keys, since people paste them.
    return [{"role": "user", "content": f"{PROMPT} {run.caller.raw} Bearer {KEY}"}]


def _call_all_faults(run: Run, secret: str) -> None:
    bench = run.bench
    models = []
    for fault in FAULTS:
        # One each, since some faults disable the key.
        provider = bench.make_provider(
            secret=secret, first_byte_timeout_seconds=0.6, idle_timeout_seconds=0.6
        )
        models.append(bench.make_model(f"demo-chat-secrets:fault={fault}", provider=provider))
    bench.wait_for_model(models[-1], run.caller)
    for model in models:
        for stream in (False, True):
            body = {"model": model.name, "messages": _messages(run), "stream": stream}
            if not stream or "after(3)" not in model.routes.get().upstream_name:
                _post_quietly(run, body)
            else:
                stage = Stage(bench, run.caller, model, "")
                with open_stream(stage, messages=_messages(run)) as connection:
                    run.answers.append(connection.read_all())


def _post_quietly(run: Run, body: dict[str, Any]) -> None:
    """Make a call whose answer may be broken off."""
    try:
        run.post(orjson.dumps(body))
    except OSError:
        return
    except Exception as error:
        if type(error).__name__ not in ("IncompleteRead", "RemoteDisconnected"):
            raise


def _send_refused_bodies(run: Run) -> None:
    quoted = orjson.dumps(f"{PROMPT} {run.caller.raw}")
    for body in (
        quoted,
        b'{"model":' + quoted + b"}",
        b'{"model":"x","messages":' + quoted + b"}",
        # Names of parameters are told to whoever sent them.
        b'{"model":"x","a":' + quoted + b',"a":2}',
        b'{"model":"x","seed":' + b"9" * 50 + b',"user":' + quoted + b"}",
        b'{"model":"x","messages":[{"role":' + quoted + b"}]}",
        b'{"user":' + quoted,
    ):
        assert run.post(body).status in (400, 404)
    run.post(b"{}", **{"x-api-key": KEY})
    run.post(b"{}", Authorization=f"Bearer {KEY}")
    run.post(b"{}", Authorization=f"Basic {PASSWORD}")
    run.keep(ask(run.bench.gateway, "GET", f"/v1/models?key={KEY}&api_key={run.caller.raw}"))
    run.keep(ask(run.bench.gateway, "GET", "/v1/models", headers=run.caller.headers))
    run.keep(ask(run.bench.gateway, "GET", "/v1/usage", headers=run.caller.headers))


def _lose_the_database(run: Run) -> None:
    model = run.bench.make_model("demo-chat-lost")
    run.bench.wait_for_model(model, run.caller)
    with LockedAccounts(run.bench.database):
        body = {"model": model.name, "messages": _messages(run)}
        assert run.post(orjson.dumps(body)).status == 503


def _sign_in(run: Run) -> None:
    make_admin(username="canary-admin", email="canary@example.com", password=PASSWORD)
    gateway = run.bench.gateway
    headers = {"Content-Type": "application/json"}
    for password in (PASSWORD, PASSWORD + "x"):
        body = orjson.dumps({"username": "canary-admin", "password": password})
        answer = ask(gateway, "POST", "/api/auth/login", headers=headers, body=body)
        run.answers.append(answer.body)
        if password == PASSWORD:
            assert answer.status == 200, answer.body
            token = orjson.loads(answer.body)["access"]
    signed = {"Authorization": f"Bearer {token}"}
    for path in ("providers", "models", "model-groups", "users", "requests"):
        found = run.keep(ask(gateway, "GET", f"/api/admin/{path}/?page_size=200", headers=signed))
        assert found.status == 200, (path, found.body)
    for path in ("/api/admin/none", "/admin/none/", "/api/auth/login", "/readyz", "/api/schema/"):
        run.keep(ask(gateway, "GET", path, headers=signed))


SECRETS = [KEY, PLAIN_KEY, PASSWORD]


@pytest.mark.parametrize("secret", SECRETS)
def test_no_answer_holds_a_secret(run: Run, secret: str) -> None:
    assert [answer for answer in run.answers if secret.encode() in answer] == []


def test_no_answer_holds_the_clients_key_or_an_insight(run: Run) -> None:
    everything = b"\n".join(run.answers)

    for word in (run.caller.raw.encode(), b"Traceback", b'File "/', b"org-demo-secret"):
        assert word not in everything
    assert len(run.answers) > 2 * len(FAULTS)


@pytest.mark.parametrize("secret", [*SECRETS, PROMPT, "Bearer"])
def test_no_line_of_the_log_holds_a_secret_or_a_prompt(run: Run, secret: str) -> None:
    log = run.bench.gateway.log()

    assert secret not in log
    assert run.caller.raw not in log
    assert all(orjson.loads(line)["level"] for line in log.splitlines())


@pytest.mark.parametrize("secret", SECRETS)
def test_no_column_of_the_database_holds_a_secret_in_clear(run: Run, secret: str) -> None:
    assert find_text(run.bench.database, secret) == set()


def test_the_database_holds_no_client_key_and_prompts_only_where_they_belong(run: Run) -> None:
    assert find_text(run.bench.database, run.caller.raw) == set()
    columns = find_text(run.bench.database, PROMPT)
    assert {column.partition(".")[2] for column in columns} == {"request_body"}
    assert all(column.startswith("audit_payload") for column in columns)


def test_no_file_of_the_gateway_holds_a_secret(run: Run) -> None:
    files = [path for path in run.bench.gateway.data_dir.rglob("*") if path.is_file()]

    held = b"".join(path.read_bytes() for path in files)

    for word in (*SECRETS, run.caller.raw, PROMPT, ENCRYPTION_KEY, SECRET_KEY):
        assert word.encode() not in held


def test_no_page_of_the_admin_shows_a_secret(run: Run) -> None:
    client = Client()
    assert client.login(username="canary-admin", password=PASSWORD)
    names = [
        *("providers/provider", "providers/providerkey", "api_keys/apikey", "users/user"),
        *("audit/apirequest", "audit/attempt", "audit/adminevent", "ai_models/aimodel"),
    ]
    pages = [client.get(f"/admin/{name}/") for name in names]
    provider, key = Provider.objects.last(), ProviderKey.objects.last()
    assert provider is not None
    assert key is not None
    pages.append(client.get(f"/admin/providers/provider/{provider.pk}/change/"))
    pages.append(client.get(f"/admin/api_keys/apikey/{run.caller.key.pk}/change/"))
    pages.append(client.get(f"/admin/users/user/{run.caller.user.pk}/change/"))

    shown = b"".join(page.content for page in pages if page.status_code == 200)

    assert sum(page.status_code == 200 for page in pages) >= 9
    for word in (*SECRETS, run.caller.raw, key.sealed_secret):
        assert word.encode() not in shown


def test_only_the_file_of_the_first_run_holds_what_it_made(
    module_db: Database, test_databases: TestDatabases, tmp_path: Path
) -> None:
    database = test_databases.clone()
    variables = {
        **os.environ,
        "DATA_DIR": str(tmp_path),
        "DATABASE_URL": database.url,
        "ADMIN_PASSWORD": "",
    }

    ended = subprocess.run(
        [sys.executable, "manage.py", "first_run"],
        env=variables,
        cwd=Path(__file__).resolve().parent.parent.parent,
        capture_output=True,
        check=True,
    )

    written = (tmp_path / "first-run.txt").read_text()
    facts = dict(line.partition(": ")[::2] for line in written.splitlines() if ": " in line)
    made = [facts["Demo key"], facts["Demo password"], facts["Administrator password"]]
    assert (tmp_path / "first-run.txt").stat().st_mode & 0o777 == 0o600
    for secret in made:
        assert len(secret) >= 16
        assert secret.encode() not in ended.stdout + ended.stderr
        assert find_text(database, secret) == set()
        others = [path for path in tmp_path.rglob("*") if path.name != "first-run.txt"]
        assert not any(secret.encode() in path.read_bytes() for path in others if path.is_file())
    test_databases.drop(database)


def test_a_sealed_key_that_was_moved_to_another_row_is_not_used(run: Run) -> None:
    bench = run.bench
    names = ("demo-chat-swapped-a", "demo-chat-swapped-b")
    providers = [bench.make_provider(secret=f"sk-swapped-secret-{name}") for name in names]
    models = [
        bench.make_model(name, provider=provider)
        for name, provider in zip(names, providers, strict=True)
    ]
    first, second = (provider.keys.get() for provider in providers)
    ProviderKey.objects.filter(pk=first.pk).update(sealed_secret=second.sealed_secret)
    ProviderKey.objects.filter(pk=second.pk).update(sealed_secret=first.sealed_secret)
    bench.wait_for_model(models[-1], run.caller)

    def call(number: int) -> HttpAnswer:
        return run.post(orjson.dumps({"model": models[number].name, "messages": _messages(run)}))

    wait_until(lambda: call(1).status == 503, timeout_seconds=5, what="the swapped keys")

    for number, provider in enumerate(providers):
        check_error(call(number), status=503, type="server_error", code="model_not_available")
        line = f"a key of provider {provider.name} is left out"
        assert line in bench.gateway.log()
    add_key(provider=providers[0], secret="sk-swapped-secret-new-one-0123")
    wait_until(lambda: call(0).status == 200, timeout_seconds=5, what="the new key")
    hashes = {call["authorization_sha256"] for call in bench.demo.calls(names[1])}
    assert len(hashes) <= 1
