"""What a process knows of routes and keys: which rest, which are bad, and what is left."""

from __future__ import annotations

from dataclasses import replace

import pytest

from apps.proxy.health import Health
from apps.proxy.snapshot import Catalogue, Credential, Route
from apps.proxy.tests.values import MODEL, PROVIDER, ROUTE

FIRST = Credential(id=1, weight=1, secret="sk-first")
SECOND = Credential(id=2, weight=1, secret="sk-second")


def _route(number: int, *credentials: Credential) -> Route:
    provider = replace(PROVIDER, credentials=credentials, key_strategy="round_robin")
    return replace(ROUTE, id=number, provider=provider)


def _choose(health: Health, route: Route, now: float = 0.0) -> int | None:
    keys = route.provider.credentials
    found = health.choose_key(route, keys, now=now, random=lambda: 0.0)
    return None if found is None else found.id


def test_keys_take_turns() -> None:
    health, route = Health(), _route(1, FIRST, SECOND)

    assert [_choose(health, route) for _ in range(4)] == [1, 2, 1, 2]
    assert health.is_good


def test_a_bad_key_is_bad_on_every_route_and_alone() -> None:
    health, route, other = Health(), _route(1, FIRST, SECOND), _route(2, FIRST)

    assert health.note_bad(FIRST, "E41") is not None
    assert health.note_bad(FIRST, "E41") is None

    assert [_choose(health, route) for _ in range(3)] == [2, 2, 2]
    assert _choose(health, other) is None
    assert (health.has_key(route), health.has_key(other)) == (True, False)
    assert health.refusal([other]).row == "E41"
    assert not health.is_good


def test_another_secret_under_the_same_id_is_another_key() -> None:
    health = Health()
    health.note_bad(FIRST, "E42")

    assert _choose(health, _route(1, replace(FIRST, secret="sk-new"))) == 1


def test_a_bad_key_is_forgotten_when_the_configuration_knows_it_and_not_before() -> None:
    health, route = Health(), _route(1, FIRST)
    bad = health.note_bad(FIRST, "E41")
    assert bad is not None

    health.forget_bad(99)
    assert _choose(health, route) is None

    bad.version = 100
    health.forget_bad(99)
    assert _choose(health, route) is None

    health.forget_bad(100)
    assert _choose(health, route) == 1
    assert health.is_good


@pytest.mark.parametrize(("resting", "is_resting"), [([1], False), ([1, 2], True), ([0], True)])
def test_a_route_rests_as_a_whole_or_with_all_its_keys(
    resting: list[int], is_resting: bool
) -> None:
    health, route = Health(), _route(1, FIRST, SECOND)
    for key_id in resting:
        health.circuits.rest((1, key_id), 0.0, 10)

    assert health.is_resting(route, 1.0) == is_resting
    assert not health.is_resting(route, 10.0)
    assert not health.is_resting(_route(2, FIRST), 1.0)


def test_a_route_whose_only_good_key_rests_is_passed_over() -> None:
    health, route = Health(), _route(1, FIRST, SECOND)
    health.note_bad(FIRST, "E41")
    health.circuits.rest((1, 2), 0.0, 10)

    assert health.is_resting(route, 1.0)
    assert not health.has_another_key(route, [(1, 1)], 1.0)
    assert _choose(health, route, 1.0) == 2  # The last door.


def test_an_attempt_probes_route_and_key_and_its_answer_ends_both_rests() -> None:
    health, route = Health(), _route(1, FIRST, SECOND)
    for door in health.doors(route, FIRST):
        for _ in range(5):
            health.circuits.fail(door, 0.0, begun=0.0)

    health.begin(route, FIRST, 30.0)
    assert health.circuits.is_open((1, 0), 30.0)

    assert health.answer(route, FIRST, 31.0, begun=30.0) == [(1, 0), (1, 1)]
    assert health.succeed(route, FIRST, 32.0, begun=30.0) == []
    assert not health.is_resting(route, 32.0)


def test_what_left_the_configuration_is_no_trouble_any_more() -> None:
    health, route, other = Health(), _route(1, FIRST, SECOND), _route(2, FIRST)
    for door in [(1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2), (3, 0)]:
        health.circuits.fail(door, 0.0, begun=0.0)
    model = replace(MODEL, routes=(route, other))

    health.forget_doors(Catalogue(models={"gpt": model}, user_groups={}), 1.0)
    left = [door for door, _ in health.circuits.states(1.0)]
    health.forget_doors(Catalogue(models={}, user_groups={}), 1.0)

    assert left == [(1, 0), (1, 1), (1, 2), (2, 0), (2, 1)]
    assert health.is_good


def test_a_key_that_rests_does_not_stand_in_for_one_at_its_limit() -> None:
    health, route = Health(), _route(1, FIRST, SECOND)
    health.circuits.rest((1, 1), 0.0, 10)

    def choose(*among: Credential) -> Credential | None:
        return health.choose_key(route, among, now=1.0, random=lambda: 0.0)

    assert choose(FIRST, SECOND) == SECOND
    assert choose(FIRST) is None
    health.circuits.rest((1, 2), 0.0, 10)
    # All rest: none is passed over for that.
    assert choose(FIRST) == FIRST
    health.note_bad(SECOND, "E41")
    assert choose(FIRST) == FIRST


def test_a_route_that_answers_at_some_endpoints_tells_of_others_and_is_forgotten() -> None:
    health, route, other = Health(), _route(1, FIRST), _route(2, FIRST)

    before = health.answers_elsewhere(route, "chat")
    health.note_kind(route, "chat")
    known = [health.answers_elsewhere(route, kind) for kind in ("chat", "embedding")]
    of_other = health.answers_elsewhere(other, "embedding")
    health.note_kind(route, "embedding")
    then = health.answers_elsewhere(route, "embedding")
    health.forget_doors(Catalogue({}, {}), 0.0)
    health.note_kind(route, "chat")

    assert (before, known, of_other, then) == (False, [False, True], False, False)
    assert health.answers_elsewhere(route, "embedding")
