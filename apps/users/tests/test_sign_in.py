"""Tests of signing in with a password."""

from __future__ import annotations

import pytest
from django.contrib.auth import authenticate
from django.test import RequestFactory

from apps.audit.models import AdminEvent
from apps.users.models import Customer, Role, User
from apps.users.sign_in import SignInRefused, sign_in

PASSWORD = "correct horse battery staple"


@pytest.fixture
def ada(db: None) -> User:
    """Return a user who can sign in."""
    user = User(
        username="Ada",
        email="ada@example.com",
        role=Role.USER,
        customer=Customer.objects.create(name="Ada"),
    )
    user.set_password(PASSWORD)
    user.save()
    return user


def _try(identifier: str, password: str = "wrong", address: str = "192.0.2.1") -> User:
    request = RequestFactory().post("/", REMOTE_ADDR=address)
    return sign_in(identifier=identifier, password=password, request=request)


@pytest.mark.parametrize("identifier", ["Ada", "ada@example.com", "ADA@Example.com"])
def test_one_signs_in_by_name_or_address(ada: User, identifier: str) -> None:
    assert _try(identifier, PASSWORD) == ada
    event = AdminEvent.objects.get()
    assert (event.action, event.actor_id, event.ip_address) == (
        "sign_in.succeeded",
        ada.pk,
        "192.0.2.1",
    )


@pytest.mark.parametrize(
    ("identifier", "password"),
    [
        ("Ada", "wrong"),
        ("Ada", PASSWORD + " "),
        ("Ada", ""),
        ("nobody", PASSWORD),
        ("", ""),
        ("Ada\x00", "wrong"),
        ("x" * 300, PASSWORD),
        ("Ada", "x" * 5_000),
    ],
)
def test_a_wrong_name_and_a_wrong_password_get_the_same_answer(
    ada: User, identifier: str, password: str
) -> None:
    with pytest.raises(SignInRefused) as refused:
        _try(identifier, password)
    assert (refused.value.status_code, str(refused.value)) == (
        401,
        "The user name or password is wrong.",
    )


def test_a_failure_is_recorded_without_what_was_typed(ada: User) -> None:
    with pytest.raises(SignInRefused):
        _try("my secret in the wrong field", "wrong")

    event = AdminEvent.objects.get()
    assert (event.action, event.actor_id, event.object_id) == ("sign_in.failed", None, "")
    assert "my secret" not in repr(AdminEvent.objects.values().get())


def test_an_inactive_user_cannot_sign_in(ada: User) -> None:
    User.objects.filter(pk=ada.pk).update(is_active=False)

    with pytest.raises(SignInRefused):
        _try("Ada", PASSWORD)


def test_a_user_name_wins_over_the_same_address_of_somebody_else(ada: User) -> None:
    other = User(
        username="ada@example.com",
        email="other@example.com",
        customer=Customer.objects.create(name="other"),
    )
    other.set_password("another long password")
    other.save()

    assert _try("ada@example.com", "another long password") == other


def test_django_signs_in_by_the_same_rules(ada: User) -> None:
    request = RequestFactory().post("/admin/login/", REMOTE_ADDR="192.0.2.1")

    assert authenticate(request, username="ada@example.com", password=PASSWORD) == ada
    assert authenticate(request, username="Ada", password="wrong") is None
    assert authenticate(request) is None
