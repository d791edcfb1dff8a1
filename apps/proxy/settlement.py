"""What the end of a call comes to: its charge, its cost, its row, and the bodies that are kept.

Nothing here is done to the ledger; `Call.settle` hands over what is made here.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final, NamedTuple

from apps.audit.models import AnswerSource, RequestState
from apps.audit.payloads import seal_payload
from apps.audit.records import Row, request_row, stored_usage
from apps.billing.ledger.commands import (
    Held,
    PayloadRecord,
    RepeatAnswer,
    Resolve,
    StoredRecord,
)
from apps.billing.pricing import USUAL, Conditions, charge_nanos, charged_tier
from apps.core.usage import Usage
from apps.proxy.admission import Plan
from apps.proxy.attempt_costs import cost_nanos, sum_up
from apps.proxy.dialects.parsed_request import (
    READING_ENDPOINTS,
    WEB_SEARCHES_MAX,
    ParsedRequest,
)
from apps.proxy.dialects.plausibility import Asked, fits
from apps.proxy.endings import Ending
from apps.proxy.snapshot import strictest_payload_mode

if TYPE_CHECKING:
    from apps.proxy.call import Call

_SEAL_IN_LOOP_BYTES: Final = 32 << 10

logger = logging.getLogger(__name__)


class KeptBodies(NamedTuple):
    """The bodies of a call as they are stored, with the digest of what they were."""

    record: PayloadRecord
    digest: bytes


def make_resolve(
    call: Call,
    held: Held,
    ending: Ending,
    kept: KeptBodies | None = None,
    answer: RepeatAnswer | None = None,
    stored: StoredRecord | None = None,
) -> Resolve:
    """Return the command that ends the hold of a call.

    `answer`: what a repeat with the same idempotency key is answered. `stored`: where the answer
    lies that the provider keeps.
    """
    usage = judged(call.with_search(ending.usage), call.plan)
    conditions = conditions_served(call, usage)
    charge = _charge(call, usage, conditions, held.amount_nanos)
    detail: Row = call.detail
    cost: int | None = 0
    if call.cached is None:
        is_known = usage.source != "none" or ending.state == RequestState.COMPLETED
        detail, cost = _cost(call, usage, conditions, is_known=is_known)
    row = request_row(
        detail,
        request_id=call.request_id,
        state=ending.state,
        status_code=ending.status_code,
        error_code=ending.error_code,
        usage=usage,
        cost_nanos=cost,
        hold_nanos=held.amount_nanos,
        duration_ms=int((call.gateway.monotonic() - call.begun) * 1000),
        finish_reason=ending.finish_reason,
        attempt_count=len(call.attempts),
        output_bytes=call.output_bytes,
        ttft_ms=call.ttft_ms,
        upstream_request_id=call.upstream_request_id,
        payload_digest=None if kept is None else kept.digest,
        service_tier=conditions.service_tier,
        answered_from="" if call.cached is None else AnswerSource.CACHE,
    )
    return Resolve(
        request_id=call.request_id,
        wallet_id=call.member.wallet_id,
        receivable_id=call.member.receivable_id,
        legs=held.legs,
        counters=held.counters,
        charge_nanos=charge,
        row=row,
        attempts=tuple(call.attempts),
        payload=None if kept is None else kept.record,
        claim_end=None if call.keyed is None else call.keyed.end(ending, charge, answer),
        stored=stored,
    )


def count_settled(call: Call, ending: Ending, row: Row) -> None:
    """Have the limits, metrics and habits of the process know of a call that ends with this row."""
    gateway, request, usage = call.gateway, call.plan.request, stored_usage(row)
    call.settled_tokens = usage.total_tokens
    if not usage.total_tokens and usage.source != "none":
        # In pieces alone, which limits do not know.
        call.settled_tokens = call.reserved_tokens
    if ending.state == RequestState.COMPLETED and usage.source == "reported":
        gateway.habits.note(call.plan.model.id, usage.output_tokens / request.choices)
    if call.quote_seconds is None:
        gateway.counts.note_call(
            request.endpoint,
            ending.state,
            ending.status_code,
            row["duration_ms"] / 1000,
            call.ttft_ms if request.is_stream else None,
        )
    if usage.is_suspect:
        gateway.counts.suspect_usages.add(str(row["provider_id"]))
        logger.warning(
            "the usage that provider %s reported cannot be true",
            row["provider_name"],
            extra={"request_id": call.request_id},
        )


async def seal_bodies(call: Call) -> KeptBodies | None:
    """Return the bodies of a call ready to be stored, None where none are."""
    modes: tuple[str, ...] = call.payload_modes
    if call.cached is None:
        modes = (*modes, (call.route or call.routes[0]).provider.payload_mode)
    mode = strictest_payload_mode(*modes)
    if mode == "off":
        return None
    request, response = call.body, call.captured_bytes()
    arguments = {
        "is_response_truncated": call.output_bytes > len(response),
        "keeps_bodies": mode == "full",
    }
    if len(request) + len(response) <= _SEAL_IN_LOOP_BYTES:
        sealed = seal_payload(request, response, **arguments)
    else:
        loop = asyncio.get_running_loop()
        sealed = await loop.run_in_executor(
            None, lambda: seal_payload(request, response, **arguments)
        )
    record = PayloadRecord(
        salt=sealed.salt,
        request_body=sealed.request_body,
        response_body=sealed.response_body,
        is_request_truncated=sealed.is_request_truncated,
        is_response_truncated=sealed.is_response_truncated,
    )
    return KeptBodies(record, sealed.digest)


def conditions_served(call: Call, usage: Usage) -> Conditions:
    """Return by what, beside its usage, the call is charged: the tier that was served."""
    plan = call.plan
    if plan.price.terms is None:
        return USUAL
    tier = charged_tier(
        usage,
        plan.price,
        asked=plan.request.service_tier,
        served=served_tier(call),
        started_at=call.started_at,
    )
    return plan.conditions._replace(service_tier=tier)


def served_tier(call: Call) -> str | None:
    """Return the service tier that the provider says it served, None where it says nothing."""
    seen = call.meter or call.answer
    return None if seen is None else seen.service_tier


def judged(usage: Usage, plan: Plan) -> Usage:
    """Return the usage, as suspect where a call with this plan cannot have taken so many tokens."""
    context = plan.model.context_length
    if usage.total_tokens <= context or usage.source != "reported":
        return usage
    request = plan.request
    asked = Asked(
        input_bound=plan.input_bound,
        output_bound=(plan.output_bound + request.beside_bound) * request.choices,
        context_length=context,
        texts=_count_texts(request),
        choices=request.choices,
        searches=WEB_SEARCHES_MAX if request.has_web_search else 0,
    )
    return usage if fits(usage, asked) else usage._replace(is_suspect=True)


# Under which parameter a list of texts stands, where that is not `input`.
_TEXTS: Final = {"batchEmbedContents": "requests", "rerank": "documents"}


def _count_texts(request: ParsedRequest) -> int:
    """Return how many texts are each read for themselves, at most."""
    # A prompt has a choice of its own, and a conversation may be read again for each.
    if request.endpoint not in READING_ENDPOINTS:
        return request.choices
    read = request.body.get(_TEXTS.get(request.endpoint, "input"))
    # Numbers are the tokens of one text.
    return len(read) if isinstance(read, list) and read and not isinstance(read[0], int) else 1


def _charge(call: Call, usage: Usage, conditions: Conditions, held_nanos: int) -> int:
    """Return what the call costs the client.

    Only usage that the provider reported, and that can be true, may exceed the hold.
    """
    if usage.source == "none":
        return 0
    plan = call.plan
    full = charge_nanos(usage, plan.price, plan.access.multiplier_millionths, conditions)
    if usage.source == "reported" and not usage.is_suspect:
        return full
    return min(full, held_nanos)


def _cost(
    call: Call, usage: Usage, conditions: Conditions, *, is_known: bool
) -> tuple[Row, int | None]:
    """Return the columns that the hold keeps with those that say who answered, and what all
    attempts cost; None where that is unknown.
    """
    route = call.route or call.routes[0]
    own = cost_nanos(usage, route, conditions, call.started_at, served=served_tier(call))
    price = None if own is None else route.costs.at(call.started_at)
    detail = call.detail
    if route is not call.routes[0] or price is not None:
        detail = {
            **detail,
            "route_id": route.id,
            "provider_id": route.provider.id,
            "provider_name": route.provider.name,
            "upstream_model": route.upstream_name,
            "cost_version_id": price.id if price else None,
        }
    return detail, sum_up(call.attempts, own, is_known=is_known)
