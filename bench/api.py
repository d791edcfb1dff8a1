"""Times every list and every report of the REST API on PostgreSQL with a million recorded calls.

`make bench-api`. Starts a PostgreSQL server and a gateway of its own on the loopback interface,
fills the database and its rollups, reads every list of the schema, some filtered ones and the
statistics, and stops both. Prints milliseconds as a client sees them; ends with 1 if a list's 95th
percentile is above the bound. Over 400 lines because what the database is filled with is here.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg

from apps.audit.partitions import ensure_partitions
from tests.support.postgres import PostgresServer
from tests.support.processes import free_port

BOUND_MS = 100.0
ROUNDS = 20
ROOT = Path(__file__).resolve().parent.parent
PASSWORD = "a password for one benchmark"
RESULTS = ROOT / "bench" / "results" / "api.json"
ROLL_UP = "from apps.analytics.rolling import roll_up; roll_up(seconds=3_600)"
# Filters that people use, beside each list as it comes.
FILTERED = (
    "/api/admin/requests/?user=77",
    "/api/admin/requests/?api_key=4711",
    "/api/admin/requests/?model=model-3",
    "/api/admin/requests/?model=model-3,model-4&provider=2",
    "/api/admin/requests/?status_class=5xx",
    "/api/admin/requests/?state=failed",
    "/api/admin/requests/?provider=3&status_class=5xx",
    "/api/admin/requests/?address=10.0.7.0/24",
    "/api/admin/requests/?charge_min=0.00002",
    "/api/admin/requests/?duration_min=3000",
    "/api/admin/requests/?error=timeout",
    "/api/admin/requests/?page_size=200",
    "/api/admin/users/?search=user777",
    "/api/admin/users/?search=%25",
    "/api/admin/users/?page=200",
    "/api/admin/keys/?search=key%2029",
    "/api/admin/keys/?user=77",
    "/api/admin/keys/?page=600",
)
# The worst there is: filters that nothing passes, so that all rows in question are looked at.
# They must stay within the time that one statement has; they are not held to the bound of lists.
EMPTY = (
    "/api/admin/requests/?charge_min=1000",
    "/api/admin/requests/?error=no%20such%20thing",
    "/api/admin/requests/?model=model-3&finish_reason=length",
)
# Statistics of 30 days. What they sum grows with the calls: they are not held to that bound either.
REPORTS = (
    "/api/admin/stats/overview/",
    "/api/admin/stats/overview/?by=day",
    "/api/admin/stats/overview/?by=model",
    "/api/admin/stats/overview/?by=provider",
    "/api/admin/stats/overview/?by=user",
    "/api/admin/stats/billing/",
    "/api/admin/stats/users/77/requests/",
    "/api/admin/providers/{provider_id}/stats/",
    "/api/admin/keys/4711/stats/",
    "/api/user/usage/",
)

# Round numbers of people, keys and calls; every tenth call failed, every hundredth with 5xx.
_FILL = (
    """
INSERT INTO users_customer (name, created_at)
    SELECT 'customer ' || n, now() FROM generate_series(1, {users}) n
""",
    """
INSERT INTO users_user (username, email, name, role, customer_id, password, is_superuser,
        is_staff, is_active, first_name, last_name, date_joined)
    SELECT 'user' || id, 'user' || id || '@example.com', 'Person ' || id, 'user', id, '!', false,
        false, true, '', '', now() - id * interval '1 minute'
    FROM users_customer WHERE name LIKE 'customer %'
""",
    """
INSERT INTO billing_account (kind, customer_id, name, posted_nanos, held_nanos, sequence, head,
        created_at)
    SELECT kind, id, kind || ' of ' || id, 0, 0, 0, ''::bytea, now()
    FROM users_customer, unnest(ARRAY['wallet', 'receivable']) kind WHERE name LIKE 'customer %'
""",
    """
INSERT INTO api_keys_apikey ({key_columns})
    SELECT {key_values}
    FROM generate_series(1, {keys}) n
    JOIN users_user u ON u.username = 'user' || ({first_user} + n % {users})
""",
    """
CREATE TEMPORARY TABLE calls AS
    SELECT n, ({first_user} + n % {users})::bigint AS user_id, n % {keys} + 1 AS key_number,
        (lpad(to_hex((extract(epoch FROM moment) * 1000)::bigint), 12, '0') || '7'
            || lpad(to_hex((random() * 4095)::int), 3, '0') || 'a'
            || lpad(to_hex((random() * 4095)::int), 3, '0')
            || lpad(to_hex((random() * 281474976710655)::bigint), 12, '0'))::uuid AS id,
        moment
    FROM (
        SELECT n, now() - ({requests} - n) * interval '60 days' / {requests} AS moment
        FROM generate_series(1, {requests}) n
    ) moments
""",
    """
INSERT INTO billing_incarnation (kind, host, pid, started_at, renewed_at, expires_at, ended_at,
        sequence, head)
    VALUES ('gateway', 'bench', 1, now(), now(), now(), now(), {requests}, '\\x00'::bytea)
""",
    """
INSERT INTO audit_apirequest ({call_columns})
    SELECT {call_values}
    FROM calls
    JOIN users_user u ON u.username = 'user' || calls.user_id
""",
    """
INSERT INTO audit_attempt (id, request_id, number, route_id, provider_id, provider_name,
        provider_key_id, upstream_model, started_at, duration_ms, status_code, outcome, error_text,
        upstream_request_id)
    SELECT id, id, 1, 1, n % 5 + 1, 'provider ' || n % 5 + 1, 1, 'upstream', moment, 900,
        CASE WHEN n % 100 = 0 THEN 502 ELSE 200 END, 'answered',
        CASE WHEN n % 100 = 0 THEN 'the upstream said: timeout' ELSE '' END, ''
    FROM calls
""",
    """
INSERT INTO billing_transaction (id, kind, idempotency_key, actor_id, actor_name, reason,
        created_at)
    SELECT id, 'settlement', 'settlement:' || id, NULL, '', '', moment FROM calls WHERE n % 50 = 0
""",
    """
INSERT INTO billing_entry (transaction_id, account_id, request_id, kind, amount_nanos, sequence,
        balance_after_nanos, corrects_id, hash)
    SELECT t.id, a.id, c.id, 'charge', -1000, row_number() OVER (PARTITION BY a.id ORDER BY c.n),
        0, NULL::bigint, ''::bytea
    FROM calls c
    JOIN calls t ON t.n = (c.n + 49) / 50 * 50
    JOIN users_user u ON u.username = 'user' || c.user_id
    JOIN billing_account a ON a.customer_id = u.customer_id AND a.kind = 'wallet'
    UNION ALL
    SELECT t.id, a.id, NULL, 'revenue', 50000, t.n / 50 + a.sequence, 0, NULL::bigint, ''::bytea
    FROM calls t, billing_account a WHERE t.n % 50 = 0 AND a.name = 'revenue 00'
""",
    """
INSERT INTO audit_adminevent (actor_id, actor_name, action, object_type, object_id, object_name,
        before, after, reason, ip_address, user_agent, created_at)
    SELECT 1, 'admin', 'user.changed', 'users.user', n::text, 'user' || n, NULL, NULL, '', '', '',
        now() - n * interval '1 minute'
    FROM generate_series(1, 50000) n
""",
    "ANALYZE",
)
_KEY = {
    "user_id": "u.id",
    "name": "'key ' || n",
    "digest": "sha256(n::text::bytea)",
    "prefix": "'sk-audit-abcd'",
    "last_four": "lpad(n::text, 4, '0')",
    "is_default": "n <= {users}",
    "is_active": "true",
    "allowed_models": "'[]'::jsonb",
    "allowed_networks": "'[]'::jsonb",
    "payload_mode": "'full'",
    "created_at": "now()",
}
_CALL = {
    "id": "calls.id",
    "customer_id": "u.customer_id",
    "user_id": "u.id",
    "user_name": "u.username",
    "api_key_id": "key_number",
    "api_key_name": "'key ' || key_number",
    "model_id": "abs(hashint4(n)) % 20 + 1",
    "requested_model": "'model-' || abs(hashint4(n)) % 20 + 1",
    "provider_id": "abs(hashint4(n + 1)) % 5 + 1",
    "provider_name": "'provider ' || abs(hashint4(n + 1)) % 5 + 1",
    "upstream_model": "'upstream'",
    "endpoint": "'chat/completions'",
    "method": "'POST'",
    "dialect": "'openai'",
    "is_stream": "n % 2 = 0",
    "state": "CASE WHEN n % 10 = 0 THEN 'failed' ELSE 'completed' END",
    "status_code": "CASE WHEN n % 100 = 0 THEN 502 WHEN n % 10 = 0 THEN 400 ELSE 200 END",
    "error_code": "CASE WHEN n % 10 = 0 THEN 'upstream_error' ELSE '' END",
    "finish_reason": "'stop'",
    "input_tokens": "n % 5000",
    "output_tokens": "n % 700",
    "usage_source": "'reported'",
    "charge_nanos": "CASE WHEN n % 10 = 0 THEN 0 WHEN n % 1000 = 7 THEN 50000 ELSE 1000 END",
    "cost_nanos": "CASE WHEN n % 10 = 0 THEN 0 ELSE 700 END",
    "hold_nanos": "5000",
    "price_version_id": "1",
    "multiplier_millionths": "1000000",
    "attempt_count": "1",
    "input_bytes": "900",
    "output_bytes": "2500",
    "started_at": "moment",
    "ttft_ms": "n % 900",
    "duration_ms": "n % 4000",
    "settled_at": "moment + interval '1 second'",
    "ip_address": "'10.0.' || n % 250 || '.' || n % 240",
    "user_agent": "'bench'",
    "upstream_request_id": "'req_' || n",
    "incarnation_id": "(SELECT id FROM billing_incarnation WHERE host = 'bench')",
    "sequence": "n",
    "hash": "'\\x00'::bytea",
}


def main() -> int:
    """Fill, measure, print; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--users", type=int, default=10_000)
    parser.add_argument("--keys", type=int, default=30_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-api-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        server = PostgresServer.start(directory / "postgres")
        try:
            return _measure(server, directory, options)
        finally:
            server.stop("immediate")


def _measure(server: PostgresServer, directory: Path, options: argparse.Namespace) -> int:
    server.execute("CREATE DATABASE bench")
    environment = {
        **os.environ,
        "DATABASE_URL": server.url("bench"),
        "DATA_DIR": str(directory / "data"),
        "SECRET_KEY": secrets.token_urlsafe(48),
        "ENCRYPTION_KEY": secrets.token_hex(32),
        "PRIVATE_UPSTREAMS": "127.0.0.0/8",
        "ADMIN_PASSWORD": PASSWORD,
        "API_RPM_PER_USER": "1000000",
        "API_RPM_PER_ADDRESS": "1000000",
        "DJANGO_SETTINGS_MODULE": "auditing.settings",
    }
    _manage(environment, "migrate", "--verbosity", "0")
    _manage(environment, "first_run")
    started = time.perf_counter()
    with psycopg.connect(**server.parameters("bench"), autocommit=True) as connection:
        fill(connection, users=options.users, keys=options.keys, requests=options.requests)
    # As the worker does every minute.
    _manage(environment, "shell", "--no-imports", "--command", ROLL_UP)
    print(f"filled in {time.perf_counter() - started:.0f} s", flush=True)
    port = free_port()
    gateway = subprocess.Popen(
        [sys.executable, "manage.py", "serve", "--port", str(port)], cwd=ROOT, env=environment
    )
    try:
        return _read_lists(port, options)
    finally:
        gateway.terminate()
        gateway.wait(30)


def _manage(environment: dict[str, str], *command: str) -> None:
    subprocess.run([sys.executable, "manage.py", *command], cwd=ROOT, env=environment, check=True)


def fill(connection: psycopg.Connection[Any], *, users: int, keys: int, requests: int) -> None:
    """Write that many users, keys and recorded calls; at least one of each."""
    with connection.transaction(), connection.cursor() as cursor:
        ensure_partitions(cursor, now=datetime.now(UTC) - timedelta(days=61))
    row = connection.execute("SELECT coalesce(max(id), 0) + 1 FROM users_customer").fetchone()
    assert row is not None
    values = {
        "users": users,
        "keys": keys,
        "requests": requests,
        "first_user": row[0],
    }
    calls = _with_defaults(connection, "audit_apirequest", _CALL)
    columns = {name: text.format(**values) for name, text in _KEY.items()}
    for statement in _FILL:
        text = statement.format(
            **values,
            key_columns=", ".join(columns),
            key_values=", ".join(columns.values()),
            call_columns=", ".join(calls),
            call_values=", ".join(calls.values()),
        )
        connection.execute(text.encode())


def _with_defaults(
    connection: psycopg.Connection[Any], table: str, values: dict[str, str]
) -> dict[str, str]:
    """Return the values with nothing for what is not named: 0, false or an empty text."""
    rows = connection.execute(
        "SELECT column_name, data_type FROM information_schema.columns "
        "WHERE table_name = %s AND is_nullable = 'NO'",
        (table,),
    ).fetchall()
    defaults = {"bigint": "0", "smallint": "0", "boolean": "false", "character varying": "''"}
    return {name: defaults[kind] for name, kind in rows if name not in values} | values


def _read_lists(port: int, options: argparse.Namespace) -> int:
    client = _Client(port)
    client.wait()
    client.sign_in()
    held_to_bound = list(_lists(client))
    others = [*EMPTY, *(_filled(client, path) for path in REPORTS)]
    samples: dict[str, list[float]] = {path: [] for path in (*held_to_bound, *others)}
    refused = []
    for number in range(ROUNDS + 2):
        for path, times in samples.items():
            status, elapsed, _ = client.get(path)
            if status != 200 and number == 0:
                refused.append(f"{path}: {status}")
            if number >= 2:  # The first rounds fill the caches.
                times.append(elapsed * 1_000)
    rows: list[dict[str, Any]] = [
        {
            "path": path,
            "p50_ms": round(statistics.median(times), 1),
            "p95_ms": round(sorted(times)[int(len(times) * 0.95) - 1], 1),
        }
        for path, times in samples.items()
    ]
    rows.sort(key=lambda row: -float(row["p95_ms"]))
    for row in rows:
        print(f"{row['p50_ms']:>8} {row['p95_ms']:>8}  {row['path']}")
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"options": vars(options), "lists": rows}, indent=1) + "\n")
    held = [row for row in rows if row["path"] in held_to_bound]
    slow = [row["path"] for row in held if float(row["p95_ms"]) > BOUND_MS]
    for line in (*refused, *(f"slower than {BOUND_MS:.0f} ms: {path}" for path in slow)):
        print(line)
    return 1 if slow or refused else 0


def _lists(client: _Client) -> Iterator[str]:
    """Give every list of the schema, with an existing id for each parameter, and the filtered."""
    schema = json.loads((ROOT / "openapi.json").read_text())
    schemas = schema["components"]["schemas"]
    for path, item in schema["paths"].items():
        if "get" not in item:
            continue
        content = item["get"]["responses"].get("200", {}).get("content", {})
        answer = content.get("application/json", {}).get("schema", {})
        name = answer.get("$ref", "").rpartition("/")[2]
        is_list = answer.get("type") == "array" or "results" in schemas.get(name, {}).get(
            "properties", {}
        )
        if is_list:
            yield _filled(client, path)
    yield from FILTERED


def _filled(client: _Client, path: str) -> str:
    while found := re.search(r"\{\w+\}", path):  # bounded by the number of parameters
        _, _, body = client.get(path[: found.start()])
        identifier = body["results"][len(body["results"]) // 2]["id"]
        path = path.replace(found[0], str(identifier), 1)
    return path


class _Client:
    """One connection that is signed in."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._headers: dict[str, str] = {}

    def wait(self) -> None:
        """Return when the gateway answers; at most a minute."""
        for _ in range(600):
            try:
                if self.get("/readyz")[0] == 200:
                    return
            except OSError:
                self._connection.close()
            time.sleep(0.1)
        raise TimeoutError("The gateway did not start.")

    def sign_in(self) -> None:
        """Take the administrator's token for the calls that follow."""
        body = json.dumps({"username": "admin", "password": PASSWORD})
        self._connection.request(
            "POST", "/api/auth/login/", body, {"Content-Type": "application/json"}
        )
        answer = json.loads(self._connection.getresponse().read())
        self._headers = {"Authorization": f"Bearer {answer['access']}"}

    def get(self, path: str) -> tuple[int, float, Any]:
        """Return status, seconds and body."""
        started = time.perf_counter()
        self._connection.request("GET", path, headers=self._headers)
        answer = self._connection.getresponse()
        content = answer.read()
        elapsed = time.perf_counter() - started
        is_json = "json" in answer.headers.get("Content-Type", "")
        return answer.status, elapsed, json.loads(content) if is_json else None


if __name__ == "__main__":
    sys.exit(main())
