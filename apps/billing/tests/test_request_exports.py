"""Tests of exports: each call once, no formulas, bounded, on record, and ended where the client is
gone.

Over 400 lines because a file is followed from who asks for it to who leaves it.
"""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, cast
from uuid import UUID

import orjson
import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.core.signals import request_finished
from django.db import close_old_connections
from django.db.models import Sum
from django.http import StreamingHttpResponse
from django.test import AsyncClient
from django.utils import timezone
from rest_framework.test import APIClient

from apps.audit import export
from apps.audit.models import AdminEvent
from apps.billing.ledger.commands import Held
from apps.billing.models import Account, AccountKind
from apps.core.ids import new_uuid7
from apps.users.models import Role, User
from apps.users.tokens import open_session
from tests.support.calls import make_call, record_call
from tests.support.people import make_admin, make_user, rest_client
from tests.support.world import DOLLAR, Gateway, World, django_engine, make_world

ALL = "/api/admin/requests/export/"
OWN = "/api/user/requests/export/"


@pytest.fixture
def analyst(db: None) -> User:
    """Return an analyst."""
    return make_user(role=Role.ANALYST, username="ana")


@pytest.fixture(autouse=True)
def _no_place_is_kept() -> Iterator[None]:
    """Check that every export gives its place back."""
    yield
    assert export._places.user_ids == set()


@pytest.fixture(autouse=True)
def _connections_stay() -> Iterator[None]:
    """Keep the connection of the test when an answer that was streamed is closed."""
    request_finished.disconnect(close_old_connections)
    yield
    request_finished.connect(close_old_connections)


def _headers(user: User) -> dict[str, str]:
    return {"Authorization": f"Bearer {open_session(user=user, request=None).access}"}


def _read(user: User, path: str) -> tuple[int, Any, bytes]:
    """Return status, headers and body of an answer, read as an ASGI server reads it."""
    headers = _headers(user)

    async def read() -> tuple[int, Any, bytes]:
        answer: Any = await AsyncClient().get(path, headers=headers)
        if not answer.streaming:
            return answer.status_code, answer.headers, answer.content
        return answer.status_code, answer.headers, b"".join([piece async for piece in answer])

    return async_to_sync(read)()


def _rows(user: User, path: str) -> list[dict[str, Any]]:
    status, _, body = _read(user, path)
    assert status == 200, body
    return [orjson.loads(line) for line in body.splitlines()]


def _events() -> list[tuple[str, Any]]:
    events = AdminEvent.objects.filter(action__startswith="requests.").order_by("id")
    return list(events.values_list("action", "after"))


def _call_settled_late(world: World) -> UUID:
    """Make a call that somebody else ended for 0.2 USD, and whose owner came with 0.7."""
    gateway = Gateway(world, django_engine())
    held = gateway.hold(DOLLAR // 2)
    assert isinstance(held, Held)
    gateway.resolve(held, 200_000, usage_source="checkpoint", state="interrupted")
    gateway.resolve(held, 700_000)
    return held.request_id


def test_files_and_lists_add_up_to_what_the_ledger_took(analyst: User) -> None:
    world = make_world(DOLLAR // 2)  # Of the late charge 0.2 USD are owed.
    request_id = _call_settled_late(world)
    record_call(charge_nanos=0, user_id=world.user.pk, minutes_ago=10**6)

    paths = {ALL: analyst, OWN: world.user}
    files = [_rows(user, f"{path}?format=jsonl") for path, user in paths.items()]
    _, _, table = _read(world.user, OWN)
    lists = [
        rest_client(user).get(path.removesuffix("export/")).json()["results"]
        for path, user in paths.items()
    ]
    details = [
        rest_client(user).get(f"{path.removesuffix('export/')}{request_id}/").json()
        for path, user in paths.items()
    ]

    for rows in (*files, *lists):
        shown = [(row["charge"], row["late_charges"]) for row in rows]
        assert shown == [("0.2", "0.5"), ("0", "0")]
    assert files == lists
    assert [(row["charge"], row["late_charges"]) for row in details] == [("0.2", "0.5")] * 2
    late = [row["late_charges"] for row in csv.DictReader(io.StringIO(table.decode()))]
    assert late == ["0.5", "0"]
    revenue = Account.objects.filter(kind=AccountKind.REVENUE).aggregate(all=Sum("posted_nanos"))
    assert int(revenue["all"]) == 700_000_000


def test_json_lines_say_what_the_list_says(analyst: User) -> None:
    for number in range(3):
        record_call(
            minutes_ago=number,
            charge_nanos=1_234_567,
            cost_nanos=None if number else 5,
            payload_digest=b"\x0f" * 32,
            ttft_ms=number or None,
        )

    listed = rest_client(analyst).get("/api/admin/requests/").json()["results"]

    assert _rows(analyst, f"{ALL}?format=jsonl") == listed


def test_csv_is_a_header_and_a_line_for_each_call(analyst: User) -> None:
    record_call(user_name='say "hi", all\nof you', cost_nanos=None, is_stream=True)

    status, headers, body = _read(analyst, ALL)

    assert (status, headers["Content-Type"]) == (200, "text/csv; charset=utf-8")
    assert headers["Content-Disposition"].startswith('attachment; filename="requests-')
    assert headers["Cache-Control"] == "no-store"
    header, row = csv.reader(io.StringIO(body.decode(), newline=""))
    listed = rest_client(analyst).get("/api/admin/requests/").json()["results"][0]
    assert header == list(listed)
    shown = dict(zip(header, row, strict=True))
    assert shown["user_name"] == 'say "hi", all\nof you'
    assert (shown["cost"], shown["charge"], shown["is_stream"]) == ("", "0.000000001", "true")
    assert b'"say ""hi"", all\nof you"' in body
    assert body.endswith(b"\r\n")


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", "＝"])
def test_no_text_is_a_formula_in_a_spreadsheet(analyst: User, start: str) -> None:
    record_call(
        user_name=f"{start}1", requested_model=f"{start}cmd|' /C calc'!A0", user_agent="a=1"
    )

    _, _, body = _read(analyst, ALL)

    shown = next(csv.DictReader(io.StringIO(body.decode(), newline="")))
    assert shown["user_name"] == f"'{start}1"
    assert shown["requested_model"] == f"'{start}cmd|' /C calc'!A0"
    assert (shown["user_agent"], shown["charge"], shown["status_code"]) == (
        "a=1",
        "0.000000001",
        "200",
    )
    assert _rows(analyst, f"{ALL}?format=jsonl")[0]["user_name"] == f"{start}1"


def test_texts_lose_nul_before_they_are_looked_at() -> None:
    line = export.write_csv(["user_name", "charge"], [["\x00=1", -5]])

    assert line == b"'=1,-0.000000005\r\n"


def test_an_export_is_on_record_with_its_filters_and_its_end(analyst: User) -> None:
    for _ in range(3):
        record_call(user_id=7)
    record_call(user_id=8)

    rows = _rows(analyst, f"{ALL}?format=jsonl&user=7&started_after=2020-01-01T00:00:00Z")

    assert len(rows) == 3
    begun = AdminEvent.objects.get(action="requests.exported")
    assert begun.actor_id == analyst.pk
    assert _events() == [
        (
            "requests.exported",
            {
                "format": "jsonl",
                "filters": {"user": "7", "started_after": "2020-01-01T00:00:00Z"},
            },
        ),
        ("requests.export_ended", {"event": begun.pk, "rows": 3, "is_complete": True}),
    ]


def test_each_call_is_exported_once_whatever_is_recorded_meanwhile(
    analyst: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also calls of the same moment, across pages (I-65)."""
    monkeypatch.setattr(export, "PAGE_ROWS", 2)
    at = timezone.now()
    ids = sorted(new_uuid7() for _ in range(12))
    there = [ids[i] for i in (1, 3, 5, 7, 9, 11)]
    for key in there:
        record_call(id=key, started_at=at)
    headers = _headers(analyst)

    async def read() -> list[str]:
        answer = await AsyncClient().get(f"{ALL}?format=jsonl", headers=headers)
        seen: list[str] = []
        async for piece in cast(StreamingHttpResponse, answer):
            if not seen:
                for key, minutes in ((ids[0], 0), (ids[8], 0), (ids[10], 0), (new_uuid7(), 1)):
                    row = make_call(id=key, started_at=at + timedelta(minutes=minutes))
                    await row.asave(force_insert=True)
            seen += [orjson.loads(line)["id"] for line in piece.splitlines()]
        return seen

    seen = async_to_sync(read)()

    assert len(seen) == len(set(seen))
    assert {str(key) for key in there} <= set(seen)
    assert str(ids[10]) not in seen


def test_more_calls_than_a_file_takes_are_refused(
    analyst: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "ROWS_MAX", 2)
    for user_id in (7, 7, 8):
        record_call(user_id=user_id)

    status, _, body = _read(analyst, ALL)

    assert (status, orjson.loads(body)["code"]) == (400, "export_too_large")
    assert _events() == []
    assert len(_rows(analyst, f"{ALL}?format=jsonl&user=7")) == 2


def test_a_file_that_grows_beyond_its_bound_breaks_off(
    analyst: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "PAGE_ROWS", 1)
    monkeypatch.setattr(export, "PAGES_MAX", 2)
    for _ in range(3):
        record_call()

    with pytest.raises(export.ExportUnfinished):
        _read(analyst, ALL)

    assert _events()[1][1]["is_complete"] is False
    assert _events()[1][1]["rows"] == 2


def test_a_file_that_takes_too_long_breaks_off(
    analyst: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "EXPORT_SECONDS_MAX", 0.0)
    record_call()

    with pytest.raises(export.ExportUnfinished):
        _read(analyst, ALL)

    assert _events()[1][1]["is_complete"] is False
    assert _events()[1][1]["rows"] == 0


def test_a_file_that_is_whole_when_its_time_is_up_is_whole(
    analyst: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "EXPORT_SECONDS_MAX", 0.0)

    status, _, _ = _read(analyst, ALL)

    assert status == 200
    assert _events()[1][1]["is_complete"] is True


async def _begin(user: User, path: str) -> Any:
    """Return an answer of which nothing is read."""
    headers = await sync_to_async(_headers)(user)
    return await AsyncClient().get(path, headers=headers)


async def _statuses(*asked: tuple[User, str]) -> list[int]:
    """Ask for several exports before any is read, and return their statuses."""
    answers = [await _begin(user, path) for user, path in asked]
    for answer in answers:
        await sync_to_async(answer.close)()
    return [answer.status_code for answer in answers]


def test_a_second_export_of_one_user_at_once_is_busy(analyst: User) -> None:
    record_call()

    async def read() -> tuple[Any, list[int]]:
        first = await _begin(analyst, ALL)
        second = await _begin(analyst, OWN)
        assert [piece async for piece in cast(StreamingHttpResponse, first)]
        return second, await _statuses((analyst, ALL))

    second, after = async_to_sync(read)()

    assert (second.status_code, second.json()["code"]) == (429, "busy")
    assert second["Retry-After"] == "10"
    assert after == [200]


def test_users_leave_a_place_to_who_exports_the_calls_of_all(analyst: User) -> None:
    users = [make_user() for _ in range(3)]
    boss = make_admin()

    found = async_to_sync(_statuses)(
        *((user, OWN) for user in users), (analyst, OWN), (analyst, ALL), (boss, ALL)
    )

    assert found == [200, 200, 429, 429, 200, 429]


def test_a_client_that_leaves_ends_its_export(
    analyst: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "PAGE_ROWS", 1)
    for _ in range(5):
        record_call()
    headers = _headers(analyst)

    async def leave() -> None:
        answer = cast(StreamingHttpResponse, await AsyncClient().get(ALL, headers=headers))
        pieces = aiter(answer)
        for _ in range(3):
            await anext(pieces)
        await sync_to_async(answer.close)()

    async_to_sync(leave)()

    assert _events()[1][1]["is_complete"] is False
    assert _events()[1][1]["rows"] == 1


def test_a_client_that_does_not_read_is_not_waited_for(
    analyst: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "_PAGE_SECONDS", 0.01)
    record_call()
    headers = _headers(analyst)

    async def dawdle() -> None:
        answer = cast(StreamingHttpResponse, await AsyncClient().get(ALL, headers=headers))
        try:
            async for piece in answer:
                if b"tests" in piece:
                    await asyncio.sleep(10)
        finally:
            await sync_to_async(answer.close)()

    async def be_cancelled() -> bool:
        try:
            await dawdle()
        except asyncio.CancelledError:
            return True
        return False

    assert async_to_sync(be_cancelled)()
    assert _events()[1][1]["is_complete"] is False


@pytest.mark.sqlite  # Refused before any statement runs.
@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("format=xlsx", "format"),
        ("format=api", "format"),
        ("user=x", "user"),
        ("fields=id", "fields"),
        ("ordering=id", "ordering"),
        ("user=1&user=2", "user"),
    ],
)
def test_a_bad_export_is_refused_by_name(analyst: User, query: str, name: str) -> None:
    status, _, body = _read(analyst, f"{ALL}?{query}")

    assert (status, list(orjson.loads(body))) == (400, [name])
    assert _events() == []


def test_an_export_reaches_further_back_than_a_search(analyst: User) -> None:
    old = record_call(started_at=timezone.now() - timedelta(days=400), finish_reason="length")

    assert [row["id"] for row in _rows(analyst, f"{ALL}?format=jsonl&finish_reason=length")] == [
        str(old.pk)
    ]


def test_other_methods_and_other_roles_get_no_file(analyst: User) -> None:
    viewer = rest_client(make_user(role=Role.VIEWER))

    assert rest_client(analyst).head(ALL).status_code == 405
    assert rest_client(make_admin()).post(ALL, {}).status_code == 405
    assert viewer.get(ALL).status_code == 403
    assert APIClient().get(ALL).status_code == 401
    assert rest_client(make_admin()).options(ALL).status_code == 200


def test_ones_own_export_has_ones_own_calls_and_columns_only(db: None) -> None:
    ada, bob = make_user(), make_user()
    mine = record_call(user_id=ada.pk, provider_id=5, cost_nanos=7)
    record_call(user_id=bob.pk)

    rows = _rows(ada, f"{OWN}?format=jsonl")
    listed = rest_client(ada).get("/api/user/requests/").json()["results"]

    assert [row["id"] for row in rows] == [str(mine.pk)]
    assert rows == listed
    assert not {name for name in rows[0] if "provider" in name or "cost" in name}
    assert _events() == []
