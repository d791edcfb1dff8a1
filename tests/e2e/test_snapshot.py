"""Configuration that changes under a running gateway, as it is shipped: polled once a second."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

import orjson
import pytest

from apps.ai_models.catalogue import set_price
from apps.ai_models.models import AIModel, PriceVersion, Route
from apps.api_keys.models import APIKey
from apps.model_groups.models import ModelGroup
from apps.providers.models import Provider
from apps.proxy.asgi import _SLOW_BODY_SECONDS
from apps.users.models import User, UserGroup
from tests.e2e.answers import HttpAnswer, ask
from tests.e2e.rows import wait_until_refused
from tests.e2e.wire import LAST_CHUNK, RawConnection, events_of, head_of, open_stream, post
from tests.support.bench import INPUT_NANOS, OUTPUT_NANOS, Bench, Stage
from tests.support.processes import wait_until

CHAT = "/v1/chat/completions"
# Two seconds are promised; the machine that tests may be busy.
SEEN_SECONDS = 4
# Exactly as an operator runs it.
CONSTANTS: dict[str, float] = {}
WAYS = ("orm", "queryset", "sql")
CHARGE = 10 * INPUT_NANOS + 16 * OUTPUT_NANOS


def chat(stage: Stage, **values: Any) -> HttpAnswer:
    """Make a call."""
    return ask(
        stage.bench.gateway,
        "POST",
        CHAT,
        headers=stage.caller.headers,
        body=orjson.dumps(stage.body(**values)),
    )


NAMES = ("a key", "a user", "a model", "a route", "a provider")
PLAIN = "demo-chat:prompt=10"


@dataclass(frozen=True, slots=True)
class Cast:
    """Stages that are known to the gateway already; each test takes its own."""

    switched: dict[str, dict[str, Stage]]  # by way, by name
    spare: list[Stage]
    unpriced: Stage
    half_priced: Stage
    slow: Stage


@pytest.fixture(scope="module")
def cast(module_bench: Bench) -> Cast:
    """Make everything at once, so that the tests wait for its arrival only once."""
    make = partial(module_bench.stages, waits=False)
    switched = {}
    for way in WAYS:
        stages = make(*[PLAIN] * (len(NAMES) - 1))
        stages += make(PLAIN, provider=module_bench.make_provider())
        switched[way] = dict(zip(NAMES, stages, strict=True))
    (unpriced,) = make(PLAIN, prices=None)
    (half_priced,) = make(PLAIN, prices={"input": 1_000_000_000})
    slow, *spare = module_bench.stages("demo-chat:prompt=10,tokens=16,pace=0.12", *[PLAIN] * 6)
    return Cast(switched, spare, unpriced, half_priced, slow)


def wait_for_code(stage: Stage, code: str) -> None:
    """Return when calls are refused with a code."""
    wait_until(
        lambda: chat(stage).body.find(b'"%s"' % code.encode()) > 0,
        timeout_seconds=SEEN_SECONDS,
        what=code,
    )


def by_orm(row: Any, **values: Any) -> None:
    """Change a row as the admin does."""
    for name, value in values.items():
        setattr(row, name, value)
    row.save(update_fields=list(values))


def by_queryset(row: Any, **values: Any) -> None:
    """Change a row without its model's code."""
    type(row).objects.filter(pk=row.pk).update(**values)


def by_sql(bench: Bench) -> Callable[..., None]:
    """Return a function that changes a row behind Django's back."""

    def change(row: Any, **values: Any) -> None:
        connection: Any = bench.database.connect()
        mark = "?" if bench.database.server is None else "%s"
        for name, value in values.items():
            connection.execute(
                f"UPDATE {row._meta.db_table} SET {name} = {mark} WHERE id = {mark}",  # noqa: S608 (names of columns)
                (value, row.pk),
            )
        connection.close()

    return change


def _way(bench: Bench, name: str) -> Callable[..., None]:
    return {"orm": by_orm, "queryset": by_queryset, "sql": by_sql(bench)}[name]


@pytest.mark.parametrize("way", WAYS)
def test_what_is_switched_off_stops_within_seconds(bench: Bench, cast: Cast, way: str) -> None:
    key, user, model, route, provider = (cast.switched[way][name] for name in NAMES)
    change = _way(bench, way)
    assert [chat(stage).status for stage in (key, user, model, route, provider)] == [200] * 5

    change(APIKey.objects.get(pk=key.caller.key.pk), is_active=False)
    change(User.objects.get(pk=user.caller.user.pk), is_active=False)
    change(AIModel.objects.get(pk=model.model.pk), is_active=False)
    change(Route.objects.get(model=route.model), is_active=False)
    change(Provider.objects.get(routes__model=provider.model), is_active=False)

    wait_for_code(key, "api_key_disabled")
    wait_for_code(user, "account_disabled")
    wait_for_code(model, "model_not_found")
    wait_for_code(route, "model_not_available")
    wait_for_code(provider, "model_not_available")
    stages = (key, user, model, route, provider)
    before = [len(stage.upstream_calls) for stage in stages]
    assert [chat(stage).status for stage in stages] == [401, 403, 404, 503, 503]
    assert [len(stage.upstream_calls) for stage in stages] == before


def test_a_key_that_is_revoked_while_its_body_arrives_is_refused(bench: Bench, cast: Cast) -> None:
    stage = cast.spare[5]
    request = post(stage.caller, stage.body())
    begun = time.monotonic()
    with RawConnection(bench.gateway.port) as connection:
        connection.send(request[:-5])
        by_queryset(APIKey.objects.get(pk=stage.caller.key.pk), is_active=False)
        wait_until_refused(stage.caller, bench)
        # A body that takes longer than this has its key looked at again.
        time.sleep(max(0.0, begun + _SLOW_BODY_SECONDS + 0.1 - time.monotonic()))
        connection.send(request[-5:])
        received = connection.read_until(b"}}")

    assert head_of(received)[0] == 401
    assert b'"api_key_disabled"' in received
    statement = bench.statement(stage.caller)
    assert (statement.rows, statement.holds, statement.held_nanos) == ((), 0, 0)
    assert stage.upstream_calls == []


def test_a_new_model_with_a_new_key_is_charged_at_its_price(cast: Cast) -> None:
    stage = cast.spare[0]

    answer = chat(stage)

    assert answer.status == 200
    assert stage.settled().charges == (CHARGE,)


def test_a_deleted_key_is_unknown_within_seconds(cast: Cast) -> None:
    stage = cast.spare[1]

    APIKey.objects.filter(pk=stage.caller.key.pk).delete()

    wait_for_code(stage, "invalid_api_key")


def test_new_prices_and_multipliers_count_within_seconds(bench: Bench, cast: Cast) -> None:
    stage = cast.spare[2]
    group = ModelGroup.objects.create(name="dear", is_public=True, multiplier_millionths=3_000_000)
    group.models.add(stage.model)
    bench.group.models.remove(stage.model)
    members = UserGroup.objects.create(name="half", multiplier_millionths=500_000)
    User.objects.filter(pk=stage.caller.user.pk).update(user_group=members)
    set_price(
        model=stage.model,
        prices={"input": 2_000_000_000, "output": 8_000_000_000},
        effective_at=datetime.now(UTC),
        actor=None,
    )

    def charge() -> int:
        return bench.request_row(chat(stage).headers["x-request-id"]).charge_nanos

    # Twice the price, three times for the group, half for the user.
    wait_until(lambda: charge() == 3 * CHARGE, timeout_seconds=SEEN_SECONDS, what="the new price")


def test_i40_a_running_stream_keeps_the_price_of_its_hold(bench: Bench, cast: Cast) -> None:
    stage, future = cast.slow, cast.spare[3]
    old = PriceVersion.objects.get(model=stage.model)
    with open_stream(stage) as connection:
        connection.read_until(b'"role"')

        new = set_price(
            model=stage.model,
            prices={"input": 10_000_000_000, "output": 40_000_000_000},
            effective_at=datetime.now(UTC),
            actor=None,
        )
        set_price(
            model=future.model,
            prices={"input": 9, "output": 9},
            effective_at=datetime(2100, 1, 1, tzinfo=UTC),
            actor=None,
        )
        later = bench.make_model()
        bench.wait_for_model(later, future.caller)
        call = bench.demo.calls(stage.upstream_name)[0]
        assert call["ended"] is None
        events = events_of(connection.read_until(LAST_CHUNK))

    chat(stage)
    chat(future)
    assert events[-1] == "[DONE]"
    first, second = stage.settled(2).rows
    assert (first.charge_nanos, first.price_version_id) == (CHARGE, old.pk)
    assert (second.charge_nanos, second.price_version_id) == (10 * CHARGE, new.pk)
    # A price of the future does not count yet.
    assert future.settled().charges == (CHARGE,)


@pytest.mark.parametrize("name", ["unpriced", "half_priced"])
def test_i43_a_model_without_a_whole_price_is_never_sent_to_a_provider(
    bench: Bench, cast: Cast, name: str
) -> None:
    stage: Stage = getattr(cast, name)

    answer = chat(stage)

    assert (answer.status, answer.error["code"]) == (503, "model_not_available")
    assert answer.headers["x-should-retry"] == "false"
    assert bench.statement(stage.caller).rows == ()
    assert stage.upstream_calls == []
