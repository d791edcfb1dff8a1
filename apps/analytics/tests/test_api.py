"""Tests of statistics over REST: what they add up to, who sees how much, and what is refused."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace
from typing import Any, Final

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient

from apps.analytics import api
from apps.analytics.tests.kit import record_call
from apps.users.models import Role
from tests.support.people import make_admin, make_user, rest_client
from tests.support.world import NOW, World, make_world

OVERVIEW: Final = "/api/admin/stats/overview/"
BILLING: Final = "/api/admin/stats/billing/"
NOVEMBER: Final = "started_after=2026-11-01T00:00:00Z&started_before=2026-12-01T00:00:00Z"
SUBJECTS: Final = [
    "/api/admin/stats/users/{world.user.pk}/requests/",
    "/api/admin/providers/{world.provider.pk}/stats/",
    "/api/admin/keys/{world.key.pk}/stats/",
]
OWN: Final = ["/api/user/usage/", "/api/user/keys/{world.key.pk}/stats/"]
MONEY: Final = {"charge", "late_charges", "cost", "margin"}
TODAY: Final = "2026-11-21"


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let it be a second after all calls here."""
    monkeypatch.setattr(api, "timezone", SimpleNamespace(now=lambda: NOW + timedelta(seconds=1)))


@pytest.fixture
def world(db: None) -> World:
    """Return somebody who made two calls just now: one that cost, one that failed."""
    world = make_world()
    _call(world, charge_nanos=1_500_000_000, cost_nanos=1_000_000_000, input_tokens=100)
    _call(world, charge_nanos=0, cost_nanos=None, state="failed", output_tokens=5)
    return world


def _call(world: World, **changes: Any) -> None:
    record_call(
        **{
            "started_at": NOW,
            "settled_at": NOW,
            "user_id": world.user.pk,
            "user_name": world.user.username,
            "api_key_id": world.key.pk,
            "model_id": world.model.pk,
            "requested_model": world.model.name,
            "provider_id": world.provider.pk,
            "provider_name": world.provider.name,
            **changes,
        }
    )


def _totals(**changes: Any) -> dict[str, Any]:
    return {
        "requests": 2,
        "successes": 1,
        "success_rate": "0.5000",
        "input_tokens": 100,
        "output_tokens": 5,
        "charge": "1.5",
        "late_charges": "0",
        "cost": "1",
        "margin": "0.5",
        "requests_without_cost": 1,
        "active_users": 1,
        **changes,
    }


SUMS: Final = {name: value for name, value in _totals().items() if name != "active_users"}
OWN_TOTALS: Final = {
    name: value
    for name, value in _totals().items()
    if name not in ("cost", "margin", "requests_without_cost", "active_users")
}


def _without_lists(answer: dict[str, Any]) -> dict[str, Any]:
    left_out = ("started_after", "started_before", "today", "days", "models", "providers", "users")
    return {name: value for name, value in answer.items() if name not in left_out}


def test_the_overview_sums_all_calls(world: World) -> None:
    other = make_world()
    _call(other, charge_nanos=1, cost_nanos=2)

    answer = rest_client(make_admin()).get(OVERVIEW).json()

    expected = _totals(
        requests=3, successes=2, success_rate="0.6667", charge="1.500000001", cost="1.000000002"
    )
    assert _without_lists(answer) == {**expected, "margin": "0.499999999", "active_users": 2}
    assert [answer[name] for name in ("days", "models", "providers", "users")] == [None] * 4


@pytest.mark.parametrize(
    ("by", "name"),
    [("day", "days"), ("model", "models"), ("provider", "providers"), ("user", "users")],
)
def test_the_overview_adds_the_one_list_that_is_asked_for(world: World, by: str, name: str) -> None:
    answer = rest_client(make_admin()).get(f"{OVERVIEW}?by={by}").json()

    rows: dict[str, dict[str, Any]] = {
        "day": {"date": TODAY},
        "model": {"id": world.model.pk, "name": world.model.name},
        "provider": {"id": world.provider.pk, "name": world.provider.name},
        "user": {"id": world.user.pk, "name": world.user.username},
    }
    assert answer[name] == [{**rows[by], **SUMS}]
    assert [other for other in ("days", "models", "providers", "users") if answer[other]] == [name]


@pytest.mark.parametrize("path", SUBJECTS)
def test_a_user_a_provider_and_a_key_have_sums_of_their_own(world: World, path: str) -> None:
    _call(make_world(), charge_nanos=10**12)

    answer = rest_client(make_admin()).get(path.format(world=world)).json()

    assert _without_lists(answer) == _totals()
    assert answer["today"] == _totals()
    assert answer["models"] == [{"id": world.model.pk, "name": world.model.name, **SUMS}]
    assert answer["days"] == [{"date": TODAY, **SUMS}]


@pytest.mark.parametrize("path", OWN)
def test_ones_own_usage_has_no_cost(world: World, path: str) -> None:
    _call(make_world(), charge_nanos=10**12)

    answer = rest_client(world.user).get(path.format(world=world)).json()

    assert _without_lists(answer) == OWN_TOTALS
    assert answer["today"] == OWN_TOTALS
    assert answer["models"] == [{"id": world.model.pk, "name": world.model.name, **OWN_TOTALS}]
    assert answer["days"] == [{"date": TODAY, **OWN_TOTALS}]


def test_a_range_is_half_open_and_answered_with_its_bounds(db: None) -> None:
    for moment in ("2026-10-31T23:59:59.999999Z", "2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z"):
        record_call(started_at=moment, settled_at=moment)

    client = rest_client(make_admin())
    answer = client.get(f"{OVERVIEW}?{NOVEMBER}&by=day").json()
    money = client.get(f"{BILLING}?{NOVEMBER.replace('started', 'settled')}").json()

    assert (answer["requests"], money["requests"]) == (1, 1)
    assert answer["started_after"] == money["settled_after"] == "2026-11-01T00:00:00Z"
    assert answer["started_before"] == money["settled_before"] == "2026-12-01T00:00:00Z"
    assert [day["date"] for day in answer["days"]] == ["2026-11-01"]
    assert [day["date"] for day in money["days"]] == ["2026-11-01"]


def test_billing_over_rest(world: World) -> None:
    answer = rest_client(make_user(role=Role.ANALYST)).get(
        f"{BILLING}?settled_after=2026-11-01T00:00:00Z"
    )

    shown = answer.json()
    money = {
        "requests": 2,
        "charge": "1.5",
        "cost": "1",
        "requests_without_cost": 1,
        "late_charges": "0",
        "margin": "0.5",
        "refunds": "0",
        "adjustments": "0",
        "quotas": "0",
    }
    assert {name: shown[name] for name in money} == money
    calls_today = [day for day in shown["days"] if day["date"] == TODAY]
    assert [(day["requests"], day["charge"]) for day in calls_today] == [(2, "1.5")]
    assert shown["users"] == [
        {
            "id": world.user.pk,
            "name": world.user.username,
            "requests": 2,
            "charge": "1.5",
            "late_charges": "0",
            "cost": "1",
            "margin": "0.5",
        }
    ]
    assert shown["balances"] == {"wallets": "10", "quotas": "0", "owed": "0", "held": "0"}


@pytest.mark.parametrize("path", [f"{OVERVIEW}?by=user", f"{OVERVIEW}?by=day", *SUBJECTS])
def test_viewers_see_no_money_anywhere(world: World, path: str) -> None:
    answer = rest_client(make_user(role=Role.VIEWER)).get(path.format(world=world)).json()
    full = rest_client(make_user(role=Role.ANALYST)).get(path.format(world=world)).json()

    rows = [answer, answer["today"]]
    for name in ("days", "models", "providers", "users"):
        rows += answer.get(name) or []
    assert {row[name] for row in rows for name in MONEY} == {None}
    assert {row["requests"] for row in rows} == {2}
    assert full["charge"] == full["today"]["charge"] == "1.5"
    assert [row["name"] for row in answer.get("users") or []] in ([], [None])


def test_who_may_see_statistics(world: World) -> None:
    admin_paths = [OVERVIEW, *(path.format(world=world) for path in SUBJECTS)]
    for path in [*admin_paths, BILLING]:
        assert APIClient().get(path).status_code == 401
        assert rest_client(world.user).get(path).status_code == 403
        assert rest_client(make_user(role=Role.ANALYST)).get(path.rstrip("/")).status_code == 200
    viewer = rest_client(make_user(role=Role.VIEWER))
    assert {viewer.get(path).status_code for path in admin_paths} == {200}
    assert viewer.get(BILLING).status_code == 403
    for path in OWN:
        assert APIClient().get(path.format(world=world)).status_code == 401


def test_anothers_key_is_like_one_that_is_not_there(world: World) -> None:
    for stranger in (rest_client(make_world().user), rest_client(make_admin())):
        others = stranger.get(f"/api/user/keys/{world.key.pk}/stats/")
        missing = stranger.get("/api/user/keys/999999999/stats/")

        assert (others.status_code, missing.status_code) == (404, 404)
        assert others.content == missing.content


def test_ones_own_usage_cannot_be_turned_to_others(world: World) -> None:
    stranger = rest_client(make_world().user)

    assert stranger.get("/api/user/usage/").json()["requests"] == 0
    answer = stranger.get(f"/api/user/usage/?user={world.user.pk}")
    assert (answer.status_code, answer.json()) == (400, {"user": ["Unknown field."]})


@pytest.mark.parametrize(
    "missing", ["stats/users/{}/requests", "providers/{}/stats", "keys/{}/stats"]
)
def test_what_is_not_there_has_no_statistics(db: None, missing: str) -> None:
    client = rest_client(make_admin())

    for number in (999_999, 999_999_999_999_999_999):
        assert client.get(f"/api/admin/{missing.format(number)}/").status_code == 404


@pytest.mark.sqlite  # Refused before any statement runs.
@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("started_after=noon", "started_after"),
        ("started_before=2026-11-21T00:00:00 00:00", "started_before"),
        ("started_before=0001-01-01T00:00:00%2B14:00", "started_before"),
        ("started_before=1999-12-31T00:00:00Z", "started_before"),
        ("started_after=9999-12-31T23:59:59-14:00", "started_after"),
        ("started_after=2026-11-21T00:00:00Z&started_before=2026-11-20T00:00:00Z", "started_after"),
        ("started_after=2025-01-01T00:00:00Z&started_before=2026-11-20T00:00:00Z", "started_after"),
        ("by=key", "by"),
        ("by=day%00", "by"),
        ("group=1", "group"),
        ("page=1", "page"),
    ],
)
def test_what_cannot_be_understood_is_refused(db: None, query: str, field: str) -> None:
    answer = rest_client(make_admin()).get(f"{OVERVIEW}?{query}")

    assert (answer.status_code, list(answer.json())) == (400, [field])


@pytest.mark.parametrize(
    ("path", "queries"),
    [
        # The session with its user; how far the rollups go; of the totals, of today and of the list
        # what is in them and what is not yet; names; late charges of the range and of today.
        (f"{OVERVIEW}?by=user", 19),
        # … the subject; the days; the models with their names.
        (SUBJECTS[0], 22),
        # … the days; what moved; the users with their names and late charges; the balances.
        (BILLING, 12),
    ],
)
def test_statistics_take_the_same_queries_whatever_there_is(
    world: World, path: str, queries: int
) -> None:
    client = rest_client(make_admin())
    counts = []

    for _ in range(2):
        with CaptureQueriesContext(connection) as captured:
            assert client.get(path.format(world=world)).status_code == 200
        counts.append(len(captured))
        for _ in range(4):
            _call(make_world())
            _call(world, model_id=make_world().model.pk)

    assert counts == [queries, queries]
