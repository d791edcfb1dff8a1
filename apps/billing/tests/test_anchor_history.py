"""What was anchored once is missed for ever, whatever is anchored after it (I-69).

The worker signs the heads that it finds: half a minute after rows were changed and all links
computed again, the last heads of the file are those of the new history.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pytest_django import Settings

from apps.billing import anchor_checks
from apps.billing.anchor_checks import AnchorMemory
from apps.billing.anchors import append_anchor, read_anchors
from apps.billing.findings import Finding
from apps.billing.ledger.store import Engine
from apps.billing.models import VerifiedHead
from apps.billing.sealing_keys import vouch_for_anchors
from apps.billing.tests.anchor_kit import cut_off_the_tail, find, rewrite_all, settle
from tests.support.tampering import Tamper
from tests.support.world import NOW, Gateway, make_world


@pytest.fixture
def gateway(ledger_connect: Callable[[], Engine]) -> Gateway:
    """A gateway that has settled five calls: the wallet has six entries."""
    gateway = Gateway(make_world(), ledger_connect())
    settle(gateway, 5)
    return gateway


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the anchors are."""
    return tmp_path / "anchors.jsonl"


@pytest.fixture
def memory(gateway: Gateway, path: Path) -> AnchorMemory:
    """What a worker knows that has anchored and verified all of it."""
    append_anchor(path, NOW)
    memory = AnchorMemory()
    assert find(path, is_full=False, memory=memory) == []
    return memory


def told(found: list[Finding]) -> set[tuple[str, str]]:
    assert {finding.invariant for finding in found} == {"I-69"}
    return {(finding.subject, finding.message) for finding in found}


REWRITTEN = "the chain was rewritten since it was anchored"
GONE = "rows that were anchored are gone"


def test_a_rewritten_history_is_found_when_its_new_heads_were_anchored(
    gateway: Gateway, memory: AnchorMemory, tamper: Tamper, path: Path
) -> None:
    world = gateway.world
    rewrite_all(tamper)
    settle(gateway, 1)
    append_anchor(path, NOW)

    # Clearing did not move, so that its old head is still its last one.
    expected = {
        (f"account {world.clearing_id} at 1", REWRITTEN),
        (f"account {world.wallet_id} at 6", REWRITTEN),
        (f"account {world.revenue_id} at 5", REWRITTEN),
    }
    assert told(find(path, is_full=False, memory=memory)) == expected
    assert told(find(path, is_full=False, memory=memory)) == expected
    assert told(find(path)) == expected


def test_each_chain_is_told_once_at_its_first_anchored_row(
    gateway: Gateway, memory: AnchorMemory, tamper: Tamper, path: Path
) -> None:
    settle(gateway, 1)
    append_anchor(path, NOW)
    settle(gateway, 1)
    append_anchor(path, NOW)
    rewrite_all(tamper)

    found = [finding.subject for finding in find(path)]

    assert found.count(f"account {gateway.world.wallet_id} at 6") == 1
    assert len(found) == len(set(found)) == 3


def test_a_tail_that_was_lost_is_missed_when_the_chain_has_gone_on(
    gateway: Gateway, memory: AnchorMemory, tamper: Tamper, path: Path
) -> None:
    world = gateway.world
    cut_off_the_tail(tamper)
    settle(gateway, 2)
    append_anchor(path, NOW)

    expected = {
        (f"account {world.wallet_id} at 6", REWRITTEN),
        (f"account {world.revenue_id} at 5", REWRITTEN),
        (f"incarnation {gateway.incarnation_id} at 5", REWRITTEN),
    }
    assert told(find(path, is_full=False, memory=memory)) == expected
    assert told(find(path)) == expected


def test_a_tail_that_was_lost_is_missed_when_what_is_left_was_anchored(
    gateway: Gateway, memory: AnchorMemory, tamper: Tamper, path: Path
) -> None:
    cut_off_the_tail(tamper)
    append_anchor(path, NOW)

    expected = {
        (f"account {gateway.world.wallet_id} at 6", GONE),
        (f"account {gateway.world.revenue_id} at 5", GONE),
        (f"incarnation {gateway.incarnation_id} at 5", GONE),
    }
    assert told(find(path, is_full=False, memory=memory)) == expected
    assert told(find(path)) == expected


def test_another_head_of_the_same_row_is_found(
    gateway: Gateway, memory: AnchorMemory, tamper: Tamper, path: Path
) -> None:
    rewrite_all(tamper)
    VerifiedHead.objects.filter(chain="anchor account").delete()
    append_anchor(path, NOW)
    lines = [{row[0]: row[1:] for row in line.accounts} for line in read_anchors(path)]
    wallet = gateway.world.wallet_id
    assert lines[0][wallet][0] == lines[1][wallet][0]

    assert (f"account {wallet} at 6", REWRITTEN) in told(find(path, is_full=False, memory=memory))
    assert (f"account {wallet} at 6", REWRITTEN) in told(find(path))


def test_heads_are_looked_up_in_pieces(
    gateway: Gateway, tamper: Tamper, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(anchor_checks, "_LOOK_UP", 2)
    for _ in range(7):
        settle(gateway, 1)
        append_anchor(path, NOW)
    assert find(path) == []

    rewrite_all(tamper)
    settle(gateway, 1)
    append_anchor(path, NOW)

    assert (f"account {gateway.world.wallet_id} at 7", REWRITTEN) in told(find(path))


def test_who_accepts_a_loss_begins_another_file(
    gateway: Gateway, memory: AnchorMemory, tamper: Tamper, path: Path
) -> None:
    cut_off_the_tail(tamper)
    settle(gateway, 2)
    append_anchor(path, NOW)
    assert find(path)

    path.rename(path.with_name("lost.jsonl"))
    VerifiedHead.objects.filter(chain__startswith="anchor").delete()
    append_anchor(path, NOW)

    assert find(path, is_full=False, memory=memory) == []
    assert find(path) == []
    assert find(path.with_name("lost.jsonl"))


def test_a_new_key_vouches_for_the_file_whatever_the_tables_say(
    gateway: Gateway, memory: AnchorMemory, tamper: Tamper, path: Path, settings: Settings
) -> None:
    cut_off_the_tail(tamper)
    append_anchor(path, NOW)
    old = settings.ENCRYPTION_KEY
    settings.ENCRYPTION_KEY = f"{'22' * 32},{old}"

    assert vouch_for_anchors(path, now=NOW) == 2
