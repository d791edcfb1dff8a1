"""What a process keeps of the quotes whose holds wait for their calls."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest

from apps.api_keys.issue import issue_key
from apps.api_keys.models import APIKey
from apps.billing.ledger.store import Engine
from apps.billing.models import Hold
from apps.billing.pending import Pace
from apps.billing.tests.writer_kit import ends, in_thread, open_holds, running, until_stored
from apps.core.errors import GatewayError
from apps.core.ids import new_uuid7
from apps.providers.credentials import add_key
from apps.proxy import quote_holds
from apps.proxy.admission import plan_call
from apps.proxy.call import Call
from apps.proxy.dialects.openai_request import parse_request
from apps.proxy.gateway import Gateway
from apps.proxy.loader import load_snapshot
from apps.proxy.snapshot import Caller
from apps.proxy.weight import Weight
from tests.support.databases import Database
from tests.support.world import World, make_world

PROMPT = "x" * 1_000_000


@pytest.fixture
def world(committed_db: Database) -> World:
    """A customer with money, and a model whose provider has a key."""
    world = make_world()
    add_key(provider=world.provider, secret="sk-upstream-of-a-test-0123456789")
    return world


def call_of(gateway: Gateway, world: World, api_key: APIKey | None = None) -> Call:
    snapshot = load_snapshot()
    wanted = (api_key or world.key).pk
    key = next(key for key in snapshot.keys.values() if key.id == wanted)
    body = {"model": world.model.name, "messages": [{"role": "user", "content": PROMPT}]}
    now = datetime.now(UTC)
    request = parse_request("chat/completions", body)
    return Call(
        gateway,
        plan_call(snapshot, Caller(key, snapshot.members[key.user_id], None), request, now),
        request_id=new_uuid7(),
        body=orjson.dumps(body),
        path="/v1/quote",
        address="127.0.0.1",
        user_agent="tests",
        now=now,
        begun=gateway.monotonic(),
        weight=Weight(gateway, 1),
    )


async def test_a_hold_that_waits_keeps_nothing_of_what_was_sent(
    world: World, ledger_connect: Callable[[], Engine], tmp_path: Path
) -> None:
    gateway = Gateway()
    call = await in_thread(call_of)(gateway, world)
    size = len(call.body)
    async with running(ledger_connect, tmp_path) as writer:
        gateway.writer = writer
        await gateway.quotes.place(call, 60)

        assert await in_thread(open_holds)() == {call.request_id}
        assert (call.body, call.plan.request.body) == (b"", {})

        detail = await in_thread(lambda: Hold.objects.get().detail)()
        gateway.quotes.lapse_all()
        await until_stored(ends, [("voided", 0)])

    assert orjson.loads(detail)["input_bytes"] == size
    # It is no call, and how long it waited is no duration of one.
    assert (gateway.counts.calls.counts, sum(gateway.counts.durations.counts)) == ({}, 0)


async def test_a_hold_whose_end_cannot_be_put_together_is_given_back(
    world: World, ledger_connect: Callable[[], Engine], tmp_path: Path
) -> None:
    gateway = Gateway()
    call = await in_thread(call_of)(gateway, world)
    pace = Pace(duty=0.1, stranger=0.1)
    async with running(ledger_connect, tmp_path, pace=pace) as writer:
        gateway.writer = writer
        await gateway.quotes.place(call, 60)
        call.routes = []  # a bug

        gateway.quotes.lapse_all()

        await until_stored(ends, [("voided", 0)])
        assert await in_thread(open_holds)() == set()
        assert writer.figures()["holds_open"] == 0


async def test_one_user_does_not_take_the_places_of_others_whatever_keys_he_has(
    world: World,
    ledger_connect: Callable[[], Engine],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(quote_holds, "OPEN_PER_USER_MAX", 2)
    gateway = Gateway()
    async with running(ledger_connect, tmp_path) as writer:
        gateway.writer = writer
        for key in (world.key, await in_thread(other_key)(world)):
            await gateway.quotes.place(await in_thread(call_of)(gateway, world, key), 60)

        with pytest.raises(GatewayError) as refused:
            await gateway.quotes.place(await in_thread(call_of)(gateway, world), 60)
        gateway.quotes.lapse_all()
        await until_stored(ends, [("voided", 0)] * 2)
        await gateway.quotes.place(await in_thread(call_of)(gateway, world), 60)
        gateway.quotes.lapse_all()
        await until_stored(ends, [("voided", 0)] * 3)

    assert refused.value.row == "E24"


def other_key(world: World) -> APIKey:
    return issue_key(user=world.user, name="another")[0]


def test_few_look_for_a_hold_at_a_time_of_each_user() -> None:
    quotes = Gateway().quotes
    with ExitStack() as stack:
        for _ in range(quote_holds.LOOKUPS_PER_USER_MAX):
            stack.enter_context(quotes.looking(1))
        stack.enter_context(quotes.looking(2))

        with pytest.raises(GatewayError) as refused, quotes.looking(1):
            pass

    assert refused.value.row == "E24"
    with quotes.looking(1):
        pass
