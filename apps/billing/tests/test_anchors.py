"""The attacks on the chains and on the anchors, by raw SQL with triggers off (I-68, I-69)."""

# ruff: noqa: S608 (the attacks are SQL, put together here)

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from apps.billing.anchors import append_anchor, read_anchors
from apps.billing.findings import Finding
from apps.billing.ledger.store import Engine
from apps.billing.models import VerifiedHead
from apps.billing.tests.anchor_kit import cut_off_the_tail, find, rewrite_all, settle
from tests.support.tampering import Tamper
from tests.support.world import NOW, Gateway, make_world

Connect = Callable[[], Engine]


@pytest.fixture
def gateway(ledger_connect: Connect) -> Gateway:
    """A gateway that has settled five calls of 1000 nanos: wallet entries 1 (top-up) to 6."""
    gateway = Gateway(make_world(), ledger_connect())
    settle(gateway, 5)
    return gateway


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the anchors are."""
    return tmp_path / "anchors" / "anchors.jsonl"


def of_chain(findings: list[Finding], chain: str) -> list[str]:
    return [finding.subject for finding in findings if finding.subject.startswith(chain)]


# I-68: five attacks on the chain of the wallet.


def test_one_changed_byte_is_found_at_its_row(gateway: Gateway, tamper: Tamper, path: Path) -> None:
    wallet = gateway.world.wallet_id
    tamper.run(
        "UPDATE billing_transaction SET reason = 'x' WHERE id = (SELECT transaction_id "
        f"FROM billing_entry WHERE account_id = {wallet} AND sequence = 3)"
    )

    found = find(path)

    assert of_chain(found, f"account {wallet} ") == [f"account {wallet} entry 3"]
    assert {finding.invariant for finding in found} == {"I-68"}


def test_one_deleted_row_is_found(gateway: Gateway, tamper: Tamper, path: Path) -> None:
    wallet = gateway.world.wallet_id
    tamper.run(f"DELETE FROM billing_entry WHERE account_id = {wallet} AND sequence = 3")

    assert of_chain(find(path), f"account {wallet} ") == [f"account {wallet} entry 4"]


def test_two_swapped_rows_are_found(gateway: Gateway, tamper: Tamper, path: Path) -> None:
    wallet = gateway.world.wallet_id
    move = "UPDATE billing_entry SET sequence = {} WHERE account_id = {} AND sequence = {}"
    tamper.run(move.format(99, wallet, 3), move.format(3, wallet, 4), move.format(4, wallet, 99))

    found = of_chain(find(path), f"account {wallet} ")

    assert set(found) == {f"account {wallet} entry 3"}


def test_an_inserted_row_is_found(gateway: Gateway, tamper: Tamper, path: Path) -> None:
    wallet = gateway.world.wallet_id
    tamper.run(
        f"UPDATE billing_entry SET sequence = sequence + 100 WHERE account_id = {wallet} "
        "AND sequence > 2",
        "INSERT INTO billing_entry (transaction_id, account_id, request_id, kind, amount_nanos, "
        "sequence, balance_after_nanos, corrects_id, hash) "
        "SELECT transaction_id, account_id, NULL, 'credit', 0, 3, balance_after_nanos, NULL, hash "
        f"FROM billing_entry WHERE account_id = {wallet} AND sequence = 2",
        f"UPDATE billing_entry SET sequence = sequence - 99 WHERE account_id = {wallet} "
        "AND sequence > 100",
    )

    assert of_chain(find(path), f"account {wallet} ") == [f"account {wallet} entry 3"]


def test_an_old_link_used_again_is_found(gateway: Gateway, tamper: Tamper, path: Path) -> None:
    wallet = gateway.world.wallet_id
    tamper.run(
        "UPDATE billing_entry SET hash = (SELECT old.hash FROM billing_entry AS old "
        f"WHERE old.account_id = {wallet} AND old.sequence = 2) "
        f"WHERE account_id = {wallet} AND sequence = 3"
    )

    assert of_chain(find(path), f"account {wallet} ") == [f"account {wallet} entry 3"]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_apirequest SET user_agent = 'x' WHERE sequence = 3",
        "DELETE FROM audit_apirequest WHERE sequence = 3",
        "UPDATE audit_apirequest SET sequence = CASE sequence WHEN 3 THEN 4 ELSE 3 END "
        "WHERE sequence IN (3, 4)",
        "UPDATE audit_apirequest SET hash = (SELECT old.hash FROM audit_apirequest AS old "
        "WHERE old.sequence = 2) WHERE sequence = 3",
    ],
    ids=["edited", "deleted", "swapped", "old link"],
)
def test_the_chain_of_requests_breaks_at_the_first_bad_row(
    gateway: Gateway, tamper: Tamper, path: Path, statement: str
) -> None:
    tamper.run(statement)

    found = [finding for finding in find(path) if finding.subject.startswith("incarnation")]

    row = 4 if statement.startswith("DELETE") else 3
    assert [finding.invariant for finding in found] == ["I-68"]
    assert f" request {row} (" in found[0].subject


def test_a_change_before_the_checkpoint_is_found_by_a_full_verification(
    gateway: Gateway, tamper: Tamper, path: Path
) -> None:
    find(path, is_full=False)
    tamper.run("UPDATE audit_apirequest SET user_agent = 'x' WHERE sequence = 3")

    assert find(path, is_full=False) == []
    assert [finding.invariant for finding in find(path)] == ["I-68"]


def test_a_row_missing_at_the_checkpoint_is_found_without_a_full_verification(
    gateway: Gateway, tamper: Tamper, path: Path
) -> None:
    find(path, is_full=False)
    tamper.run("DELETE FROM audit_apirequest WHERE sequence = 5")

    found = [finding for finding in find(path, is_full=False) if finding.invariant == "I-68"]

    assert of_chain(found, "incarnation") == [f"incarnation {gateway.incarnation_id} at 5"]


# I-69: who can write the database makes it consistent with itself; only the anchors tell.


def test_a_tail_cut_off_with_all_its_traces_is_found(
    gateway: Gateway, tamper: Tamper, path: Path
) -> None:
    append_anchor(path, NOW)
    cut_off_the_tail(tamper)

    found = find(path)

    assert {finding.invariant for finding in found} == {"I-69"}
    assert sorted(finding.subject for finding in found) == sorted(
        [
            f"account {gateway.world.wallet_id} at 6",
            f"account {gateway.world.revenue_id} at 5",
            f"incarnation {gateway.incarnation_id} at 5",
        ]
    )


def test_without_an_anchor_such_a_cut_cannot_be_seen(
    gateway: Gateway, tamper: Tamper, path: Path
) -> None:
    cut_off_the_tail(tamper)

    assert find(path) == []


def test_a_chain_rewritten_from_its_start_is_found(
    gateway: Gateway, tamper: Tamper, path: Path
) -> None:
    append_anchor(path, NOW)
    rewrite_all(tamper)

    found = find(path)

    assert {finding.invariant for finding in found} == {"I-69"}
    assert f"account {gateway.world.wallet_id} at 6" in [finding.subject for finding in found]


def test_without_an_anchor_such_a_rewrite_cannot_be_seen(
    gateway: Gateway, tamper: Tamper, path: Path
) -> None:
    rewrite_all(tamper)

    assert find(path) == []


def three_lines(gateway: Gateway, path: Path) -> list[bytes]:
    for _ in range(3):
        append_anchor(path, NOW)
        settle(gateway, 1)
    return path.read_bytes().splitlines(keepends=True)


def test_sound_anchors_are_clean(gateway: Gateway, path: Path) -> None:
    three_lines(gateway, path)

    assert find(path) == []
    assert [anchor.problem for anchor in read_anchors(path)] == ["", "", ""]


def test_an_edited_line_is_found(gateway: Gateway, path: Path) -> None:
    lines = three_lines(gateway, path)
    lines[1] = lines[1].replace(b'"number":2', b'"number":2 ')
    path.write_bytes(b"".join(lines))

    assert {finding.subject for finding in find(path)} == {"anchor 2", "anchor 3"}


@pytest.mark.parametrize("kept", [[0, 2], [1, 2], [0, 1], [0], []], ids=str)
def test_deleted_lines_are_found(gateway: Gateway, path: Path, kept: list[int]) -> None:
    lines = three_lines(gateway, path)
    path.write_bytes(b"".join(lines[number] for number in kept))

    assert {finding.invariant for finding in find(path)} == {"I-69"}


def test_a_deleted_file_is_found(gateway: Gateway, path: Path) -> None:
    three_lines(gateway, path)
    path.unlink()

    assert [finding.subject for finding in find(path)] == ["anchor 3"]


def test_a_gap_stays_visible_when_anchoring_goes_on(gateway: Gateway, path: Path) -> None:
    lines = three_lines(gateway, path)
    path.write_bytes(b"".join(lines[:2]))

    append_anchor(path, NOW)

    assert [finding.subject for finding in find(path)] == ["anchor 4"]
    assert orjson.loads(path.read_bytes().splitlines()[-1])["number"] == 4


def test_a_line_signed_with_another_key_is_found(
    gateway: Gateway, path: Path, settings: object
) -> None:
    append_anchor(path, NOW)
    settings.ENCRYPTION_KEY = "22" * 32  # type: ignore[attr-defined]  # given by pytest-django

    found = find(path)

    assert [finding.message for finding in found] == [
        "it is signed with a key that is not in ENCRYPTION_KEY"
    ]


def test_a_rotated_key_still_verifies_old_lines(
    gateway: Gateway, path: Path, settings: object
) -> None:
    append_anchor(path, NOW)
    old = settings.ENCRYPTION_KEY  # type: ignore[attr-defined]  # given by pytest-django
    settings.ENCRYPTION_KEY = f"{'22' * 32},{old}"  # type: ignore[attr-defined]  # as above
    append_anchor(path, NOW)

    assert find(path) == []


def test_only_heads_that_moved_are_written(gateway: Gateway, path: Path) -> None:
    first = append_anchor(path, NOW)
    second = append_anchor(path, NOW)
    settle(gateway, 1)
    third = append_anchor(path, NOW)

    # Clearing, wallet, revenue and the incarnation; nothing; wallet, revenue and the incarnation.
    assert (first, second, third) == (4, 0, 3)


def test_the_file_is_private_and_a_torn_last_line_is_replaced(gateway: Gateway, path: Path) -> None:
    append_anchor(path, NOW)
    with path.open("ab") as file:
        file.write(b'{"format":1,"numb')

    assert find(path) == []

    append_anchor(path, NOW)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [anchor.number for anchor in read_anchors(path)] == [1, 2]
    assert find(path) == []


def test_a_line_whose_note_was_lost_in_a_crash_is_believed(gateway: Gateway, path: Path) -> None:
    append_anchor(path, NOW)
    noted = VerifiedHead.objects.get(chain="anchor")
    settle(gateway, 1)
    append_anchor(path, NOW)
    VerifiedHead.objects.filter(chain="anchor").update(sequence=1, head=noted.head)

    append_anchor(path, NOW)

    assert find(path) == []
    assert [anchor.number for anchor in read_anchors(path)] == [1, 2, 3]
