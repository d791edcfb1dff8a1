"""Checks of the ledger that are sums and joins, without walking a chain.

Each query returns only rows that are off, so its result is small on a sound ledger.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, Final

import orjson
from django.db import connection

from apps.billing.findings import Findings, as_moment, as_uuid, fetch, limited, stream
from apps.billing.new_rows import links_of

DEAD_SECONDS_MAX: Final = 60

_UNBALANCED = """SELECT transaction_id, SUM(amount_nanos) FROM billing_entry
    GROUP BY transaction_id HAVING SUM(amount_nanos) <> 0"""
# What is new is looked up row by row (see `new_rows`): a join would read the other table whole.
_NEW_UNBALANCED = """SELECT id, nanos FROM (
        SELECT new.id, (SELECT SUM(amount_nanos) FROM billing_entry AS entry
            WHERE entry.transaction_id = new.id) AS nanos
        FROM (SELECT DISTINCT entry.transaction_id AS id FROM {entries}) AS new
    ) AS summed WHERE nanos <> 0"""
_ACCOUNTS_OF = "SELECT account_id FROM billing_entry WHERE transaction_id = %s"
_EMPTY_TRANSACTIONS = """SELECT txn.id FROM billing_transaction AS txn
    WHERE NOT EXISTS (SELECT 1 FROM billing_entry AS entry WHERE entry.transaction_id = txn.id)"""
_TOTAL = "SELECT COALESCE(SUM(posted_nanos), 0) FROM billing_account"
_BELOW = """SELECT id, kind, posted_nanos, held_nanos FROM billing_account
    WHERE (kind IN ('wallet', 'quota') AND (held_nanos < 0 OR posted_nanos < held_nanos))
       OR (kind = 'receivable' AND (posted_nanos > 0 OR held_nanos <> 0))"""
_HOLDS = """SELECT hold.request_id, hold.amount_nanos, hold.legs, hold.counters,
        hold.incarnation_id, incarnation.id, incarnation.ended_at, incarnation.expires_at
    FROM billing_hold AS hold
    LEFT JOIN billing_incarnation AS incarnation ON incarnation.id = hold.incarnation_id"""
_HELD_TWICE = """SELECT hold.request_id FROM billing_hold AS hold
    JOIN audit_apirequest AS request ON request.id = hold.request_id"""
# What a call cost lies on accounts of the customer who made it.
_STRAY_ENTRIES = """SELECT request_id, account_id, sequence, amount_nanos, owner_id, caller_id
    FROM (
        SELECT entry.request_id, entry.account_id, entry.sequence, entry.amount_nanos,
            account.customer_id AS owner_id, {caller_id} AS caller_id
        FROM {entries}
        WHERE entry.request_id IS NOT NULL AND entry.kind IN ('charge', 'excess', 'late')
    ) AS posted
    WHERE caller_id IS NULL OR owner_id IS NULL OR owner_id <> caller_id"""
_WITH_REQUESTS = """{entries}
        LEFT JOIN audit_apirequest AS request ON request.id = entry.request_id"""
_CALLER_OF_NEW = """(SELECT request.customer_id FROM audit_apirequest AS request
                WHERE request.id = entry.request_id LIMIT 1)"""
_STRAY_REQUESTS = """SELECT request.id, request.incarnation_id FROM audit_apirequest AS request
    WHERE NOT EXISTS
        (SELECT 1 FROM billing_incarnation AS owner WHERE owner.id = request.incarnation_id)"""
# A cap may be younger than what it limits: a counter may know less than was charged, never more.
_OVERCOUNTED = """WITH counted AS (
        SELECT id, scope_id, spent_nanos FROM billing_spendcounter WHERE scope = '{scope}'
    ), charged AS (
        SELECT {scope_id} AS scope_id, SUM(request.charge_nanos) AS nanos
        FROM audit_apirequest AS request
        WHERE {scope_id} IN (SELECT scope_id FROM counted) GROUP BY {scope_id}
    ), late AS (
        SELECT {scope_id} AS scope_id, -SUM(entry.amount_nanos) AS nanos
        FROM billing_entry AS entry
            JOIN audit_apirequest AS request ON request.id = entry.request_id
        WHERE entry.kind = 'late' AND {scope_id} IN (SELECT scope_id FROM counted)
        GROUP BY {scope_id}
    )
    SELECT counted.id, counted.spent_nanos,
        COALESCE(charged.nanos, 0) + COALESCE(late.nanos, 0) AS charged_nanos
    FROM counted LEFT JOIN charged ON charged.scope_id = counted.scope_id
        LEFT JOIN late ON late.scope_id = counted.scope_id
    WHERE counted.spent_nanos > COALESCE(charged.nanos, 0) + COALESCE(late.nanos, 0)"""
# A request does not say in which user group its user was then: only the whole is an upper bound.
_OVERCOUNTED_GROUPS = """WITH whole AS (
        SELECT (SELECT COALESCE(SUM(charge_nanos), 0) FROM audit_apirequest)
            - (SELECT COALESCE(SUM(amount_nanos), 0) FROM billing_entry WHERE kind = 'late')
            AS nanos
        WHERE EXISTS (SELECT 1 FROM billing_spendcounter WHERE scope = 'user_group')
    )
    SELECT counter.id, counter.spent_nanos, whole.nanos
    FROM billing_spendcounter AS counter, whole
    WHERE counter.scope = 'user_group' AND counter.spent_nanos > whole.nanos"""
_OVERCOUNTS = (
    *(
        _OVERCOUNTED.format(scope=scope, scope_id=f"request.{scope}_id")
        for scope in ("api_key", "user", "provider")
    ),
    _OVERCOUNTED_GROUPS,
)
# The same for days and months. A call counts where it began; of groups the whole is the bound.
_OVERCOUNTED_PERIODS = """WITH counted AS (
        SELECT id, scope_id, spent_nanos, substr(scope, {after}) AS period
        FROM billing_spendcounter WHERE substr(scope, 1, {after} - 1) = '{scope}:'
    ), charged AS (
        SELECT {whose} AS scope_id, {day} AS began_on, SUM(request.charge_nanos) AS nanos
        FROM audit_apirequest AS request
        WHERE {is_counted} GROUP BY {by}
        UNION ALL
        SELECT {whose} AS scope_id, {day} AS began_on, -SUM(entry.amount_nanos) AS nanos
        FROM billing_entry AS entry
            JOIN audit_apirequest AS request ON request.id = entry.request_id
        WHERE entry.kind = 'late' AND {is_counted} GROUP BY {by}
    )
    SELECT counted.id, counted.spent_nanos, COALESCE(SUM(charged.nanos), 0) AS charged_nanos
    FROM counted LEFT JOIN charged ON {is_theirs}
        AND substr(charged.began_on, 1, length(counted.period)) = counted.period
    GROUP BY counted.id, counted.spent_nanos
    HAVING counted.spent_nanos > COALESCE(SUM(charged.nanos), 0)"""
# The day of UTC on which a call began, as text.
_DAYS = {
    "postgresql": "to_char(request.started_at AT TIME ZONE 'UTC', 'YYYY-MM-DD')",
    "sqlite": "substr(request.started_at, 1, 10)",
}


def check_transactions(findings: Findings, *, is_full: bool) -> None:
    """Verify that transactions and the whole ledger sum to zero (I-01, I-03)."""
    new = links_of("account", is_full=False)
    unbalanced = _UNBALANCED if is_full else _NEW_UNBALANCED.format(entries=new)
    for transaction_id, total in stream(limited(unbalanced)):
        subject = f"transaction {as_uuid(transaction_id)}"
        findings.add_amount(
            "I-01", subject, expected=0, found=int(total), what="the sum of its entries"
        )
        for (account_id,) in fetch(_ACCOUNTS_OF, (transaction_id,)):
            findings.doubt("account", account_id)
    if is_full:
        for (transaction_id,) in stream(limited(_EMPTY_TRANSACTIONS)):
            findings.add(
                "I-01",
                f"transaction {as_uuid(transaction_id)}",
                expected="entries",
                found="none",
                message="it has no entries",
            )
    ((total,),) = fetch(_TOTAL)
    if total:
        findings.add_amount(
            "I-03", "ledger", expected=0, found=int(total), what="the sum of all accounts"
        )


def check_accounts(findings: Findings) -> None:
    """Verify that no account stands below what it may (I-04)."""
    for account_id, kind, posted, held in fetch(limited(_BELOW)):
        findings.doubt("account", account_id)
        findings.add(
            "I-04",
            f"account {account_id}",
            expected="posted >= held >= 0" if kind != "receivable" else "posted <= 0, held = 0",
            found=f"posted {posted}, held {held}",
            message=f"a {kind} stands at posted {posted}, held {held} nanos",
        )


def check_holds(findings: Findings, *, now: datetime) -> None:
    """Verify that open holds have living owners and are what is held (I-12, I-15, I-19)."""
    held: defaultdict[int, int] = defaultdict(int)
    counted: defaultdict[int, int] = defaultdict(int)
    now = _database_clock(now)
    for row in stream(_HOLDS):
        request_id, amount, legs, counters, owner, found_owner, ended_at, expires_at = row
        subject = f"hold {as_uuid(request_id)}"
        total = 0
        for account_id, nanos in orjson.loads(legs):
            held[account_id] += nanos
            total += nanos
        for counter_id in orjson.loads(counters):
            counted[counter_id] += amount
        if total != amount:
            findings.add_amount(
                "I-15", subject, expected=amount, found=total, what="the sum of its legs"
            )
        _check_owner(subject, owner, found_owner, ended_at or expires_at, now, findings)
    _compare_held(held, counted, findings)


def check_requests(findings: Findings, *, is_full: bool) -> None:
    """Verify that holds, entries and APIRequests belong together (I-20, I-21)."""
    for (request_id,) in fetch(limited(_HELD_TWICE)):
        findings.add(
            "I-20",
            f"request {as_uuid(request_id)}",
            expected="a hold or an APIRequest",
            found="both",
            message="it is recorded as ended and its hold is still open",
        )
    _check_entries(findings, is_full=is_full)
    if not is_full:
        return
    for request_id, incarnation_id in stream(limited(_STRAY_REQUESTS)):
        findings.add(
            "I-68",
            f"request {as_uuid(request_id)}",
            expected=f"incarnation {incarnation_id}",
            found="none",
            message="it belongs to no chain: its incarnation does not exist",
        )
    for sql in (*_OVERCOUNTS, *_list_overcounted_periods()):
        for counter_id, spent, charged in fetch(limited(sql)):
            findings.add_amount(
                "I-15",
                f"counter {counter_id}",
                expected=int(charged),
                found=spent,
                what="its spending",
            )


def _check_entries(findings: Findings, *, is_full: bool) -> None:
    entries = links_of("account", is_full=is_full)
    stray = (
        _STRAY_ENTRIES.format(
            entries=_WITH_REQUESTS.format(entries=entries), caller_id="request.customer_id"
        )
        if is_full
        else _STRAY_ENTRIES.format(entries=entries, caller_id=_CALLER_OF_NEW)
    )
    for row in stream(limited(stray)):
        request_id, account_id, sequence, amount, owner_id, caller_id = row
        subject = f"account {account_id} entry {sequence}"
        findings.doubt("account", account_id)
        if caller_id is None:
            findings.add(
                "I-20",
                subject,
                expected=f"an APIRequest {as_uuid(request_id)}",
                found="none",
                message=f"{amount} nanos were posted for a request that is not recorded",
            )
        else:
            findings.add(
                "I-21",
                subject,
                expected=f"an account of customer {caller_id}",
                found="one of the operator" if owner_id is None else f"one of customer {owner_id}",
                message=f"{amount} nanos were posted for {as_uuid(request_id)}, a request of "
                f"customer {caller_id}, on an account that is not his",
            )


def _list_overcounted_periods() -> Iterator[str]:
    day = _DAYS[connection.vendor]
    yield _OVERCOUNTED_PERIODS.format(
        scope="user",
        after=len("user:") + 1,
        whose="request.user_id",
        day=day,
        by=f"request.user_id, {day}",
        is_counted="request.user_id IN (SELECT scope_id FROM counted)",
        is_theirs="charged.scope_id = counted.scope_id",
    )
    yield _OVERCOUNTED_PERIODS.format(
        scope="user_group",
        after=len("user_group:") + 1,
        whose="0",
        day=day,
        by=day,
        is_counted="EXISTS (SELECT 1 FROM counted)",
        is_theirs="TRUE",
    )


def _check_owner(
    subject: str,
    owner: int,
    found_owner: int | None,
    dead_at: Any,
    now: datetime,
    findings: Findings,
) -> None:
    if found_owner is None:
        findings.add(
            "I-12",
            subject,
            expected=f"incarnation {owner}",
            found="none",
            message="its owner does not exist",
        )
        return
    dead_for = now - as_moment(dead_at)
    if dead_for > timedelta(seconds=DEAD_SECONDS_MAX):
        findings.orphaned_holds += 1
        if findings.is_just_restored:
            return
        seconds = int(dead_for.total_seconds())
        findings.add(
            "I-12",
            subject,
            expected=f"resolved within {DEAD_SECONDS_MAX} s",
            found=f"open for {seconds} s",
            message=f"its owner, incarnation {owner}, has been dead for {seconds} s",
        )


def _compare_held(held: dict[int, int], counted: dict[int, int], findings: Findings) -> None:
    for account_id, found in stream(
        "SELECT id, held_nanos FROM billing_account WHERE held_nanos <> 0 ORDER BY id"
    ):
        expected = held.pop(account_id, 0)
        if found != expected:
            # Nothing open and yet held: some end did not give back all that it should.
            invariant = "I-15" if expected else "I-19"
            findings.doubt("account", account_id)
            findings.add_amount(
                invariant,
                f"account {account_id}",
                expected=expected,
                found=found,
                what="what is held",
            )
    for account_id, expected in sorted(held.items()):
        if expected:
            findings.doubt("account", account_id)
            findings.add_amount(
                "I-15", f"account {account_id}", expected=expected, found=0, what="what is held"
            )
    for counter_id, found in stream("SELECT id, held_nanos FROM billing_spendcounter ORDER BY id"):
        expected = counted.pop(counter_id, 0)
        if found != expected:
            findings.add_amount(
                "I-15",
                f"counter {counter_id}",
                expected=expected,
                found=found,
                what="what it holds",
            )
    for counter_id, expected in sorted(counted.items()):
        if expected:  # One that holds nothing may have been deleted with its period.
            findings.add_amount(
                "I-15", f"counter {counter_id}", expected=expected, found=0, what="what it holds"
            )


def _database_clock(now: datetime) -> datetime:
    """Return the clock that leases are written by: PostgreSQL's own, on SQLite the caller's."""
    if connection.vendor != "postgresql":
        return now
    ((moment,),) = fetch("SELECT clock_timestamp()")
    return as_moment(moment)
