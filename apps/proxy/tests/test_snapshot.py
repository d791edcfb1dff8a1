"""Who may call a model, at which multiplier, and which account pays first."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from apps.billing.pricing import Price
from apps.proxy.snapshot import (
    Allowance,
    PriceHistory,
    UserGroup,
    find_access,
    strictest_payload_mode,
)
from apps.proxy.tests.values import EARLIER, MODEL, NOW, PUBLIC, WALLET, make_caller

CLOSED = replace(PUBLIC, id=2, is_public=False, multiplier_millionths=800_000, model_count=3)


def test_a_public_group_opens_a_model_to_everybody() -> None:
    access = find_access(make_caller(), MODEL, NOW)

    assert access is not None
    assert (access.multiplier_millionths, access.buckets) == (1_000_000, (WALLET,))


def test_a_closed_group_opens_nothing() -> None:
    assert find_access(make_caller(), replace(MODEL, groups=(CLOSED,)), NOW) is None


def test_a_model_in_no_group_is_open_to_nobody() -> None:
    assert find_access(make_caller(), replace(MODEL, groups=()), NOW) is None


def test_a_user_group_opens_its_model_groups_and_multiplies_the_price() -> None:
    group = UserGroup(id=7, multiplier_millionths=500_000, cap=None, scope=None)
    model = replace(MODEL, groups=(replace(CLOSED, user_group_ids=frozenset({7})),))

    access = find_access(make_caller(group=group), model, NOW)

    assert access is not None
    assert access.multiplier_millionths == 400_000


def test_the_cheapest_open_group_counts_and_closed_ones_do_not() -> None:
    model = replace(MODEL, groups=(PUBLIC, CLOSED))

    without = find_access(make_caller(), model, NOW)
    funded = find_access(make_caller(allowances=(Allowance(50, CLOSED.id, None),)), model, NOW)

    assert without is not None
    assert without.multiplier_millionths == 1_000_000
    assert funded is not None
    assert funded.multiplier_millionths == 800_000


def test_no_product_of_discounts_becomes_free_by_rounding() -> None:
    group = UserGroup(id=7, multiplier_millionths=1, cap=None, scope=None)
    model = replace(MODEL, groups=(replace(PUBLIC, multiplier_millionths=1),))

    access = find_access(make_caller(group=group), model, NOW)

    assert access is not None
    assert access.multiplier_millionths == 1


def test_quotas_pay_before_the_wallet_the_soonest_to_expire_then_the_narrowest() -> None:
    wide = replace(PUBLIC, id=3, model_count=9)
    model = replace(MODEL, groups=(PUBLIC, wide))
    allowances = (
        Allowance(10, wide.id, None),
        Allowance(11, PUBLIC.id, None),
        Allowance(12, wide.id, NOW + timedelta(days=2)),
        Allowance(13, wide.id, NOW + timedelta(days=1)),
        Allowance(14, PUBLIC.id, NOW),  # has just expired
        Allowance(15, 99, None),  # for other models
    )

    access = find_access(make_caller(allowances=allowances), model, NOW)

    assert access is not None
    assert access.buckets == (13, 12, 11, 10, WALLET)


def test_an_expired_quota_opens_nothing() -> None:
    caller = make_caller(allowances=(Allowance(50, CLOSED.id, NOW - timedelta(seconds=1)),))

    assert find_access(caller, replace(MODEL, groups=(CLOSED,)), NOW) is None


def test_a_key_with_a_list_of_models_calls_only_those() -> None:
    allowed = make_caller(key={"allowed_models": frozenset({"gpt"})})
    other = make_caller(key={"allowed_models": frozenset({"gpt-other"})})

    assert find_access(allowed, MODEL, NOW) is not None
    assert find_access(other, MODEL, NOW) is None


def test_a_price_counts_from_its_moment_on() -> None:
    first, second = Price(id=1, input=1, output=1), Price(id=2, input=2, output=2)
    history = PriceHistory((EARLIER, NOW), (first, second))

    assert history.at(EARLIER - timedelta(microseconds=1)) is None
    assert history.at(EARLIER) == first
    assert history.at(NOW - timedelta(microseconds=1)) == first
    assert history.at(NOW) == second


@pytest.mark.parametrize(
    ("modes", "expected"),
    [
        (("full", "full", "full"), "full"),
        (("full", "metadata", "full"), "metadata"),
        (("metadata", "off", "full"), "off"),
    ],
)
def test_the_strictest_payload_mode_wins(modes: tuple[str, ...], expected: str) -> None:
    assert strictest_payload_mode(*modes) == expected
