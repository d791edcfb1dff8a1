"""The pass-through with the least that exact money costs: a hold before each call, a settlement
after it.

A yardstick and not a ledger: one customer, a fixed price, no metering, no lock but that of one
account's row, no chain of records, nothing that survives an error. What it does is durable, though,
and comes in batches as the gateway's does: one statement for all holds that wait, one for all
settlements, each with its commit; the end of an answer waits for its settlement. What this takes
beyond the pass-through, no gateway that holds money can save on that machine.

LEDGER_DSN is its database, in which it makes its tables.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any, Final
from uuid import UUID, uuid4

import psycopg

from bench import passthrough
from bench.passthrough import Receive, Send

# Nanos, of each call.
_HELD: Final = 1_000_000
_CHARGED: Final = 300_000
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS bare_account (
    id bigint PRIMARY KEY, posted bigint NOT NULL, held bigint NOT NULL);
INSERT INTO bare_account VALUES (1, 1000000000000000, 0) ON CONFLICT DO NOTHING;
CREATE TABLE IF NOT EXISTS bare_hold (
    request_id uuid PRIMARY KEY, account_id bigint NOT NULL, amount bigint NOT NULL);
CREATE TABLE IF NOT EXISTS bare_request (
    request_id uuid PRIMARY KEY, account_id bigint NOT NULL, model text NOT NULL,
    state text NOT NULL, input_tokens bigint NOT NULL, output_tokens bigint NOT NULL,
    charge bigint NOT NULL, settled_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE IF NOT EXISTS bare_entry (
    id bigserial PRIMARY KEY, account_id bigint NOT NULL, request_id uuid NOT NULL,
    amount bigint NOT NULL);
"""
_HOLD: Final = f"""WITH placed AS (
        INSERT INTO bare_hold SELECT id, 1, {_HELD} FROM unnest(%s::uuid[]) AS new (id)
        RETURNING amount)
    UPDATE bare_account SET held = held + (SELECT sum(amount) FROM placed) WHERE id = 1"""
_SETTLE: Final = f"""WITH ended AS (
        DELETE FROM bare_hold WHERE request_id = ANY(%s::uuid[])
        RETURNING request_id, account_id, amount),
    recorded AS (
        INSERT INTO bare_request
        SELECT request_id, account_id, 'bench', 'completed', 30, 50, {_CHARGED} FROM ended),
    posted AS (
        INSERT INTO bare_entry (account_id, request_id, amount)
        SELECT account_id, request_id, -{_CHARGED} FROM ended)
    UPDATE bare_account SET held = held - (SELECT sum(amount) FROM ended),
        posted = posted - {_CHARGED} * (SELECT count(*) FROM ended) WHERE id = 1"""


class Batches:
    """Runs one statement for all calls that wait, on a connection of its own."""

    def __init__(self, statement: str) -> None:
        self._statement = statement
        self._waiting: list[tuple[UUID, asyncio.Future[None]]] = []
        self._has_some = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def add(self, request_id: UUID) -> None:
        """Return when the statement is committed for this call."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((request_id, done))
        self._has_some.set()
        await done

    def stop(self) -> None:
        """End; calls that still wait are never answered."""
        self._task.cancel()

    async def _run(self) -> None:
        async with await psycopg.AsyncConnection.connect(
            os.environ["LEDGER_DSN"], autocommit=True, prepare_threshold=0
        ) as connection:
            while await self._has_some.wait():
                self._has_some.clear()
                batch, self._waiting = self._waiting, []
                await connection.execute(self._statement, ([one for one, _ in batch],))
                for _, done in batch:
                    done.set_result(None)


_batches: list[Batches] = []


async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """Send a request on as the pass-through does, between a hold and a settlement."""
    if scope["type"] == "lifespan":
        await passthrough.app(scope, receive, _opening(send))
        return
    holds, settlements = _batches
    request_id = uuid4()
    await holds.add(request_id)

    async def send_settled(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.body" and not message.get("more_body"):
            await settlements.add(request_id)
        await send(message)

    await passthrough.app(scope, receive, send_settled)


def _opening(send: Send) -> Send:
    """Open the ledger before the server hears that it may begin, and close it at the end."""

    async def send_opened(message: dict[str, Any]) -> None:
        if message["type"] == "lifespan.startup.complete":
            dsn = os.environ["LEDGER_DSN"]
            async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
                await connection.execute(_SCHEMA)
            _batches.extend((Batches(_HOLD), Batches(_SETTLE)))
        else:
            while _batches:
                _batches.pop().stop()
        await send(message)

    return send_opened
