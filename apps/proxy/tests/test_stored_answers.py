"""Where answers lie, on a real database; `apps/billing/tests` has how the rows come there."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from apps.audit.models import StoredAnswer
from apps.proxy import stored_answers, tasks
from apps.proxy.retrieval import find_door
from apps.proxy.snapshot import Catalogue, Credential, Snapshot
from apps.proxy.stored_answers import (
    KEPT,
    Place,
    digest_of,
    forget,
    pin,
    prune_stored_answers,
)
from apps.proxy.tests.values import MODEL, ROUTE
from tests.support.databases import Database


def write(*ids: str) -> None:
    """Write rows of answers that have just ended, of user 7 with key 2 of provider 1."""
    now = datetime.now(UTC)
    StoredAnswer.objects.bulk_create(
        StoredAnswer(
            digest=digest_of(one),
            provider_id=1,
            provider_key_id=2,
            user_id=7,
            model_id=3,
            created_at=now,
            expires_at=now + KEPT,
        )
        for one in ids
    )


def owners(*ids: str) -> list[tuple[int, int]]:
    rows = StoredAnswer.objects.filter(digest__in=list(map(digest_of, ids)))
    return list(rows.order_by("user_id").values_list("user_id", "provider_key_id"))


def test_only_the_owner_can_have_it_forgotten(committed_db: Database) -> None:
    write("resp_1")

    forget(8, "resp_1")
    assert owners("resp_1") == [(7, 2)]
    forget(7, "resp_1")
    assert owners("resp_1") == []


@pytest.mark.django_db
def test_rows_end_by_their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_answers, "PRUNED_ROWS", 2)
    write(*(f"resp_{number}" for number in range(5)), "resp_new")
    now = datetime.now(UTC)
    old = StoredAnswer.objects.exclude(digest=digest_of("resp_new"))
    old.update(expires_at=now - timedelta(seconds=1))

    assert tasks.prune_stored_answers() == 5
    assert owners("resp_new") == [(7, 2)]
    assert StoredAnswer.objects.count() == 1
    assert prune_stored_answers(now=now + KEPT - timedelta(minutes=1)) == 0
    assert prune_stored_answers(now=now + KEPT + timedelta(minutes=1)) == 1


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
