"""Each invariant that a database shows is broken by hand, and the verification must name it."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command

from apps.ai_models.models import PriceVersion
from apps.audit.models import APIRequest
from apps.billing.findings import Finding, fetch, one_view
from apps.billing.ledger.commands import Held
from apps.billing.ledger.store import Engine
from apps.billing.models import Hold
from apps.billing.tests.verification_kit import find, make_busy_gateway
from apps.billing.verification import report
from tests.support.tampering import Tamper
from tests.support.world import NOW, Gateway, make_world, top_up

Connect = Callable[[], Engine]


@pytest.fixture
def gateway(ledger_connect: Connect) -> Gateway:
    """A gateway that has settled three calls, one of them in debt, and has one open hold."""
    return make_busy_gateway(ledger_connect)


def invariants(found: list[Finding]) -> set[str]:
    return {finding.invariant for finding in found}


@pytest.mark.parametrize("is_full", [True, False])
def test_a_sound_ledger_is_clean(gateway: Gateway, is_full: bool) -> None:
    found = report(is_full=is_full, anchors_path=Path("/nonexistent"), now=datetime.now(UTC))

    assert found.findings == ()
    assert (found.entries, found.requests) == (10, 2)


def test_the_second_verification_looks_only_at_what_is_new(gateway: Gateway) -> None:
    find(is_full=False)
    held = next(iter(gateway.holds.values()))
    gateway.resolve(held, 1)

    found = report(is_full=False, anchors_path=Path("/nonexistent"), now=datetime.now(UTC))

    assert found.findings == ()
    assert (found.entries, found.requests) == (3, 1)


BROKEN: dict[str, tuple[str, set[str]]] = {
    "a balance is a nano too high": (
        "UPDATE billing_account SET posted_nanos = posted_nanos + 1 WHERE kind = 'clearing'",
        {"I-02", "I-03"},
    ),
    "an entry is a nano too high": (
        "UPDATE billing_entry SET amount_nanos = amount_nanos + 1 WHERE id = "
        "(SELECT MAX(id) FROM billing_entry WHERE kind = 'credit')",
        {"I-01", "I-08", "I-68"},
    ),
    "money is held that no hold explains": (
        "UPDATE billing_account SET held_nanos = held_nanos + 5 WHERE kind = 'wallet'",
        {"I-15"},
    ),
    "a hold vanishes and its money stays held": ("DELETE FROM billing_hold", {"I-15", "I-19"}),
    "a counter forgot what it holds": (
        "UPDATE billing_spendcounter SET held_nanos = 0",
        {"I-15"},
    ),
    "a counter spent more than was charged": (
        "UPDATE billing_spendcounter SET spent_nanos = spent_nanos + 1000000",
        {"I-15"},
    ),
    "an owner is dead for longer than a minute": (
        "UPDATE billing_incarnation SET ended_at = '2020-01-01 00:00:00'",
        {"I-12"},
    ),
    "an owner's lease ran out long ago": (
        "UPDATE billing_incarnation SET expires_at = '2020-01-01 00:00:00'",
        {"I-12"},
    ),
    "a request is gone and its entries remain": (
        "DELETE FROM audit_apirequest WHERE charge_nanos > 0",
        {"I-15", "I-20", "I-68"},
    ),
    "a request says that it cost less": (
        "UPDATE audit_apirequest SET charge_nanos = charge_nanos - 1 WHERE charge_nanos > 0",
        {"I-15", "I-21", "I-26", "I-68"},
    ),
    "a request says that it used less": (
        "UPDATE audit_apirequest SET input_tokens = input_tokens + 1 WHERE charge_nanos > 0",
        {"I-26", "I-68"},
    ),
    "a voided call was charged": (
        "UPDATE audit_apirequest SET state = 'voided' WHERE charge_nanos > 0",
        {"I-24", "I-68"},
    ),
    "the price of a request is gone": (
        "UPDATE audit_apirequest SET price_version_id = 0 WHERE charge_nanos > 0",
        {"I-26", "I-68"},
    ),
    "a late charge on a call that its owner had settled": (
        "UPDATE billing_entry SET kind = 'late' WHERE kind = 'excess'",
        {"I-21", "I-68"},
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_broken_is_named(gateway: Gateway, tamper: Tamper, case: str) -> None:
    statement, expected = BROKEN[case]
    tamper.run(statement)

    found = find()

    assert invariants(found) == expected


@pytest.mark.parametrize("is_full", [True, False])
def test_what_was_charged_to_somebody_else_is_found(
    gateway: Gateway, tamper: Tamper, is_full: bool
) -> None:
    mine, other = gateway.world, make_world()
    swap = "UPDATE billing_account SET customer_id = {}, kind = '{}' WHERE id = {}"

    tamper.run(
        # A customer has one wallet at any time.
        swap.format(other.customer.pk, "quota", mine.wallet_id),
        swap.format(mine.customer.pk, "wallet", other.wallet_id),
        swap.format(other.customer.pk, "wallet", mine.wallet_id),
    )

    # The charge, and what it was beyond its hold.
    assert [
        (found.invariant, found.subject, found.expected, found.found)
        for found in sorted(find(is_full=is_full), key=lambda found: found.subject)
    ] == [
        (
            "I-21",
            f"account {mine.wallet_id} entry {entry}",
            f"an account of customer {mine.customer.pk}",
            f"one of customer {other.customer.pk}",
        )
        for entry in (2, 3)
    ]


@pytest.mark.parametrize("is_full", [True, False])
def test_a_charge_on_an_account_of_the_operator_is_found(
    gateway: Gateway, tamper: Tamper, is_full: bool
) -> None:
    tamper.run(
        "UPDATE billing_account SET customer_id = NULL, kind = 'adjustment' WHERE kind = 'quota'"
    )

    (found,) = find(is_full=is_full)
    assert (found.invariant, found.found) == ("I-21", "one of the operator")


def test_a_price_that_was_edited_no_longer_explains_the_charge(
    gateway: Gateway, tamper: Tamper
) -> None:
    tamper.run("UPDATE ai_models_priceversion SET input_nanos = input_nanos * 10")

    found = find()

    assert [finding.invariant for finding in found] == ["I-26"]
    assert "off by -9000 nanos" in found[0].message


def test_usage_that_cost_nothing_is_found(gateway: Gateway, tamper: Tamper) -> None:
    tamper.run(
        "UPDATE audit_apirequest SET input_tokens = 1, state = 'completed', "
        "usage_source = 'reported' WHERE charge_nanos = 0"
    )

    assert invariants(find()) == {"I-42", "I-68"}


@pytest.mark.parametrize(
    "how",
    [{"is_usage_suspect": True}, {"usage_source": "estimated"}, {"usage_source": "checkpoint"}],
)
@pytest.mark.parametrize(
    ("charged", "used", "off"),
    [(5, 5, None), (5, 9, None), (3, 3, None), (3, 9, "-2000"), (5, 4, "1000"), (2, 3, "-1000")],
)
def test_such_usage_costs_at_most_the_hold_and_no_less_than_it_says(
    ledger_connect: Connect, how: dict[str, Any], charged: int, used: int, off: str | None
) -> None:
    gateway = Gateway(make_world(), ledger_connect())
    held = gateway.hold(5_000)
    assert isinstance(held, Held)
    gateway.resolve(held, charged, **how, input_tokens=used)

    found = [(finding.invariant, finding.message) for finding in find()]

    if off is None:
        assert found == []
    else:
        assert [invariant for invariant, _ in found] == ["I-26"]
        assert found[0][1].endswith(f"off by {off} nanos")


def test_reported_usage_is_charged_in_full_beyond_the_hold(ledger_connect: Connect) -> None:
    gateway = Gateway(make_world(), ledger_connect())
    held = gateway.hold(5_000)
    assert isinstance(held, Held)
    gateway.resolve(held, 5, input_tokens=9)

    assert [finding.invariant for finding in find()] == ["I-26"]


def test_a_wallet_below_what_it_holds_is_found(gateway: Gateway, tamper: Tamper) -> None:
    tamper.run("UPDATE billing_account SET held_nanos = -1 WHERE kind = 'wallet'")

    assert "I-04" in invariants(find())


def test_an_open_hold_of_a_recorded_request_is_found(gateway: Gateway, tamper: Tamper) -> None:
    request_id = APIRequest.objects.filter(charge_nanos=0).get().pk
    owner = gateway.incarnation_id

    Hold.objects.create(
        request_id=request_id,
        incarnation_id=owner,
        customer_id=1,
        amount_nanos=0,
        legs="[]",
        counters="[]",
        detail="{}",
        placed_at=datetime.now(UTC),
    )

    assert invariants(find()) == {"I-20"}


def test_a_lease_that_ran_out_a_moment_ago_is_not_reported(
    ledger_connect: Connect, tamper: Tamper
) -> None:
    gateway = Gateway(make_world(), ledger_connect())
    gateway.hold(1_000)
    moment = datetime.now(UTC) - timedelta(seconds=30)
    ended = f"UPDATE billing_incarnation SET ended_at = '{moment:%Y-%m-%d %H:%M:%S}'"  # noqa: S608 (no input)
    tamper.run(ended)

    assert find() == []


def test_a_view_stays_as_of_one_moment_while_others_commit(gateway: Gateway) -> None:
    with one_view():
        before = fetch("SELECT COUNT(*) FROM billing_entry")
        gateway.resolve(next(iter(gateway.holds.values())), 1)
        during = fetch("SELECT COUNT(*) FROM billing_entry")
    after = fetch("SELECT COUNT(*) FROM billing_entry")

    assert (before, during, after) == ([(10,)], [(10,)], [(13,)])


def test_the_command_prints_amounts_and_exits_with_1(gateway: Gateway, tamper: Tamper) -> None:
    tamper.run("UPDATE billing_account SET posted_nanos = posted_nanos + 7 WHERE kind = 'clearing'")
    out = io.StringIO()

    with pytest.raises(SystemExit) as ended:
        call_command("verify_ledger", "--full", "--json", stdout=out)

    printed: dict[str, Any] = json.loads(out.getvalue())
    assert ended.value.code == 1
    assert printed["is_clean"] is False
    assert [finding["invariant"] for finding in printed["findings"]] == ["I-02", "I-03"]
    assert printed["findings"][1]["message"].endswith("expected 0: off by 7 nanos")


def test_the_command_is_content_with_a_sound_ledger(gateway: Gateway) -> None:
    out = io.StringIO()

    call_command("verify_ledger", stdout=out)

    assert out.getvalue() == "verified what is new: 10 entries, 2 requests, 0 anchors: clean\n"


@pytest.mark.parametrize(
    "change",
    ["service_tier = 'flex'", "counts = '{\"web_search\":1}'", "service_tier = '', counts = ''"],
)
def test_what_decides_a_charge_beside_tokens_cannot_be_edited(
    gateway: Gateway, tamper: Tamper, change: str
) -> None:
    price = PriceVersion.objects.create(
        model=gateway.world.model,
        effective_at=NOW,
        input_nanos=60_000_000,
        output_nanos=60_000_000,
        image_nanos=350,
        terms={"service_tiers": [{"name": "slow", "multiplier_millionths": 500_000}]},
    )
    top_up(gateway.world, 5_000)
    held = gateway.hold(1_000)
    assert isinstance(held, Held)
    # 10 x 60 / 2 + 2 x 350 nanos: what one token costs in the world.
    gateway.resolve(
        held,
        1,
        price_version_id=price.pk,
        input_tokens=10,
        service_tier="slow",
        counts='{"image":2}',
    )
    assert find() == []

    tamper.run(f"UPDATE audit_apirequest SET {change} WHERE service_tier = 'slow'")  # noqa: S608 (no input)

    assert {"I-26", "I-68"} <= invariants(find())
