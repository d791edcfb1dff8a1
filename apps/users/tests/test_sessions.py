"""Tests of one's own sessions over REST, and of tokens that nobody gave out."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import jwt
import pytest
from django.conf import settings as django_settings
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries, Settings
from rest_framework.test import APIClient
from rest_framework_simplejwt.state import token_backend

from apps.audit.models import AdminEvent
from apps.core.ids import new_uuid7
from apps.users.models import Session, User
from apps.users.tokens import TokenRefused, open_session, rotate
from tests.support.people import PASSWORD, make_user, rest_client

PATH = "/api/auth/sessions/"


@pytest.fixture
def ada(db: None) -> User:
    """Return a user."""
    return make_user(username="ada")


def test_one_sees_where_one_is_signed_in(
    ada: User, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    client = rest_client(ada)
    for _ in range(3):
        rest_client(ada)
    rest_client(make_user())
    Session.objects.filter(pk=Session.objects.filter(user=ada).earliest("pk").pk).update(
        ip_address="192.0.2.1", user_agent="Firefox"
    )

    with django_assert_num_queries(3):
        answer = client.get(PATH)

    rows = answer.json()["results"]
    assert answer.json()["count"] == 4
    assert set(rows[0]) == {"id", "created_at", "ip_address", "user_agent", "is_current"}
    assert [row["is_current"] for row in rows] == [False, False, False, True]
    assert (rows[3]["ip_address"], rows[3]["user_agent"]) == ("192.0.2.1", "Firefox")


@pytest.mark.parametrize("end", ["ended", "expired", "password"])
def test_a_session_that_is_over_is_not_listed(ada: User, end: str) -> None:
    client = rest_client(ada)
    open_session(user=ada, request=None)
    other = Session.objects.filter(user=ada).latest("pk")
    now = timezone.now()
    changes: dict[str, dict[str, Any]] = {
        "ended": {"ended_at": now},
        "expired": {"expires_at": now - timedelta(seconds=1)},
        "password": {"auth_hash": "of an old password"},
    }
    Session.objects.filter(pk=other.pk).update(**changes[end])

    assert client.get(PATH).json()["count"] == 1


def test_one_ends_a_session_elsewhere(ada: User) -> None:
    elsewhere, here = rest_client(ada), rest_client(ada)
    session = Session.objects.filter(user=ada).earliest("pk")

    answer = here.delete(f"{PATH}{session.pk}/")

    assert answer.status_code == 204
    assert elsewhere.get(PATH).status_code == 401
    assert here.get(PATH).json()["count"] == 1
    event = AdminEvent.objects.get(action="session.ended")
    assert (event.actor_id, event.object_id) == (ada.pk, str(session.pk))
    assert here.delete(f"{PATH}{session.pk}/").status_code == 404


def test_a_session_of_somebody_else_is_not_there(ada: User) -> None:
    client, other = rest_client(ada), make_user()
    open_session(user=other, request=None)
    session = Session.objects.get(user=other)

    foreign = client.delete(f"{PATH}{session.pk}/")
    missing = client.delete(f"{PATH}{new_uuid7()}/")

    assert (foreign.status_code, foreign.content) == (404, missing.content)
    assert Session.objects.get(user=other).ended_at is None


def test_sign_ins_are_counted_by_address(db: None, settings: Settings) -> None:
    settings.API_RPM_PER_ADDRESS = 1
    client = APIClient(REMOTE_ADDR="192.0.2.9")
    body = {"username": "nobody", "password": "wrong"}

    # Three, because a new minute may begin between two of them.
    answers = [client.post("/api/auth/login/", body) for _ in range(3)]

    assert answers[0].status_code == 401
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.json()["code"] == "throttled"
    assert int(refused.headers["Retry-After"]) <= 60


def test_signing_in_leaves_its_time(db: None) -> None:
    ada = make_user(username="ada", password=PASSWORD)
    assert ada.last_login is None

    APIClient().post("/api/auth/login/", {"username": "ada", "password": PASSWORD})

    ada.refresh_from_db()
    assert ada.last_login is not None


def _forged(claims: dict[str, Any], **how: Any) -> str:
    # The key that the library really signs with, so that the control below is one.
    key = how.pop("key", token_backend.signing_key)
    return jwt.encode(claims, key, **{"algorithm": "HS256", **how})


def test_a_token_that_is_not_exactly_ours_is_refused(ada: User) -> None:
    access = open_session(user=ada, request=None).access
    claims = jwt.decode(access, options={"verify_signature": False})
    now = int(timezone.now().timestamp())
    forgeries = {
        "unsigned": jwt.encode(claims, "", algorithm="none"),
        "of another key": _forged(claims, key="k" * 32),
        "of the secret key": _forged(claims, key=django_settings.SECRET_KEY),
        "of another algorithm": _forged(claims, algorithm="HS512"),
        "of an empty key id": _forged(claims, key="k" * 32, headers={"kid": "../../dev/null"}),
        "expired": _forged({**claims, "exp": now - 61}),
        "not yet valid": _forged({**claims, "nbf": now + 600}),
        "of another type": _forged({**claims, "token_type": "refresh"}),
        "of no type": _forged({name: claims[name] for name in claims if name != "token_type"}),
        "of no session": _forged({name: claims[name] for name in claims if name != "sid"}),
        "of a strange session": _forged({**claims, "sid": str(new_uuid7())}),
        "of a malformed session": _forged({**claims, "sid": {"$ne": None}}),
        "of a changed payload": ".".join(
            [access.split(".")[0], _forged({**claims, "x": 1}).split(".")[1], access.split(".")[2]]
        ),
    }

    statuses = {
        name: APIClient().get(PATH, headers={"Authorization": f"Bearer {token}"}).status_code
        for name, token in forgeries.items()
    }

    assert statuses == dict.fromkeys(forgeries, 401)
    own = APIClient().get(PATH, headers={"Authorization": f"Bearer {_forged(claims)}"})
    assert own.status_code == 200, own.content


def test_a_user_id_in_the_token_does_not_count(ada: User) -> None:
    other = make_user()
    access = open_session(user=ada, request=None).access
    claims = jwt.decode(access, options={"verify_signature": False})

    answer = APIClient().get(
        "/api/user/profile/",
        headers={"Authorization": f"Bearer {_forged({**claims, 'user_id': str(other.pk)})}"},
    )

    assert answer.json()["id"] == ada.pk


def _age(session: Session, days: float) -> None:
    Session.objects.filter(pk=session.pk).update(created_at=timezone.now() - timedelta(days=days))


def test_renewing_ends_thirty_days_after_the_sign_in(ada: User) -> None:
    tokens = open_session(user=ada, request=None)
    session = Session.objects.get(user=ada)
    _age(session, 25)
    session.refresh_from_db()

    rotated = rotate(refresh=tokens.refresh, request=None)

    found = Session.objects.get(user=ada)
    assert found.expires_at == session.created_at + timedelta(days=30)
    _age(session, 30)
    with pytest.raises(TokenRefused):
        rotate(refresh=rotated.refresh, request=None)


def test_a_session_of_thirty_days_is_over_whatever_its_tokens_say(ada: User) -> None:
    client = rest_client(ada)
    old = Session.objects.get(user=ada)
    Session.objects.filter(pk=old.pk).update(expires_at=timezone.now() + timedelta(days=7))
    assert client.get(PATH).status_code == 200

    _age(old, 30)

    assert client.get(PATH).status_code == 401
    assert rest_client(ada).get(PATH).json()["count"] == 1
