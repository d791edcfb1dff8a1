"""Tests of asking providers: the difference, what is made of it, and how failures are told."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from pytest_django import Settings
from rest_framework.test import APIClient

from apps.ai_models.catalogue import create_model
from apps.ai_models.models import AIModel, PriceVersion, Route
from apps.ai_models.sync import compare_models, try_provider
from apps.audit.models import AdminEvent
from apps.core.addresses import parse_private_upstreams
from apps.providers.models import Provider, ProviderKey
from apps.providers.registration import BaseUrlRefused, create_provider
from apps.providers.tests.listener import Listener, closed_port, response
from apps.users.models import User
from tests.support.gateway import DemoThread

SECRET = "sk-CANARY-UP-0123456789"
HOSTILE = '"><img/src=x/onerror=alert(1)>'
_numbers = itertools.count(1)


@pytest.fixture
def upstream() -> Iterator[Listener]:
    """Return a provider that lists what the tests give it."""
    with Listener(_listing("one", "two")) as listener:
        yield listener


def _listing(*ids: Any) -> bytes:
    return response(orjson.dumps({"object": "list", "data": [{"id": name} for name in ids]}))


def _provider(base_url: str) -> Provider:
    return create_provider(name=f"provider{next(_numbers)}", base_url=base_url, secret=SECRET)


def _sync(client: APIClient, provider: Provider, **body: Any) -> Any:
    return client.post(f"/api/admin/providers/{provider.pk}/sync-models/", body)


def _test(client: APIClient, provider: Provider, **body: Any) -> Any:
    return client.post(f"/api/admin/providers/{provider.pk}/test/", body)


def test_the_difference_is_shown_and_nothing_made(client: APIClient, upstream: Listener) -> None:
    provider = _provider(upstream.base_url)
    kept = create_model(name="kept", provider=provider, upstream_name="one")
    lost = create_model(name="lost", provider=provider, upstream_name="gone")

    answer = _sync(client, provider)

    assert answer.status_code == 200
    shown = answer.json()
    assert shown["added"] == ["two"]
    assert shown["known"] == [
        {
            "name": "one",
            "route": kept.routes.get().pk,
            "model": kept.pk,
            "model_name": "kept",
            "is_active": True,
        }
    ]
    assert [(row["name"], row["route"]) for row in shown["missing"]] == [
        ("gone", lost.routes.get().pk)
    ]
    assert (shown["ignored"], shown["made"]) == (0, [])
    assert shown["fetched_at"].endswith("Z")
    assert (AIModel.objects.count(), Route.objects.count()) == (2, 2)
    head = upstream.heard[0].decode()
    assert head.startswith("GET /v1/models HTTP/1.1")
    assert f"authorization: Bearer {SECRET}".lower() in head.lower()


def test_what_is_chosen_is_made(client: APIClient, upstream: Listener, root: User) -> None:
    provider = _provider(upstream.base_url)
    there = create_model(name="there", prices={"input": 5}, context_length=7)

    answer = _sync(
        client, provider, apply=True, models=["one", {"upstream_name": "two", "name": "there"}]
    )

    assert answer.status_code == 200
    assert answer.json()["added"] == []
    assert [
        (row["name"], row["model_name"], row["is_new_model"], row["is_priced"])
        for row in answer.json()["made"]
    ] == [("one", "one", True, False), ("two", "there", False, True)]
    assert [row["assumed"] for row in answer.json()["made"]] == [
        ["context_length", "max_output_tokens"],
        [],
    ]
    made = AIModel.objects.get(name="one")
    assert (made.is_active, made.price_versions.count()) == (True, 0)
    assert made.routes.get().provider == provider
    there.refresh_from_db()
    assert (there.context_length, PriceVersion.objects.count()) == (7, 1)
    assert there.routes.get().upstream_name == "two"
    events = AdminEvent.objects.filter(actor_id=root.pk).order_by("id")
    assert [event.action for event in events] == [
        "provider.models_listed",
        "model.created",
        "route.created",
        "route.created",
    ]


def test_applying_again_changes_nothing(client: APIClient, upstream: Listener) -> None:
    provider = _provider(upstream.base_url)
    _sync(client, provider, apply=True, models=["one"])
    Route.objects.update(is_active=False, weight=9)
    events = AdminEvent.objects.count()

    again = _sync(client, provider, apply=True, models=["one"])

    assert (again.status_code, again.json()["made"]) == (200, [])
    assert Route.objects.filter(is_active=False, weight=9).count() == 1
    assert AdminEvent.objects.count() == events + 1


def test_one_name_that_is_not_offered_refuses_the_choice(
    client: APIClient, upstream: Listener
) -> None:
    provider = _provider(upstream.base_url)

    answer = _sync(client, provider, apply=True, models=["one", "three"])

    assert (answer.status_code, answer.json()["code"]) == (400, "not_offered")
    assert AIModel.objects.count() == 0


@pytest.mark.sqlite  # Refused before any statement runs.
@pytest.mark.parametrize(
    "body",
    [
        {"apply": True},
        {"apply": True, "models": []},
        {"models": ["one"]},
        {"apply": True, "models": ["one", "one"]},
        {"apply": True, "models": ["one", {"upstream_name": "one"}]},
        {"apply": True, "models": "one"},
        {"apply": True, "models": [1]},
        {"apply": True, "models": [None]},
        {"apply": True, "models": [{"name": "one"}]},
        {"apply": True, "models": [{"upstream_name": "one", "prices": {}}]},
        {"apply": True, "models": [{"upstream_name": "one", "name": "two words"}]},
        {"apply": True, "models": ["one", "x" * 201]},
        {"apply": True, "models": ["line\nbreak"]},
        {"apply": True, "models": [f"m{number}" for number in range(1_001)]},
        {"apply": "perhaps"},
        {"applies": True},
    ],
)
def test_a_choice_that_cannot_be_understood_asks_nobody(
    client: APIClient, upstream: Listener, body: dict[str, Any]
) -> None:
    answer = _sync(client, _provider(upstream.base_url), **body)

    assert answer.status_code == 400
    assert upstream.connections == 0


def test_hostile_names_are_left_out_or_plain_text(client: APIClient, upstream: Listener) -> None:
    names = ["two words", "line\nbreak", "\x1b[31m", "a\u202eb", "x" * 201, "", 5, None, ["one"]]
    upstream.answer = _listing("one", HOSTILE, "one", *names)
    provider = _provider(upstream.base_url)

    answer = _sync(client, provider)
    made = _sync(client, provider, apply=True, models=[HOSTILE])

    assert answer["Content-Type"] == "application/json"
    assert (answer.json()["added"], answer.json()["ignored"]) == (["one", HOSTILE], len(names))
    assert made.json()["made"][0]["model_name"] == HOSTILE


def test_a_bare_list_is_a_list(client: APIClient, upstream: Listener) -> None:
    upstream.answer = response(b'[{"id":"one"},"two",7]')

    answer = _sync(client, _provider(upstream.base_url))

    assert (answer.json()["added"], answer.json()["ignored"]) == (["one"], 2)


FAILURES = [
    (response(SECRET.encode(), "401 No"), "The provider refused the key."),
    (response(SECRET.encode(), "403 No"), "The provider refused the key."),
    (
        response(b"", "404 No"),
        "The provider has nothing there: check the base URL and the model.",
    ),
    (response(b"", "429 Slow"), "The provider has too many requests."),
    (response(b"", "500 Oops"), "The provider has an error of its own."),
    (response(b"", "418 Teapot"), "The provider answered something unexpected."),
    (
        response(b"", "302 Away", "Location: http://169.254.169.254/"),
        "The provider answered with a redirect, which is not followed.",
    ),
    (response(b"<html>"), "The provider answered something unexpected."),
    (response(b'{"data":{}}'), "The provider answered something unexpected."),
    (response(b'{"data":[NaN]}'), "The provider answered something unexpected."),
    (response(b"[" * 100_000), "The provider answered something unexpected."),
    (response(b'{"data":["\xff"]}'), "The provider answered something unexpected."),
    (response(b"x" * (4 << 20) + b"x"), "The answer is too large."),
    (_listing(*["m"] * 5_001), "The provider lists more than 5000 models."),
    (b"nonsense", "The answer broke off or cannot be understood."),
]


@pytest.mark.sqlite  # What a provider says is judged before any database is asked.
@pytest.mark.parametrize(("answer", "message"), FAILURES)
def test_a_failure_is_told_by_its_class_only(
    client: APIClient,
    upstream: Listener,
    caplog: pytest.LogCaptureFixture,
    answer: bytes,
    message: str,
) -> None:
    upstream.answer = answer
    provider = _provider(upstream.base_url)

    tested, synced = _test(client, provider), _sync(client, provider)

    assert tested.status_code == 200
    assert set(tested.json()) == {"success", "message", "latency_ms", "tested_at"}
    assert (tested.json()["success"], tested.json()["message"]) == (False, message)
    assert synced.status_code == 409
    assert synced.json() == {"detail": message, "code": "provider_failed"}
    events = AdminEvent.objects.order_by("-id")[:2]
    assert [event.action for event in events] == ["provider.models_listed", "provider.tested"]
    seen = [tested.content.decode(), synced.content.decode(), caplog.text]
    seen.append(repr(list(AdminEvent.objects.values())))
    assert [text for text in seen if "CANARY" in text] == []


def test_a_server_that_echoes_the_key_gives_nothing_away(
    client: APIClient, upstream: Listener
) -> None:
    def echo(connection: Any, _stopped: threading.Event) -> None:
        connection.sendall(response(upstream.heard[-1], "400 Bad", f"X-Key: {SECRET}"))

    upstream.answer = echo

    answer = _test(client, _provider(upstream.base_url), model="one")

    assert answer.json()["message"] == "The provider refused the request."
    assert "CANARY" not in answer.content.decode() + repr(list(AdminEvent.objects.values()))


def test_nobody_is_there(root: User) -> None:
    with closed_port() as port:
        nobody = try_provider(provider=_provider(f"http://127.0.0.1:{port}/v1"), actor=root)

    assert nobody.message == "The connection was refused or could not be made."
    assert not nobody.success


def test_a_provider_that_works(client: APIClient, root: User) -> None:
    demo = DemoThread()
    try:
        provider = _provider(demo.base_url)
        listed = _sync(client, provider)
        answered, spoke = _test(client, provider), _test(client, provider, model="demo-chat")
        (call,) = demo.ended("demo-chat")
    finally:
        demo.stop()

    assert listed.json()["added"] == ["demo-chat", "demo-embedding"]
    for answer in (answered, spoke):
        assert answer.json()["success"] is True
        assert answer.json()["message"] == "The provider answered."
    assert (call["path"], call["output_tokens"]) == ("/v1/chat/completions", 1)
    event = AdminEvent.objects.latest("id")
    assert (event.action, event.object_id) == ("provider.tested", str(provider.pk))
    assert event.after is not None
    assert (event.after["success"], event.after["model"]) == (True, "demo-chat")


def test_one_token_is_asked_for_by_the_parameter_of_the_route(
    client: APIClient, upstream: Listener
) -> None:
    upstream.answer = response(b'{"choices":[{}]}')
    provider = _provider(upstream.base_url)
    model = create_model(name="one", provider=provider)
    model.routes.update(max_tokens_parameter="max_tokens")

    answers = [_test(client, provider, model=name) for name in ("one", "two")]

    assert [answer.json()["success"] for answer in answers] == [True, True]
    bodies = [orjson.loads(body) for body in upstream.bodies]
    assert (bodies[0]["model"], bodies[0]["max_tokens"]) == ("one", 1)
    assert (bodies[1]["model"], bodies[1]["max_completion_tokens"]) == ("two", 1)
    assert _test(client, provider, model="two words").status_code == 400


def test_a_provider_without_a_key_is_not_asked(client: APIClient, upstream: Listener) -> None:
    provider = _provider(upstream.base_url)
    ProviderKey.objects.update(sealed_secret="v1.x.y")
    damaged = _test(client, provider).json()["message"]
    ProviderKey.objects.update(is_active=False)
    idle = _test(client, provider).json()["message"]

    assert damaged == "The provider's key cannot be read. Type it again."
    assert idle == "The provider has no active key."
    assert _sync(client, provider).json()["code"] == "no_active_key"
    assert upstream.connections == 0


def test_an_address_that_is_not_allowed_any_more_is_not_asked(
    client: APIClient, upstream: Listener, settings: Settings
) -> None:
    provider = _provider(upstream.base_url)
    settings.PRIVATE_UPSTREAMS = ()

    tested, synced = _test(client, provider), _sync(client, provider)

    assert tested.json()["message"] == synced.json()["detail"] == "This URL is not allowed."
    assert (synced.status_code, synced.json()["code"]) == (400, "url_refused")
    assert upstream.connections == 0
    events = AdminEvent.objects.filter(action="url.refused")
    assert [event.after for event in events] == [{"host": "127.0.0.1"}] * 2


def test_a_name_that_turns_inside_gets_no_key(
    root: User, upstream: Listener, settings: Settings
) -> None:
    answers = iter([["127.0.0.2"], ["127.0.0.1"]])
    with Listener(_listing("one"), host="127.0.0.2", port=upstream.port) as allowed:
        settings.PRIVATE_UPSTREAMS = parse_private_upstreams(f"127.0.0.2:{allowed.port}")
        provider = _provider(f"http://rebind.example.com:{allowed.port}/v1")

        def resolve(host: str, port: int) -> list[str]:
            return next(answers)

        first = compare_models(provider=provider, actor=root, resolve=resolve)
        with pytest.raises(BaseUrlRefused):
            compare_models(provider=provider, actor=root, resolve=resolve)

    assert first.added == ("one",)
    assert upstream.connections == 0


def test_only_so_many_tests_a_minute(client: APIClient, upstream: Listener) -> None:
    provider = _provider(upstream.base_url)

    codes = [_test(client, provider).status_code for _ in range(31)]
    refused = _sync(client, provider)

    assert codes == [200] * 30 + [429]
    assert (refused.status_code, refused.json()["code"]) == (429, "too_many_tests")
    assert refused["Retry-After"] == "60"
    assert upstream.connections == 30


def test_a_provider_that_is_not_there(client: APIClient) -> None:
    for what in ("test", "sync-models", "keys"):
        assert client.post(f"/api/admin/providers/999999/{what}/", {}).status_code == 404
