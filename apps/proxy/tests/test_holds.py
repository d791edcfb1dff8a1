"""Which caps count a call, and which providers may answer under its hold."""

from __future__ import annotations

from dataclasses import replace

from apps.billing.ledger.commands import Cap
from apps.billing.periods import Budget
from apps.proxy.holds import caps_of_providers, within
from apps.proxy.snapshot import Route, UserGroup
from apps.proxy.tests.values import NOW, PROVIDER, ROUTE, make_caller


def _route(number: int, provider_id: int, cap_nanos: int | None) -> Route:
    cap = None if cap_nanos is None else Cap("provider", provider_id, cap_nanos)
    return replace(ROUTE, id=number, provider=replace(PROVIDER, id=provider_id, cap=cap))


def test_a_caller_has_the_caps_of_his_key_himself_and_his_group() -> None:
    key, user, group = Cap("api_key", 1, 5), Cap("user", 1, 6), Cap("user_group", 7, 7)
    shared = UserGroup(id=7, multiplier_millionths=1, cap=group, scope=None)

    assert make_caller().caps_at(NOW) == ()
    assert make_caller(group=replace(shared, cap=None), cap=user).caps_at(NOW) == (user,)
    assert make_caller(key={"cap": key}, cap=user, group=shared).caps_at(NOW) == (key, user, group)


def test_a_caller_has_the_budgets_of_the_day_and_the_month_in_which_he_calls() -> None:
    cap, own, shared = Cap("user", 1, 6), Budget("user", 1, 3, None), Budget("user_group", 7, 4, 5)
    group = UserGroup(id=7, multiplier_millionths=1, cap=None, scope=None, budget=shared)

    caps = make_caller(cap=cap, budget=own, group=group).caps_at(NOW)

    assert caps == (
        cap,
        Cap("user", 1, 3, "2026-06-01"),
        Cap("user_group", 7, 4, "2026-06-01"),
        Cap("user_group", 7, 5, "2026-06"),
    )


def test_the_first_provider_has_to_cover_the_hold_and_the_others_may() -> None:
    routes = [_route(1, 1, 10), _route(2, 2, None), _route(3, 3, 30), _route(4, 1, 10)]

    assert caps_of_providers(routes) == ((Cap("provider", 1, 10),), (Cap("provider", 3, 30),))
    assert caps_of_providers(routes[1:2]) == ((), ())


def test_only_providers_that_count_the_hold_or_have_no_cap_may_answer() -> None:
    routes = [_route(1, 1, 10), _route(2, 2, None), _route(3, 3, 30)]

    allowed = within(routes, (Cap("provider", 1, 10),))

    assert [route.id for route in allowed] == [1, 2]
