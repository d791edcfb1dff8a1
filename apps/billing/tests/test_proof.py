"""Tests of what is kept of verifications and shown of anchors."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import orjson
import pytest
from django.core.management import call_command
from pytest_django import Settings

from apps.billing.anchors import append_anchor, find_last_anchor
from apps.billing.findings import Finding
from apps.billing.ledger.commands import Held
from apps.billing.models import Verification, VerifiedHead
from apps.billing.proof import read_proof, record_verification
from apps.billing.tasks import verify_recent
from apps.billing.verification import Report, anchors_path
from tests.support.people import make_admin, rest_client
from tests.support.world import Gateway, django_engine, make_world

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def _report(**changes: Any) -> Report:
    values: dict[str, Any] = {
        "is_full": False,
        "entries": 3,
        "requests": 2,
        "anchors": 1,
        "findings": (),
        "omitted": 0,
        "orphaned_holds": 0,
    }
    return Report(**{**values, **changes})


def _record(at: datetime, **changes: Any) -> Verification:
    return record_verification(
        _report(**changes), started_by="schedule", started_at=at, finished_at=at
    )


def _settle(count: int) -> None:
    gateway = Gateway(make_world(), django_engine())
    for _ in range(count):
        held = gateway.hold(1_000)
        assert isinstance(held, Held)
        gateway.resolve(held, 1)


def test_what_a_verification_found_is_kept_in_2000_characters(db: None) -> None:
    findings = tuple(
        Finding("I-02", f"account {number}", "1", "2", "nul\x00" + 300 * "x") for number in range(9)
    )

    row = _record(NOW, findings=findings, omitted=4)

    row.refresh_from_db()
    assert (row.finding_count, len(row.findings)) == (13, 2_000)
    assert row.findings.startswith("I-02 account 0: nulxxx")
    assert "\x00" not in row.findings


def test_only_old_verifications_that_found_nothing_new_are_forgotten(db: None) -> None:
    old = NOW - timedelta(days=31)
    kept = [
        _record(old, is_full=True),
        _record(old, findings=(Finding("I-02", "account 1", "1", "2", "off"),)),
        _record(NOW - timedelta(days=30)),
    ]
    forgotten = _record(old)

    last = _record(NOW)

    assert not Verification.objects.filter(pk=forgotten.pk).exists()
    assert set(Verification.objects.all()) == {*kept, last}


def test_both_ways_to_verify_leave_a_note(db: None, data_dir: Path) -> None:
    _settle(2)

    assert verify_recent() == 0
    call_command("verify_ledger", "--full", "--json", stdout=StringIO())

    rows = Verification.objects.order_by("pk")
    assert [
        (row.started_by, row.is_full, row.entries, row.requests, row.finding_count) for row in rows
    ] == [("schedule", False, 6, 2, 0), ("command", True, 6, 2, 0)]


def test_a_proof_counts_what_came_since_the_last_verification(db: None, data_dir: Path) -> None:
    _settle(2)
    verify_recent()
    _settle(3)

    proof = read_proof(anchors_path())

    assert proof.last is not None
    assert (proof.last.entries, proof.last_full) == (6, None)
    accounts, requests = proof.accounts, proof.requests
    # Two wallets, the clearing account and one revenue account; two gateways.
    assert (accounts.chains, accounts.links, accounts.unverified_links) == (4, 14, 8)
    assert (requests.chains, requests.links, requests.unverified_links) == (2, 5, 3)


def test_the_last_anchor_is_read_from_the_end_of_the_file(
    db: None, settings: Settings, tmp_path: Path
) -> None:
    path = tmp_path / "anchors.jsonl"
    for minute in range(3):
        append_anchor(path, now=NOW + timedelta(minutes=minute))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines) + b'{"number": 4, "half')

    anchor = find_last_anchor(path)

    assert anchor is not None
    assert (anchor.number, anchor.at, anchor.problem) == (3, "2026-11-21T12:02:00+00:00", "")
    assert anchor.digest == hashlib.sha256(lines[2]).digest()
    assert anchor.previous == hashlib.sha256(lines[1]).digest()
    assert len(anchor.public_key_fingerprint) == 64
    settings.ENCRYPTION_KEY = "b3RoZXItZW5jcnlwdGlvbi1rZXktMzItYnl0ZXMuLi4="
    stranger = find_last_anchor(path)
    assert stranger is not None
    assert (stranger.number, stranger.public_key_fingerprint) == (3, "")
    assert stranger.problem == "it is signed with a key that is not in ENCRYPTION_KEY"


@pytest.mark.parametrize("content", [None, b"", b"half a line"])
def test_without_a_whole_line_there_is_no_anchor(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "anchors.jsonl"
    if content is not None:
        path.write_bytes(content)

    assert find_last_anchor(path) is None


@pytest.mark.parametrize("line", [b"{}\n", b"nonsense\n", b"[]\n", b'{"number": "x"}\n'])
def test_a_last_line_that_cannot_be_read_is_named(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "anchors.jsonl"
    path.write_bytes(line)

    anchor = find_last_anchor(path)

    assert anchor is not None
    assert anchor.problem == "the line cannot be read"


def test_an_edited_or_missing_anchor_shows(db: None, data_dir: Path) -> None:
    path = anchors_path()
    for minute in range(2):
        append_anchor(path, now=NOW + timedelta(minutes=minute))
    lines = path.read_bytes().splitlines(keepends=True)

    assert read_proof(path).is_anchor_noted is True

    fields = orjson.loads(lines[1])
    path.write_bytes(lines[0] + orjson.dumps({**fields, "totals": {}}) + b"\n")
    edited = read_proof(path)
    path.write_bytes(lines[0])
    cut = read_proof(path)
    path.unlink()
    gone = read_proof(path)

    assert edited.anchor is not None
    assert edited.anchor.problem.startswith("its signature does not match")
    assert (edited.is_anchor_noted, cut.is_anchor_noted) == (False, False)
    assert (gone.anchor, gone.is_anchor_noted) == (None, None)


def test_the_proof_over_rest(db: None, data_dir: Path) -> None:
    client = rest_client(make_admin())
    empty = client.get("/api/admin/ledger/proof/").json()
    _settle(2)
    append_anchor(anchors_path(), now=NOW)
    verify_recent()

    shown = client.get("/api/admin/ledger/proof/").json()

    nothing = {"chains": 0, "links": 0, "verified_links": 0, "unverified_links": 0}
    assert empty == {
        "last": None,
        "last_full": None,
        "accounts": nothing,
        "requests": nothing,
        "anchor": None,
        "anchor_note": None,
        "is_anchor_noted": None,
    }
    assert (shown["last"]["finding_count"], shown["last"]["started_by"]) == (0, "schedule")
    assert shown["accounts"] == {
        "chains": 3,
        "links": 6,
        "verified_links": 6,
        "unverified_links": 0,
    }
    note = VerifiedHead.objects.get(chain="anchor")
    assert shown["anchor"]["number"] == shown["anchor_note"]["number"] == 1
    assert shown["anchor"]["digest"] == bytes(note.head).hex()
    assert (shown["anchor"]["problem"], shown["is_anchor_noted"]) == ("", True)
