"""What is checked when everything is healed: the database's log, and each promise about money."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Final
from uuid import UUID

import orjson
from django.db.models import Sum

from apps.audit.models import APIRequest, Attempt, RequestState
from apps.billing.late_records import read_reason
from apps.billing.models import Account, Entry
from tests.faults.site import Payer, Site, paid_by_call
from tests.nemesis.join import Recorded, Upstream, read_upstream
from tests.nemesis.keyed import AGENT
from tests.support.processes import wait_until

_LOG_QUIET_SECONDS: Final = 1.0
_LOG_SECONDS_MAX: Final = 30.0
_STATES: Final = frozenset(RequestState.values)


def read_recorded() -> dict[UUID, Recorded]:
    """Return all calls that are on record."""
    late: Counter[UUID] = Counter()
    sources: dict[UUID, str] = {}
    entries = Entry.objects.filter(kind="late", account__kind__in=("wallet", "receivable"))
    for request_id, nanos, reason in entries.values_list(
        "request_id", "amount_nanos", "transaction__reason"
    ):
        assert request_id is not None
        late[request_id] -= nanos
        sources[request_id] = (read_reason(reason) or {}).get("usage_source", "")
    attempts: defaultdict[UUID, list[tuple[str, str]]] = defaultdict(list)
    for request_id, identifier, model in Attempt.objects.order_by("number").values_list(
        "request_id", "upstream_request_id", "upstream_model"
    ):
        attempts[request_id].append((identifier, model))
    return {
        row.pk: Recorded(
            state=row.state,
            usage_source=row.usage_source,
            is_suspect=row.is_usage_suspect,
            charge_nanos=row.charge_nanos,
            hold_nanos=row.hold_nanos,
            attempt_count=row.attempt_count,
            error_code=row.error_code,
            late_nanos=late[row.pk],
            late_source=sources.get(row.pk, ""),
            attempt_ids=tuple(identifier for identifier, _ in attempts[row.pk]),
            attempt_models=tuple(model for _, model in attempts[row.pk]),
            user_id=row.user_id,
            key=row.user_agent.removeprefix(AGENT) if row.user_agent.startswith(AGENT) else "",
        )
        for row in APIRequest.objects.iterator()
    }


def read_provider(site: Site) -> dict[UUID, list[Upstream]]:
    """Return all calls that reached the provider, when the last of them has ended."""
    sizes = [(-1, time.monotonic())]

    def is_quiet() -> bool:
        size, since = sizes[-1]
        now = site.log.stat().st_size
        if now != size:
            sizes.append((now, time.monotonic()))
        return now == size and time.monotonic() - since > _LOG_QUIET_SECONDS

    wait_until(is_quiet, timeout_seconds=_LOG_SECONDS_MAX, what="the end of the provider's calls")
    return read_upstream(orjson.loads(line) for line in site.log.read_bytes().splitlines())


def check_records(recorded: Mapping[UUID, Recorded]) -> list[str]:
    """Return what is wrong with records on their own."""
    problems = [f"{key} is in no final state: {row}" for key, row in recorded.items()
                if row.state not in _STATES]  # fmt: skip
    paid = paid_by_call()
    for request_id in paid.keys() | recorded.keys():
        row = recorded.get(request_id)
        if row is None or paid[request_id] != row.paid_nanos:
            problems.append(f"{request_id} has paid {paid[request_id]}, the record says {row}")
    return problems


def check_balance(payer: Payer, paid_in_nanos: int) -> list[str]:
    """Return a problem where a payer's balance is not what was paid in less what was charged."""
    accounts = Account.objects.filter(customer_id=payer.customer_id)
    balance = accounts.aggregate(sum=Sum("posted_nanos"))["sum"]
    charges = Entry.objects.filter(
        account__customer_id=payer.customer_id, request_id__isnull=False
    ).aggregate(sum=Sum("amount_nanos"))["sum"]
    expected = paid_in_nanos + (charges or 0)
    if balance != expected:
        return [f"customer {payer.customer_id} has {balance}, not {expected}"]
    return []


def check_cap(payer: Payer, cap_nanos: int, recorded: Iterable[Recorded]) -> list[str]:
    """Return a problem where more was spent than a cap allows.

    What is settled late had been given up, so that others could spend what it held.
    """
    rows = [row for row in recorded if row.user_id == payer.user_id]
    spent = sum(row.charge_nanos for row in rows)
    if spent > cap_nanos:
        return [f"customer {payer.customer_id} has spent {spent}, at most {cap_nanos}"]
    return []


def check_site(site: Site) -> list[str]:
    """Return what the ledger's own verification finds, and what is still held."""
    problems = []
    for check in (site.check_that_nothing_is_held, site.verify):
        try:
            check()
        except AssertionError as error:
            problems.append(f"{check.__name__}: {error}")
    return problems
