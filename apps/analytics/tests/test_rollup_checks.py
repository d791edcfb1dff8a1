"""Rollups that are not the sums of their calls are found by a verification of everything."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Final

import pytest

from apps.analytics.models import RolledUp, Rollup
from apps.analytics.rolling import roll_up
from apps.analytics.rollup_checks import check_rollups
from apps.analytics.tests.kit import make_up, record, start_incarnation
from apps.billing.added_checks import run_added_checks
from apps.billing.findings import Findings, one_view
from apps.billing.models import Incarnation

BEGAN: Final = datetime(2026, 11, 20, 23, 59, tzinfo=UTC)
NAME: Final = "rollup of 2026-11-20 (settled on 2026-11-21, user 1, key 10, model 2, provider {})"


@pytest.fixture
def incarnation(db: None) -> Incarnation:
    """A gateway that has recorded three calls of one day, which are in two rollups."""
    incarnation = start_incarnation()
    for provider_id, charge_nanos in ((3, 100), (3, 20), (None, 7)):
        record(
            incarnation,
            started_at=BEGAN,
            settled_at=BEGAN + timedelta(minutes=2),
            user_id=1,
            api_key_id=10,
            model_id=2,
            provider_id=provider_id,
            charge_nanos=charge_nanos,
            cost_nanos=None if provider_id is None else 5,
            input_tokens=4,
        )
    assert roll_up(seconds=60)
    return incarnation


def find() -> dict[str, str]:
    findings = Findings()
    with one_view():
        check_rollups(findings)
    assert {found.invariant for found in findings.items} <= {"I-25"}
    return {found.subject: found.found for found in findings.items}


def test_rollups_are_sound_whatever_they_have_not_added_yet(incarnation: Incarnation) -> None:
    assert Rollup.objects.count() == 2
    assert find() == {}

    record(incarnation, started_at=BEGAN, settled_at=BEGAN, user_id=1, charge_nanos=9)
    record(start_incarnation(), started_at=BEGAN, settled_at=BEGAN, user_id=1, charge_nanos=9)
    assert find() == {}

    assert roll_up(seconds=60)
    assert find() == {}


def test_rollups_of_made_up_calls_are_sound(db: None) -> None:
    source = random.Random(7)
    incarnations = [start_incarnation() for _ in range(2)]
    for _ in range(60):
        record(source.choice(incarnations), **make_up(source))
    assert roll_up(seconds=60)

    assert find() == {}


def test_an_edited_sum_is_found(incarnation: Incarnation) -> None:
    Rollup.objects.filter(provider_id=3).update(charge_nanos=121, cost_nanos=0)

    assert find() == {NAME.format(3): "charge_nanos by 1, cost_nanos by -10"}


def test_a_sum_that_went_to_somebody_else_is_found(incarnation: Incarnation) -> None:
    Rollup.objects.filter(provider_id=0).update(user_id=2)

    whole = "requests by {0}1, successes by {0}1, input_tokens by {0}4, charge_nanos by {0}7, "
    whole += "requests_without_cost by {0}1"
    assert find() == {
        NAME.format(0): whole.format("-"),
        NAME.format(0).replace("user 1", "user 2"): whole.format(""),
    }


def test_rollups_without_their_marks_are_found(incarnation: Incarnation) -> None:
    RolledUp.objects.all().delete()
    assert find().keys() == {NAME.format(3), NAME.format(0)}

    # As the documents say: both tables, and they are made anew.
    roll_up(seconds=60)
    assert find()[NAME.format(3)].startswith("requests by 2, ")
    RolledUp.objects.all().delete()
    Rollup.objects.all().delete()
    assert find() == {}
    roll_up(seconds=60)
    assert find() == {}


def test_marks_without_their_rollups_are_found(incarnation: Incarnation) -> None:
    Rollup.objects.all().delete()

    assert find()[NAME.format(3)].startswith("requests by -2, ")


def test_a_mark_ahead_of_its_chain_is_found_with_the_next_call(incarnation: Incarnation) -> None:
    RolledUp.objects.update(sequence=4)
    assert find() == {}
    record(incarnation, started_at=BEGAN, settled_at=BEGAN, user_id=1, charge_nanos=9)

    roll_up(seconds=60)

    assert len(find()) == 1


def test_a_verification_of_everything_looks_at_them(incarnation: Incarnation) -> None:
    Rollup.objects.filter(provider_id=3).update(charge_nanos=121)
    findings = Findings()

    run_added_checks(findings)

    assert [str(found) for found in findings.items] == [
        f"I-25 {NAME.format(3)}: what statistics read differs from its calls: charge_nanos by 1"
    ]
