"""Tests of who may read the bodies of calls, and that every look is on record."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from django.test import Client
from pytest_django import Settings
from rest_framework.test import APIClient

from apps.audit.models import AdminEvent, APIRequest, Payload
from apps.audit.payloads import seal_payload
from apps.users.models import Role, User
from tests.support.calls import record_call
from tests.support.people import make_admin, make_user, rest_client

ASKED, ANSWERED = b'{"model":"small"}', b'data: {"id":1}\n\n'


@pytest.fixture
def owner(db: None) -> User:
    """Return somebody who makes calls."""
    return make_user()


def _call(
    owner: User, asked: bytes = ASKED, answered: bytes = ANSWERED, *, keeps_bodies: bool = True
) -> APIRequest:
    sealed = seal_payload(asked, answered, is_response_truncated=False, keeps_bodies=keeps_bodies)
    row = record_call(user_id=owner.pk, payload_digest=sealed.digest)
    Payload.objects.create(
        request_id=row.pk,
        salt=sealed.salt,
        request_body=sealed.request_body,
        response_body=sealed.response_body,
        is_request_truncated=sealed.is_request_truncated,
        is_response_truncated=sealed.is_response_truncated,
    )
    return row


def _path(row: APIRequest, area: str = "admin") -> str:
    return f"/api/{area}/requests/{row.pk}/payload/"


def _views() -> list[tuple[str, int | None, str]]:
    events = AdminEvent.objects.filter(action__startswith="payload").order_by("id")
    return list(events.values_list("action", "actor_id", "object_id"))


def test_a_look_at_bodies_is_on_record(owner: User) -> None:
    row = _call(owner)
    admin = make_admin()

    answer = rest_client(admin).get(_path(row))

    assert answer.json() == {
        "request_id": str(row.pk),
        "is_intact": True,
        "request": {
            "content_type": "application/json",
            "encoding": "text",
            "content": '{"model":"small"}',
            "stored_bytes": 17,
            "is_truncated": False,
        },
        "response": {
            "content_type": "text/event-stream",
            "encoding": "text",
            "content": 'data: {"id":1}\n\n',
            "stored_bytes": 16,
            "is_truncated": False,
        },
    }
    assert _views() == [("payload.viewed", admin.pk, str(row.pk))]
    assert "small" not in str(AdminEvent.objects.get(action="payload.viewed").after)


@pytest.mark.parametrize(
    ("readers", "role", "expected"),
    [
        ("nobody", Role.ADMIN, (403, "payloads_closed")),
        ("nobody", Role.ANALYST, (403, "payloads_closed")),
        ("admin", Role.ADMIN, (200, None)),
        ("admin", Role.ANALYST, (403, "payloads_closed")),
        ("analyst", Role.ADMIN, (200, None)),
        ("analyst", Role.ANALYST, (200, None)),
        ("analyst", Role.VIEWER, (403, "permission_denied")),
        ("analyst", Role.USER, (403, "permission_denied")),
    ],
)
def test_the_deployment_says_who_reads_other_peoples_bodies(
    owner: User, settings: Settings, readers: str, role: Role, expected: tuple[int, str | None]
) -> None:
    settings.PAYLOAD_READERS = readers
    row = _call(owner)

    answer = rest_client(make_user(role=role)).get(_path(row))

    assert (answer.status_code, answer.json().get("code")) == expected
    assert len(_views()) == (1 if expected[0] == 200 else 0)


def test_without_its_event_nothing_is_shown(owner: User, monkeypatch: pytest.MonkeyPatch) -> None:
    row = _call(owner)
    client = rest_client(make_admin())
    client.raise_request_exception = False

    def fail(**_: Any) -> None:
        raise ValueError("no event")

    monkeypatch.setattr("apps.audit.payload_access.record_event", fail)
    answer = client.get(_path(row))

    assert answer.status_code == 500
    assert b"small" not in answer.content


def test_what_is_not_there_says_why(owner: User) -> None:
    never, erased, digest_only = record_call(), _call(owner), _call(owner, keeps_bodies=False)
    Payload.objects.filter(pk=erased.pk).delete()
    client = rest_client(make_admin())

    codes = [
        (answer.status_code, answer.json()["code"])
        for answer in (client.get(_path(row)) for row in (never, erased, digest_only))
    ]

    assert codes == [
        (404, "payload_not_kept"),
        (404, "payload_erased"),
        (404, "payload_not_kept"),
    ]
    assert _views() == []


@pytest.mark.parametrize(
    ("body", "content_type", "content"),
    [
        (b"", "text/plain", ""),
        (b"\xff\xfe\x00", "application/octet-stream", base64.b64encode(b"\xff\xfe\x00").decode()),
        ("你好".encode(), "text/plain", "你好"),
        (b'  [{"a": 1}]', "application/json", '  [{"a": 1}]'),
        (b"event: ping\n\n", "text/event-stream", "event: ping\n\n"),
    ],
)
def test_bodies_are_text_where_they_are(
    owner: User, body: bytes, content_type: str, content: str
) -> None:
    row = _call(owner, answered=body)

    shown = rest_client(make_admin()).get(_path(row)).json()["response"]

    assert (shown["content_type"], shown["content"]) == (content_type, content)
    assert shown["stored_bytes"] == len(body)


def test_a_character_cut_in_two_does_not_make_a_text_binary(owner: User) -> None:
    row = _call(owner, asked="你".encode() * 100_000)

    shown = rest_client(make_admin()).get(_path(row)).json()["request"]

    assert (shown["encoding"], shown["is_truncated"]) == ("text", True)
    assert shown["content"] == "你" * (262_144 // 3)


def test_other_bodies_than_those_recorded_are_not_intact(owner: User) -> None:
    row = _call(owner)
    Payload.objects.filter(pk=row.pk).delete()
    other = seal_payload(b"forged", b"forged", is_response_truncated=False, keeps_bodies=True)
    Payload.objects.create(
        request_id=row.pk,
        salt=other.salt,
        request_body=other.request_body,
        response_body=other.response_body,
        is_request_truncated=False,
        is_response_truncated=False,
    )
    damaged = record_call(payload_digest=b"1")
    Payload.objects.create(
        request_id=damaged.pk,
        salt=b"",
        request_body=b"no zstd",
        response_body=b"",
        is_request_truncated=False,
        is_response_truncated=False,
    )
    client = rest_client(make_admin())

    assert client.get(_path(row)).json()["is_intact"] is False
    answer = client.get(_path(damaged))
    assert (answer.status_code, answer.json()["code"]) == (409, "payload_damaged")


def test_ones_own_bodies_are_ones_own(owner: User, settings: Settings) -> None:
    settings.PAYLOAD_READERS = "nobody"
    row, digest_only = _call(owner), _call(owner, keeps_bodies=False)
    client, other = rest_client(owner), rest_client(make_user())

    assert client.get(_path(row, "user")).json()["request"]["content"] == '{"model":"small"}'
    missing = client.get(_path(digest_only, "user"))
    assert (missing.status_code, missing.json()["code"]) == (404, "payload_not_kept")
    answers = [other.get(_path(found, "user")) for found in (row, digest_only)]
    assert [answer.json() for answer in answers] == [
        {"detail": "Not found.", "code": "not_found"}
    ] * 2
    assert _views() == []


@pytest.mark.parametrize(("readers", "status"), [("nobody", 403), ("admin", 200)])
def test_the_django_admin_obeys_the_deployment_too(
    owner: User, settings: Settings, readers: str, status: int
) -> None:
    settings.PAYLOAD_READERS = readers
    row = _call(owner)
    client = Client()
    client.force_login(make_admin())

    page = client.get(f"/admin/audit/payload/{row.pk}/change/")

    assert page.status_code == status
    assert (b"small" in page.content) == (status == 200)
    assert len(_views()) == (status == 200)


def test_a_client_without_a_session_reads_no_bodies(owner: User) -> None:
    row = _call(owner)

    assert APIClient().get(_path(row)).status_code == 401
    assert APIClient().get(_path(row, "user")).status_code == 401
