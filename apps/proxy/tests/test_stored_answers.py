"""Where answers lie, on a real database."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from django.db import DatabaseError

from apps.proxy import stored_answers, tasks
from apps.proxy.models import StoredAnswer
from apps.proxy.retrieval import find_door
from apps.proxy.snapshot import Catalogue, Credential, Snapshot
from apps.proxy.stored_answers import (
    KEPT,
    Kept,
    Place,
    StoredAnswers,
    digest_of,
    forget,
    pin,
    prune_stored_answers,
    write,
)
from apps.proxy.tests.values import MODEL, ROUTE
from tests.support.databases import Database

HERE = Place(1, 2)


def kept(*ids: str, place: Place = HERE, user_id: int = 7) -> Kept:
    return Kept(ids, place, user_id, model_id=3)


def owners(*ids: str) -> list[tuple[int, int]]:
    rows = StoredAnswer.objects.filter(digest__in=list(map(digest_of, ids)))
    return list(rows.order_by("user_id").values_list("user_id", "provider_key_id"))


@pytest.fixture
def stored(committed_db: Database) -> Iterator[StoredAnswers]:
    """Give the answers of one process."""
    answers = StoredAnswers()
    yield answers
    answers.close()


async def keep_all(stored: StoredAnswers, *answers: Kept) -> None:
    await asyncio.gather(*map(stored.keep, answers))


def test_answers_that_end_together_are_written_together(
    stored: StoredAnswers, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def write_and_note(batch: list[Kept]) -> None:
        sizes.append(len(batch))
        write(batch)

    monkeypatch.setattr(stored_answers, "write", write_and_note)

    asyncio.run(keep_all(stored, *(kept(f"resp_{number}", "rs") for number in range(300))))

    # One alone, and all that came meanwhile; the item that all of them share is one row.
    assert sum(sizes) == 300
    assert len(sizes) <= 2
    assert StoredAnswer.objects.count() == 301


@pytest.mark.django_db
def test_the_latest_answer_with_an_id_is_meant_by_it() -> None:
    write([kept("resp_1", user_id=7)])
    write([kept("resp_1", user_id=8, place=Place(1, 5))])
    write([kept("resp_1", user_id=9, place=Place(2, 6)), kept("resp_2"), kept("resp_2")])

    # Of the first provider's there is but one, whoever had an answer with this id before.
    assert owners("resp_1") == [(8, 5), (9, 6)]
    assert owners("resp_2") == [(7, 2)]


def test_only_the_owner_can_have_it_forgotten(committed_db: Database) -> None:
    write([kept("resp_1")])

    forget(8, "resp_1")
    assert owners("resp_1") == [(7, 2)]
    forget(7, "resp_1")
    assert owners("resp_1") == []


@pytest.mark.django_db
def test_rows_end_by_their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_answers, "PRUNED_ROWS", 2)
    write([kept(*(f"resp_{number}" for number in range(5))), kept("resp_new")])
    now = datetime.now(UTC)
    old = StoredAnswer.objects.exclude(digest=digest_of("resp_new"))
    old.update(expires_at=now - timedelta(seconds=1))

    assert tasks.prune_stored_answers() == 5
    assert owners("resp_new") == [(7, 2)]
    assert StoredAnswer.objects.count() == 1
    assert prune_stored_answers(now=now + KEPT - timedelta(minutes=1)) == 0
    assert prune_stored_answers(now=now + KEPT + timedelta(minutes=1)) == 1


def test_what_cannot_be_written_holds_nobody_up(
    stored: StoredAnswers, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: object) -> None:
        raise DatabaseError("away")

    monkeypatch.setattr(stored_answers, "write", fail)
    with caplog.at_level(logging.WARNING):
        asyncio.run(keep_all(stored, kept("resp_1"), kept("resp_2")))
    monkeypatch.undo()
    asyncio.run(keep_all(stored, kept("resp_3")))

    assert "cannot be named later: DatabaseError" in caplog.text
    assert owners("resp_1", "resp_2") == []
    assert owners("resp_3") == [(7, 2)]


def test_a_connection_that_broke_is_replaced(
    stored: StoredAnswers, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[int] = []

    def fail_once(batch: list[Kept]) -> None:
        tries.append(len(batch))
        if len(tries) == 1:
            raise DatabaseError("the server closed the connection")
        write(batch)

    monkeypatch.setattr(stored_answers, "write", fail_once)
    asyncio.run(keep_all(stored, kept("resp_1")))

    assert tries == [1, 1]
    assert owners("resp_1") == [(7, 2)]


def test_too_many_that_wait_are_not_kept(
    stored: StoredAnswers, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(stored_answers, "WAITING_MAX", 2)

    with caplog.at_level(logging.WARNING):
        asyncio.run(keep_all(stored, kept("resp_1"), kept("resp_2"), kept("resp_3")))

    assert owners("resp_1", "resp_2", "resp_3") == [(7, 2), (7, 2)]
    assert "too many stored answers wait" in caplog.text


def test_a_route_is_pinned_to_the_keys_that_lead_there() -> None:
    others = (Credential(41, 1, "sk-a"), Credential(42, 1, "sk-b"))
    provider = replace(ROUTE.provider, credentials=others)
    route = replace(ROUTE, provider=provider)

    pinned = pin(route, {Place(provider.id, 42), Place(provider.id + 1, 41)})

    assert pinned is not None
    assert pinned.provider.credentials == (others[1],)
    assert pinned.id == route.id
    assert pin(route, {Place(provider.id + 1, 41)}) is None
    assert pin(route, set()) is None


def test_the_model_that_answered_is_asked_first() -> None:
    provider = replace(
        ROUTE.provider, dialect="openai-responses", credentials=(Credential(41, 1, "sk-a"),)
    )
    routes = [replace(ROUTE, id=number, provider=provider) for number in (1, 2, 3)]
    models = {
        f"m{route.id}": replace(MODEL, id=10 + route.id, name=f"m{route.id}", routes=(route,))
        for route in routes
    }
    snapshot = Snapshot(1, {}, {}, {}, Catalogue(models, {}))
    place = Place(provider.id, 41)

    def route_of(places: dict[Place, int]) -> int | None:
        door = find_door(snapshot, places)
        return None if door is None else door[0].id

    assert route_of({place: 12}) == 2
    assert route_of({place: 99}) == 1
    assert route_of({Place(provider.id, 42): 12}) is None
    assert route_of({}) is None
