"""Where answers lie that providers keep, and who may name them.

A row is written for each answer that a provider keeps, and for each of its items, before the answer
ends. Rows of answers that end at the same time are one transaction, in a thread of this module's
own: beside the ledger's, and after it. An answer whose row cannot be written ends all the same,
and cannot be named later.

Bounds: WAITING_MAX answers that wait to be written, WRITE_SECONDS for them, KEPT for a row.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from itertools import chain
from typing import TYPE_CHECKING, Final, NamedTuple

from django.db import (
    DatabaseError,
    InterfaceError,
    close_old_connections,
    connection,
    connections,
    transaction,
)

from apps.core.errors import GatewayError
from apps.proxy.dialects.responses_stored import is_kept, list_named, not_found, out_of_reach
from apps.proxy.models import StoredAnswer
from apps.proxy.route_bodies import NOT_CONVERTED
from apps.proxy.snapshot import Route
from apps.proxy.threads import DeadlineThread

if TYPE_CHECKING:
    from apps.proxy.call import Call
    from apps.proxy.gateway import Gateway

# As long as OpenAI keeps responses.
# Source: https://platform.openai.com/docs/guides/your-data (responses are kept for 30 days)
KEPT: Final = timedelta(days=30)
WRITE_SECONDS: Final = 2.0
WAITING_MAX: Final = 1_000
# In one statement.
_ROWS: Final = 500
_COLUMNS: Final = (
    "digest",
    "provider_id",
    "provider_key_id",
    "user_id",
    "model_id",
    "created_at",
    "expires_at",
)
_VALUES: Final = f"({', '.join(['%s'] * len(_COLUMNS))})"
# Django's own way to say the same takes longer than the database.
_UPSERT: Final = (
    f"INSERT INTO proxy_storedanswer ({', '.join(_COLUMNS)}) VALUES {{}} "  # noqa: S608 (constants)
    f"ON CONFLICT (digest, provider_id) DO UPDATE "
    f"SET {', '.join(f'{name} = excluded.{name}' for name in _COLUMNS[2:])}"
)
# Of those whose time is up, in one transaction and in one run.
PRUNED_ROWS: Final = 1_000
PRUNED_MAX: Final = 1_000_000

logger = logging.getLogger(__name__)


class Place(NamedTuple):
    """In whose account something lies."""

    provider_id: int
    provider_key_id: int


class Kept(NamedTuple):
    """An answer that a provider keeps."""

    ids: tuple[str, ...]  # its own first, then those of its items
    place: Place
    user_id: int
    model_id: int


class StoredAnswers:
    """What one process has to write down of answers. Belongs to the event loop."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Kept, asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None
        self._thread = DeadlineThread("stored answers")

    async def keep(self, kept: Kept) -> None:
        """Write down where an answer lies and return when that is done, or cannot be."""
        if len(self._waiting) >= WAITING_MAX:
            logger.warning("too many stored answers wait: one cannot be named later")
            return
        written = asyncio.get_running_loop().create_future()
        self._waiting.append((kept, written))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_all())
        await written

    def close(self) -> None:
        """Write no more."""
        self._thread.close()

    async def _write_all(self) -> None:
        """Write what waits, and what comes while that is written."""
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                try:
                    await self._thread.run(WRITE_SECONDS, write_twice, [kept for kept, _ in batch])
                except (DatabaseError, InterfaceError, OSError) as error:
                    logger.warning(
                        "%d stored answers cannot be named later: %s",
                        len(batch),
                        type(error).__name__,
                    )
                except Exception:  # a bug, logged whole: no answer may wait for ever
                    logger.exception("stored answers cannot be written down")
                finally:
                    for _, written in batch:
                        if not written.done():
                            written.set_result(None)
        finally:
            self._writing = None


async def keep_answer(call: Call, ids: tuple[str, ...]) -> None:
    """Write down where the answer to a call lies, if its provider keeps it."""
    plan, route = call.plan, call.route
    if route is None or not is_kept(plan.request.body):
        return
    place = Place(route.provider.id, call.attempts[-1]["provider_key_id"])
    await call.gateway.stored.keep(Kept(ids, place, call.member.id, plan.model.id))


async def follow_references(call: Call) -> None:
    """Have a call that names what a provider keeps go there, and with the same key.

    What is converted says all by itself, and may go where it could. Raises E13 where something is
    not there for this caller, E14 for other spellings of what names it, and E34.
    """
    plan = call.plan
    named = list_named(plan.request.body)
    own = [route for route in plan.routes if route.id not in plan.converted]
    if not named or not own:
        return
    ids = {one.id for one in named}
    places = await find_places(call.gateway, call.member.id, ids)
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


async def find_places(
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


def write_twice(answers: Sequence[Kept]) -> None:
    """Write where answers lie, on a new connection where the old one is of no use. Blocks."""
    try:
        write(answers)
    except (DatabaseError, InterfaceError):
        connections.close_all()
        write(answers)


def write(answers: Iterable[Kept]) -> None:
    """Write where answers lie. The latest with an id is meant by it. Blocks."""
    now = datetime.now(UTC)
    rows = {
        (digest, answer.place.provider_id): (
            digest,
            *answer.place,
            answer.user_id,
            answer.model_id,
            now,
            now + KEPT,
        )
        for answer in answers
        for digest in map(digest_of, answer.ids)
    }
    # In one order, so that two gateways cannot wait for each other.
    ordered = [rows[key] for key in sorted(rows)]
    pieces = [ordered[start : start + _ROWS] for start in range(0, len(ordered), _ROWS)]
    # One statement is a transaction by itself: nearly all are one.
    with transaction.atomic() if len(pieces) > 1 else nullcontext(), connection.cursor() as cursor:
        for piece in pieces:
            cursor.execute(_UPSERT.format(", ".join([_VALUES] * len(piece))), list(chain(*piece)))


def forget(user_id: int, response_id: str) -> None:
    """Delete the row of a user's answer. Blocks."""
    try:
        close_old_connections()
        StoredAnswer.objects.filter(digest=digest_of(response_id), user_id=user_id).delete()
    finally:
        close_old_connections()


def prune_stored_answers(*, now: datetime) -> int:
    """Delete the rows whose time is up, some at a time, and return how many."""
    deleted = 0
    rows = StoredAnswer.objects.filter(expires_at__lte=now).order_by("expires_at")
    while deleted < PRUNED_MAX:
        page = list(rows.values_list("pk", flat=True)[:PRUNED_ROWS])
        if not page:
            break
        # Answers with the same id may have come meanwhile.
        gone, _ = StoredAnswer.objects.filter(pk__in=page, expires_at__lte=now).delete()
        deleted += gone
        if not gone:
            break
    return deleted


def digest_of(text: str) -> bytes:
    """Return what stands for an id in the database."""
    return blake2b(text.encode("utf-8", "replace"), digest_size=32).digest()
