"""Where answers lie that providers keep, and who may name them.

A row for each answer that a provider keeps, and for each of its items, is written by the ledger
with the settlement of the call, and so before the answer ends.

Bounds: KEPT for a row, PRUNED_ROWS and PRUNED_MAX for a sweep.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, NamedTuple

from django.db import DatabaseError, InterfaceError, close_old_connections

from apps.audit.models import StoredAnswer
from apps.billing.ledger.commands import StoredRecord
from apps.core.errors import GatewayError
from apps.core.pieces import delete_in_pieces
from apps.proxy.dialects.openai_spoken import list_spoken
from apps.proxy.dialects.parsed_request import ParsedRequest
from apps.proxy.dialects.responses_stored import is_kept, list_named, not_found, out_of_reach
from apps.proxy.route_bodies import NOT_CONVERTED
from apps.proxy.snapshot import Route

if TYPE_CHECKING:
    from apps.proxy.call import Call
    from apps.proxy.gateway import Gateway

# As long as OpenAI keeps responses.
# Source: https://platform.openai.com/docs/guides/your-data (responses are kept for 30 days)
KEPT: Final = timedelta(days=30)
# Of those whose time is up, in one transaction and in one run.
PRUNED_ROWS: Final = 1_000
PRUNED_MAX: Final = 1_000_000


class Place(NamedTuple):
    """In whose account something lies."""

    provider_id: int
    provider_key_id: int


def stored_record(call: Call, ids: tuple[str, ...]) -> StoredRecord | None:
    """Return what is written down of the answer to a call, None where its provider does not keep
    it. `ids`: its own first, then those of its items.
    """
    plan, route = call.plan, call.route
    if route is None:
        return None
    # What is spoken in a chat is always kept.
    if plan.request.dialect == "openai-responses" and not is_kept(plan.request.body):
        return None
    now = datetime.now(UTC)
    return StoredRecord(
        digests=tuple(map(digest_of, ids)),
        provider_id=route.provider.id,
        provider_key_id=call.attempts[-1]["provider_key_id"],
        user_id=call.member.id,
        model_id=plan.model.id,
        created_at=now,
        expires_at=now + KEPT,
    )


def may_name_answers(request: ParsedRequest) -> bool:
    """Return whether a request can name what a provider keeps: responses, and what was spoken."""
    is_spoken = request.dialect == "openai" and request.has_audio
    return is_spoken or request.dialect == "openai-responses"


async def follow_references(call: Call) -> None:
    """Have a call that names what a provider keeps go there, and with the same key.

    What is converted says all by itself, and may go where it could. Raises E13 where something is
    not there for this caller, E14 for other spellings of what names it, and E34.
    """
    plan = call.plan
    listing = list_spoken if plan.request.dialect == "openai" else list_named
    named = await call.gateway.body_work.run(
        call.member.id, len(call.body), listing, plan.request.body
    )
    own = [route for route in plan.routes if route.id not in plan.converted]
    if not named or not own:
        return
    ids = {one.id for one in named}
    places = await list_places(call.gateway, call.member.id, ids)
    common = set.intersection(*(set(places.get(one, ())) for one in ids))
    pinned = [found for route in own if (found := pin(route, common)) is not None]
    if pinned:
        call.plan = plan._replace(routes=pinned, converted=NOT_CONVERTED)
        return
    others = [route for route in plan.routes if route.id in plan.converted]
    if others:
        call.plan = plan._replace(routes=others)
        return
    unknown = next((one for one in named if one.id not in places), None)
    raise out_of_reach(named[0]) if unknown is None else not_found(unknown)


def pin(route: Route, places: Collection[Place]) -> Route | None:
    """Return a route with those keys alone in whose accounts something lies, None without any."""
    provider = route.provider
    credentials = tuple(one for one in provider.credentials if (provider.id, one.id) in places)
    if not credentials:
        return None
    return replace(route, provider=replace(provider, credentials=credentials))


# ---- the database


async def list_places(
    gateway: Gateway, user_id: int, ids: Collection[str]
) -> dict[str, dict[Place, int]]:
    """Return where a user's answers and items lie, by id, with the model that answered; what is
    not his is not there.

    Raises E34.
    """
    try:
        return await gateway.read(_read_places, user_id, ids, datetime.now(UTC))
    except (DatabaseError, InterfaceError) as error:
        raise GatewayError("E34") from error


def _read_places(user_id: int, ids: Collection[str], now: datetime) -> dict[str, dict[Place, int]]:
    """Blocks."""
    digests = {digest_of(one): one for one in ids}
    try:
        close_old_connections()
        found: dict[str, dict[Place, int]] = {}
        rows = StoredAnswer.objects.filter(
            digest__in=digests, user_id=user_id, expires_at__gt=now
        ).values_list("digest", "provider_id", "provider_key_id", "model_id")
        for digest, provider_id, key_id, model_id in rows:
            places = found.setdefault(digests[bytes(digest)], {})
            places[Place(provider_id, key_id)] = model_id
        return found
    finally:
        close_old_connections()


def forget(user_id: int, response_id: str) -> None:
    """Delete the row of a user's answer. Blocks."""
    try:
        close_old_connections()
        StoredAnswer.objects.filter(digest=digest_of(response_id), user_id=user_id).delete()
    finally:
        close_old_connections()


def prune_stored_answers(*, now: datetime) -> int:
    """Delete the rows whose time is up, some at a time, and return how many."""
    # Answers with the same id may come meanwhile: their time is not up any more then.
    rows = StoredAnswer.objects.filter(expires_at__lte=now).order_by("expires_at")
    return delete_in_pieces(rows, size=PRUNED_ROWS, rows_max=PRUNED_MAX)


def digest_of(text: str) -> bytes:
    """Return what stands for an id in the database."""
    return blake2b(text.encode("utf-8", "replace"), digest_size=32).digest()
