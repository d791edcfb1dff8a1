"""Tests of how many passwords are hashed at once."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
from django.test import Client
from rest_framework.test import APIClient

from apps.audit.models import AdminEvent
from apps.users import hashing
from apps.users.hashing import HashingBusy, hashing_place
from tests.support.people import PASSWORD, make_admin

BODY = {"username": "boss", "password": PASSWORD}


@pytest.fixture
def busy(db: None, monkeypatch: pytest.MonkeyPatch) -> ExitStack:
    """Take all places, and let nobody wait long for one."""
    monkeypatch.setattr(hashing, "WAIT_SECONDS", 0.001)
    make_admin(**BODY)
    places = ExitStack()
    for _ in range(4):
        places.enter_context(hashing_place())
    return places


def test_a_fifth_is_told_to_come_back_and_nothing_is_counted(busy: ExitStack) -> None:
    with busy:
        answers = [APIClient().post("/api/auth/login/", BODY) for _ in range(12)]

    assert {answer.status_code for answer in answers} == {503}
    assert answers[0].json() == {"detail": "Too much is asked for at once.", "code": "busy"}
    assert answers[0].headers["Retry-After"] == "5"
    assert not AdminEvent.objects.filter(action__startswith="sign_in.").exists()
    assert APIClient().post("/api/auth/login/", BODY).status_code == 200


def test_a_name_that_does_not_exist_waits_as_well(busy: ExitStack) -> None:
    with busy:
        answer = APIClient().post("/api/auth/login/", {"username": "nobody", "password": "x"})

    assert answer.status_code == 503


def test_the_admin_says_that_it_is_busy(busy: ExitStack) -> None:
    with busy:
        answer = Client().post("/admin/login/", BODY)

    assert answer.status_code == 200
    assert "Too much is asked for at once." in answer.content.decode()


def test_a_place_is_free_again_whatever_happened_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashing, "WAIT_SECONDS", 0.001)
    for _ in range(5):
        with pytest.raises(ValueError, match="here"), hashing_place():
            raise ValueError("here")

    with ExitStack() as places:
        for _ in range(4):
            places.enter_context(hashing_place())
        with pytest.raises(HashingBusy):
            places.enter_context(hashing_place())
