"""Which chains count as verified, and in which pieces everything is walked."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from apps.billing.chain_walks import Head, Walk, walk_entries
from apps.billing.findings import Findings, one_view
from apps.billing.ledger.store import Engine
from apps.billing.models import Account, VerifiedHead
from apps.billing.new_rows import Span, list_spans
from apps.billing.tests.verification_kit import find, make_busy_gateway
from apps.billing.verification import _note
from tests.support.tampering import Tamper
from tests.support.world import Gateway

LATER = datetime(2126, 11, 22, tzinfo=UTC)


@pytest.fixture
def gateway(ledger_connect: Callable[[], Engine]) -> Gateway:
    """A gateway that has settled three calls, one of them in debt, and has one open hold."""
    return make_busy_gateway(ledger_connect)


@pytest.mark.parametrize(("links", "spans"), [(1, 6), (3, 3), (1_000, 1)])
def test_chains_are_walked_span_by_span_and_none_is_left_out(
    gateway: Gateway, links: int, spans: int
) -> None:
    def walk(spans: list[Span]) -> Walk:
        walked = Walk()
        for within in spans:
            with one_view():
                walked.add(walk_entries(findings, is_full=True, within=within))
        return walked

    findings = Findings()
    # Five accounts have ten entries; the last span is for accounts that come later.
    found = list_spans("account", links=links)

    assert len(found) == spans, found
    assert walk(found).links == 10
    assert walk(found) == walk([(0, 2**63 - 1)])
    assert findings.items == []


def noted() -> set[tuple[str, int]]:
    return set(VerifiedHead.objects.values_list("chain", "chain_id"))


def chains_of(gateway: Gateway) -> set[tuple[str, int]]:
    """Return all chains that have a link."""
    accounts = Account.objects.filter(sequence__gt=0).values_list("pk", flat=True)
    return {("incarnation", gateway.incarnation_id), *(("account", pk) for pk in accounts)}


DOUBTED: dict[str, tuple[str, set[str]]] = {
    "a balance is off": (
        "UPDATE billing_account SET posted_nanos = posted_nanos + 1 WHERE kind = 'clearing'",
        {"clearing"},
    ),
    "money is held that no hold explains": (
        "UPDATE billing_account SET held_nanos = held_nanos + 5 WHERE kind = 'wallet'",
        {"wallet"},
    ),
    "an account stands below what it holds": (
        "UPDATE billing_account SET held_nanos = -1 WHERE kind = 'quota'",
        {"quota"},
    ),
    "a transaction does not sum to zero": (
        "UPDATE billing_entry SET amount_nanos = amount_nanos - 1 WHERE id = "
        "(SELECT MAX(id) FROM billing_entry WHERE kind = 'credit')",
        {"wallet", "clearing"},
    ),
    "a price was edited": (
        "UPDATE ai_models_priceversion SET input_nanos = input_nanos * 10",
        {"incarnation"},
    ),
}


@pytest.mark.parametrize("case", DOUBTED)
def test_a_chain_with_a_finding_is_walked_again_and_no_other(
    gateway: Gateway, tamper: Tamper, case: str
) -> None:
    statement, doubted = DOUBTED[case]
    tamper.run(statement)

    found = find(is_full=False)

    owners = dict(Account.objects.values_list("pk", "kind"))
    missing = {
        owners[pk] if chain == "account" else chain for chain, pk in chains_of(gateway) - noted()
    }
    assert missing == doubted
    assert found != []
    assert find(is_full=False) == found


def test_an_unsound_ledger_leaves_no_checkpoint_of_a_full_verification(
    gateway: Gateway, tamper: Tamper
) -> None:
    tamper.run("UPDATE billing_account SET posted_nanos = posted_nanos + 1 WHERE kind = 'clearing'")

    find()

    assert VerifiedHead.objects.count() == 0


def test_a_long_run_does_not_undo_what_a_later_one_has_noted(gateway: Gateway) -> None:
    find(is_full=False)
    early = VerifiedHead.objects.get(chain="incarnation")
    gateway.resolve(next(iter(gateway.holds.values())), 1)
    find(is_full=False)

    # It saw no more when it began.
    _note([Head("incarnation", early.chain_id, early.sequence, bytes(early.head))], LATER)

    assert (early.sequence, VerifiedHead.objects.get(chain="incarnation").sequence) == (2, 3)


def test_what_a_clock_that_was_ahead_noted_is_gone_beyond(gateway: Gateway) -> None:
    find(is_full=False)
    VerifiedHead.objects.update(verified_at=LATER)
    gateway.resolve(next(iter(gateway.holds.values())), 1)

    find(is_full=False)

    head = VerifiedHead.objects.get(chain="incarnation")
    assert head.sequence == 3
    assert head.verified_at < LATER
