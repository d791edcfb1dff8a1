"""Walks the hash chains and recomputes every link from the tables alone.

A walk starts where an earlier one ended (VerifiedHead) or at the first link. It stops at a chain's
first bad row, because every later link of that chain builds on it. Memory is bounded: rows are
streamed in the order of their chains, beside a stream of the chains' own rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from apps.ai_models.models import PriceVersion
from apps.audit.records import stored_usage
from apps.billing.chains import (
    ADDED_FIELDS,
    REQUEST_FIELDS,
    entry_hash,
    request_hash,
    transaction_digest,
)
from apps.billing.findings import ChainName, Findings, as_moment, as_uuid, stream
from apps.billing.new_rows import EVERYTHING, Span, entries_with_transactions, links_of
from apps.billing.pricing import (
    Price,
    PriceIncomplete,
    charge_nanos,
    conditions_of,
    price_of_columns,
)

_PRICES_MAX: Final = 4_096
# Ends that cost nothing, whatever was counted before (I-24).
_FREE_STATES: Final = frozenset({"failed", "voided"})
# Usage that the provider did not report costs at most the hold, like usage that cannot be true.
_CUT_SOURCES: Final = frozenset({"estimated", "checkpoint"})
# Ends decided by somebody else than the owner, who may come late with the rest of the charge.
_LATE_STATES: Final = frozenset({"interrupted", "voided"})

_ACCOUNTS = """SELECT account.id, account.posted_nanos, account.sequence, account.head,
        COALESCE(verified.sequence, 0), verified.head, start.hash, start.balance_after_nanos
    FROM billing_account AS account
    LEFT JOIN billing_verifiedhead AS verified ON %s AND verified.chain = 'account'
        AND verified.chain_id = account.id
    LEFT JOIN billing_entry AS start ON start.account_id = account.id
        AND start.sequence = verified.sequence
    WHERE account.id > %s AND account.id <= %s
    ORDER BY account.id"""
_ENTRIES = """SELECT entry.account_id, entry.sequence, entry.kind, entry.amount_nanos,
        entry.balance_after_nanos, entry.request_id, entry.corrects_id, entry.hash,
        entry.transaction_id, txn.kind, txn.idempotency_key, txn.actor_id, txn.actor_name,
        txn.reason, txn.created_at
    FROM {entries} {within}
    ORDER BY entry.account_id, entry.sequence"""
_INCARNATIONS = """SELECT incarnation.id, 0, incarnation.sequence, incarnation.head,
        COALESCE(verified.sequence, 0), verified.head, start.hash, 0
    FROM billing_incarnation AS incarnation
    LEFT JOIN billing_verifiedhead AS verified ON %s AND verified.chain = 'incarnation'
        AND verified.chain_id = incarnation.id
    LEFT JOIN audit_apirequest AS start ON start.incarnation_id = incarnation.id
        AND start.sequence = verified.sequence
    WHERE incarnation.id > %s AND incarnation.id <= %s
    ORDER BY incarnation.id"""
_WITHIN: Final = "WHERE {owner_id} > %s AND {owner_id} <= %s"
_COLUMNS: Final = (*REQUEST_FIELDS, *ADDED_FIELDS)
_REQUESTS = f"""SELECT {", ".join(f"request.{name}" for name in _COLUMNS)}, request.hash,
        (SELECT COALESCE(SUM(amount_nanos), 0) FROM billing_entry AS entry
         WHERE entry.request_id = request.id AND entry.kind IN ('charge', 'excess')),
        (SELECT COALESCE(SUM(amount_nanos), 0) FROM billing_entry AS entry
         WHERE entry.request_id = request.id AND entry.kind = 'late')
    FROM {{requests}} {{within}}
    ORDER BY request.incarnation_id, request.sequence"""  # noqa: S608 (constants)


@dataclass(frozen=True, slots=True)
class Head:
    """How far a chain has been found right."""

    chain: ChainName
    chain_id: int
    sequence: int
    head: bytes


@dataclass(slots=True)
class Walk:
    """What a walk has seen."""

    links: int = 0
    moved: list[Head] = field(default_factory=list)  # chains that have new, right links

    def add(self, other: Walk) -> None:
        """Add what another walk has seen, of other chains."""
        self.links += other.links
        self.moved += other.moved


@dataclass(slots=True)
class _Chain:
    """A chain while it is walked: where it stands, and where its owner's row says that it ends."""

    name: ChainName
    chain_id: int
    end_posted: int
    end_sequence: int
    end_head: bytes
    start_sequence: int
    sequence: int
    head: bytes
    balance: int
    is_broken: bool = False
    has_findings: bool = False  # beside those that break it


def walk_entries(findings: Findings, *, is_full: bool, within: Span = EVERYTHING) -> Walk:
    """Verify the accounts' chains: gapless, balances running, links right, heads as stored."""
    walk = Walk()
    sql = _ENTRIES.format(
        entries=entries_with_transactions(is_full=is_full),
        within=_WITHIN.format(owner_id="entry.account_id") if is_full else "",
    )
    entries = stream(sql, within if is_full else ())
    entry = next(entries, None)
    for row in stream(_ACCOUNTS, (not is_full, *within)):
        chain = _open_chain("account", row, findings)
        while entry is not None and entry[0] == chain.chain_id:
            walk.links += 1
            if not chain.is_broken:
                _check_entry(chain, entry, findings)
            entry = next(entries, None)
        _close_chain(chain, walk, findings)
    return walk


def walk_requests(findings: Findings, *, is_full: bool, within: Span = EVERYTHING) -> Walk:
    """Verify the incarnations' chains, and of each request its charge and its entries."""
    walk = Walk()
    prices = _Prices()
    requests = _request_rows(is_full, within)
    request = next(requests, None)
    for row in stream(_INCARNATIONS, (not is_full, *within)):
        chain = _open_chain("incarnation", row, findings)
        while request is not None and request["incarnation_id"] == chain.chain_id:
            walk.links += 1
            if not chain.is_broken:
                _check_request(chain, request, findings)
            found_before = findings.count
            _check_charge(request, prices, findings)
            chain.has_findings |= findings.count > found_before
            request = next(requests, None)
        _close_chain(chain, walk, findings)
    return walk


def _request_rows(is_full: bool, within: Span) -> Iterator[dict[str, Any]]:
    names = (*_COLUMNS, "hash", "charged", "charged_late")
    sql = _REQUESTS.format(
        requests=links_of("incarnation", is_full=is_full),
        within=_WITHIN.format(owner_id="request.incarnation_id") if is_full else "",
    )
    for values in stream(sql, within if is_full else ()):
        row = dict(zip(names, values, strict=True))
        row["id"] = as_uuid(row["id"])
        for name in ("started_at", "settled_at"):
            row[name] = as_moment(row[name])
        yield row


def _open_chain(name: ChainName, row: tuple[Any, ...], findings: Findings) -> _Chain:
    chain_id, posted, sequence, head, start, verified_head, start_hash, balance = row
    chain = _Chain(
        name=name,
        chain_id=chain_id,
        end_posted=posted,
        end_sequence=sequence,
        end_head=bytes(head),
        start_sequence=start,
        sequence=start,
        head=bytes(verified_head or b""),
        balance=balance or 0,
    )
    if start and (start_hash is None or bytes(start_hash) != chain.head):
        chain.is_broken = True
        findings.add(
            "I-68",
            f"{name} {chain_id} at {start}",
            expected=chain.head.hex(),
            found="no row" if start_hash is None else bytes(start_hash).hex(),
            message="the row that had been verified is no longer there or has another link",
        )
    return chain


def _check_entry(chain: _Chain, row: tuple[Any, ...], findings: Findings) -> None:
    (
        account_id, sequence, kind, amount, balance_after, request_id, corrects_id, found,
        transaction_id, txn_kind, key, actor_id, actor_name, reason, created_at,
    ) = row  # fmt: skip
    subject = f"account {account_id} entry {sequence}"
    if not _check_sequence(chain, sequence, subject, findings):
        return
    if balance_after != chain.balance + amount:
        findings.add_amount(
            "I-08",
            subject,
            expected=chain.balance + amount,
            found=balance_after,
            what="the balance after it",
        )
        chain.is_broken = True
    digest = transaction_digest(
        transaction_id=as_uuid(transaction_id),
        kind=txn_kind,
        idempotency_key=key,
        actor_id=actor_id,
        actor_name=actor_name,
        reason=reason,
        created_at=as_moment(created_at),
    )
    expected = entry_hash(
        chain.head,
        account_id=account_id,
        sequence=sequence,
        kind=kind,
        amount_nanos=amount,
        balance_after_nanos=balance_after,
        request_id=as_uuid(request_id) if request_id else None,
        corrects_id=corrects_id,
        digest=digest,
    )
    chain.balance = balance_after
    _check_link(chain, sequence, expected, bytes(found), subject, findings)


def _check_request(chain: _Chain, row: dict[str, Any], findings: Findings) -> None:
    sequence = row["sequence"]
    subject = f"incarnation {chain.chain_id} request {sequence} ({row['id']})"
    if _check_sequence(chain, sequence, subject, findings):
        expected = request_hash(chain.head, row)
        _check_link(chain, sequence, expected, bytes(row["hash"]), subject, findings)


def _check_sequence(chain: _Chain, sequence: int, subject: str, findings: Findings) -> bool:
    if sequence == chain.sequence + 1:
        return True
    chain.is_broken = True
    findings.add(
        "I-08" if chain.name == "account" else "I-68",
        subject,
        expected=chain.sequence + 1,
        found=sequence,
        message=f"the chain goes from {chain.sequence} to {sequence}",
    )
    return False


def _check_link(
    chain: _Chain, sequence: int, expected: bytes, found: bytes, subject: str, findings: Findings
) -> None:
    if expected != found:
        chain.is_broken = True
        findings.add(
            "I-68",
            subject,
            expected=expected.hex(),
            found=found.hex(),
            message="the link does not match the row: the first bad row of this chain",
        )
    chain.sequence = sequence
    chain.head = found


def _close_chain(chain: _Chain, walk: Walk, findings: Findings) -> None:
    """Compare where the chain ended with what its owner's row says."""
    if chain.is_broken:
        return
    subject = f"{chain.name} {chain.chain_id}"
    if (chain.end_sequence, chain.end_head) != (chain.sequence, chain.head):
        findings.add(
            "I-68",
            subject,
            expected=f"{chain.end_sequence} {chain.end_head.hex()}",
            found=f"{chain.sequence} {chain.head.hex()}",
            message=f"its rows end at {chain.sequence}, its own row says {chain.end_sequence}",
        )
        return
    if chain.name == "account" and chain.end_posted != chain.balance:
        findings.add_amount(
            "I-02",
            subject,
            expected=chain.balance,
            found=chain.end_posted,
            what="the stored balance",
        )
        return
    if chain.sequence > chain.start_sequence and not chain.has_findings:
        walk.moved.append(Head(chain.name, chain.chain_id, chain.sequence, chain.head))


def _check_charge(row: dict[str, Any], prices: _Prices, findings: Findings) -> None:
    subject = f"request {row['id']}"
    charge: int = row["charge_nanos"]
    charged, late = -int(row["charged"]), -int(row["charged_late"])
    if charged != charge:
        findings.add_amount(
            "I-21", subject, expected=charge, found=charged, what="the sum of its charge entries"
        )
    if late and row["state"] not in _LATE_STATES:
        findings.add(
            "I-21",
            subject,
            expected=0,
            found=late,
            message=f"{late} nanos were charged late although its end was {row['state']}",
        )
    if charge < 0:
        findings.add_amount("I-42", subject, expected=0, found=charge, what="the charge")
    if row["usage_source"] == "none" or row["state"] in _FREE_STATES:
        if charge:
            findings.add_amount(
                "I-24",
                subject,
                expected=0,
                found=charge,
                what=f"the charge of a {row['state']} call",
            )
        return
    expected = _recompute(row, prices.find(row["price_version_id"]))
    if expected is None:
        findings.add(
            "I-26",
            subject,
            expected=f"price version {row['price_version_id']}",
            found="none",
            message="its charge cannot be recomputed: its price is gone or incomplete",
        )
        return
    if row["is_usage_suspect"] or row["usage_source"] in _CUT_SOURCES:
        expected = min(expected, row["hold_nanos"])
    if charge != expected:
        invariant = "I-42" if charge == 0 else "I-26"
        findings.add_amount(invariant, subject, expected=expected, found=charge, what="the charge")


def _recompute(row: dict[str, Any], price: Price | None) -> int | None:
    if price is None:
        return None
    try:
        conditions = conditions_of(row["service_tier"], row["started_at"])
        return charge_nanos(stored_usage(row), price, row["multiplier_millionths"], conditions)
    except (PriceIncomplete, ValueError):  # ValueError: counts that cannot be read.
        return None


class _Prices:
    """Price versions by id; they are never edited, so a read one stays true."""

    def __init__(self) -> None:
        self._known: dict[int, Price | None] = {}

    def find(self, price_id: int) -> Price | None:
        """Return a price version, or None where there is none."""
        if price_id not in self._known:
            if len(self._known) >= _PRICES_MAX:
                self._known.clear()
            self._known[price_id] = _load_price(price_id)
        return self._known[price_id]


def _load_price(price_id: int) -> Price | None:
    row = PriceVersion.objects.filter(pk=price_id).first()
    try:
        return None if row is None else price_of_columns(vars(row))
    except PriceIncomplete:
        return None
