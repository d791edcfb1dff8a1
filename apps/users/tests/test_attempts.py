"""Tests of the locks that failed sign-ins make."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.test import RequestFactory
from django.utils import timezone
from pytest_django import Settings
from rest_framework.test import APIClient

from apps.audit.models import AdminEvent
from apps.core.counters import count_up, process_counts
from apps.users.attempts import SignInLocked
from apps.users.models import Customer, User
from apps.users.sign_in import SignInRefused, confirm_password, sign_in

PASSWORD = "correct horse battery staple"
OWNER = "192.0.2.1"
STRANGER = "198.51.100.1"


@pytest.fixture
def ada(db: None) -> User:
    """Return a user who can sign in."""
    user = User(
        username="Ada", email="ada@example.com", customer=Customer.objects.create(name="Ada")
    )
    user.set_password(PASSWORD)
    user.save()
    return user


def _try(identifier: str, password: str = "wrong", address: str = OWNER, **headers: str) -> User:
    request = RequestFactory().post("/", REMOTE_ADDR=address, headers=headers)
    return sign_in(identifier=identifier, password=password, request=request)


def _answer(identifier: str, address: str, password: str = "wrong") -> int:
    try:
        _try(identifier, password, address)
    except (SignInRefused, SignInLocked) as error:
        return error.status_code
    return 200


def _flood(identifier: str, addresses: int, each: int = 10) -> list[int]:
    """Guess from many networks, below the lock of each."""
    return [
        _answer(identifier, f"203.0.113.{number}")
        for number in range(addresses)
        for _ in range(each)
    ]


def test_a_stranger_locks_a_name_for_himself_and_not_for_its_owner(ada: User) -> None:
    assert [_answer("Ada", STRANGER) for _ in range(30)] == [401] * 10 + [429] * 20

    with pytest.raises(SignInLocked) as locked:
        _try("Ada", PASSWORD, STRANGER)

    assert (locked.value.status_code, locked.value.retry_after_seconds) == (429, 900)
    assert _try("Ada", PASSWORD, OWNER) == ada


def test_a_network_is_locked_whichever_names_it_tries(ada: User) -> None:
    statuses = [_answer(f"name{number}", STRANGER) for number in range(60)]

    assert statuses == [401] * 50 + [429] * 10
    assert _answer("Ada", STRANGER, PASSWORD) == 429
    assert _answer("Ada", OWNER, PASSWORD) == 200


def test_a_locked_network_adds_no_counters(ada: User) -> None:
    for number in range(60):
        _answer(f"name{number}", STRANGER)
    # The network, and of each name its own and its account's.
    assert len(process_counts) == 1 + 50 + 50

    for number in range(400):
        assert _answer(f"other{number}", STRANGER) == 429

    assert len(process_counts) == 101


def test_no_flood_of_names_opens_a_lock(ada: User) -> None:
    for _ in range(11):
        _answer("Ada", STRANGER)

    for number in range(10_500):
        count_up(f"sign-in:pair:{number}", seconds=900, locks_at=11)

    assert _answer("Ada", STRANGER, PASSWORD) == 429


def test_who_repeats_an_old_password_locks_nobody_beside_him(ada: User) -> None:
    for _ in range(200):
        _answer("somebody", OWNER)

    assert _answer("Ada", OWNER, PASSWORD) == 200


def test_an_account_is_locked_after_a_hundred_failures_from_everywhere(ada: User) -> None:
    assert _flood("Ada", 5) + _flood("ADA@example.com", 5) == [401] * 100

    assert _answer("Ada", "192.0.2.77", PASSWORD) == 429
    assert AdminEvent.objects.filter(action="sign_in.locked").count() == 1


@pytest.mark.parametrize(
    ("known", "later"),
    [("192.0.2.9", "192.0.2.9"), ("2001:db8:1:2::5", "2001:db8:1:2:ffff::9")],
)
def test_an_account_stays_open_to_networks_its_user_signed_in_from(
    ada: User, known: str, later: str
) -> None:
    assert _answer("Ada", known, PASSWORD) == 200

    assert _flood("Ada", 11) == [401] * 100 + [429] * 10

    assert _answer("ada@example.com", later, PASSWORD) == 200
    assert _answer("Ada", "192.0.2.10", PASSWORD) == 429


@pytest.mark.parametrize(("days", "status"), [(29, 200), (31, 429)])
def test_a_network_is_known_for_thirty_days(
    ada: User, monkeypatch: pytest.MonkeyPatch, days: int, status: int
) -> None:
    AdminEvent.objects.bulk_create(
        [AdminEvent(actor_id=ada.pk, action="sign_in.succeeded", ip_address=OWNER)]
    )
    _flood("Ada", 10)
    now = timezone.now()
    monkeypatch.setattr(timezone, "now", lambda: now + timedelta(days=days))

    assert _answer("Ada", OWNER, PASSWORD) == status


def test_locks_do_not_tell_which_names_exist(ada: User) -> None:
    def guess(identifier: str, address: str) -> list[int]:
        spellings = [identifier, identifier.upper(), identifier.lower(), f" {identifier} "]
        return [_answer(spellings[number % 4], address) for number in range(14)]

    answers = {
        identifier: guess(identifier, STRANGER) for identifier in ("Ada", "ada@example.com", "Bob")
    }

    assert list(answers.values()) == [[401] * 10 + [429] * 4] * 3
    assert _flood("nobody", 11) == [401] * 100 + [429] * 10


def test_addresses_of_one_ipv6_network_count_together(ada: User) -> None:
    answers = [_answer("Ada", f"2001:db8:0:1::{number:x}") for number in range(12)]

    assert answers == [401] * 10 + [429] * 2
    assert _answer("Ada", "2001:db8:0:2::1", PASSWORD) == 200
    event = AdminEvent.objects.filter(action="sign_in.failed").latest("pk")
    assert event.ip_address == "2001:db8:0:1::9"


def test_whoever_goes_on_after_a_lock_fills_no_table(ada: User) -> None:
    for _ in range(30):
        _answer("Ada", STRANGER)

    assert AdminEvent.objects.count() == 11


def test_a_forged_forwarding_header_does_not_give_a_new_network(ada: User) -> None:
    for number in range(10):
        with pytest.raises(SignInRefused):
            _try("Ada", address=STRANGER, **{"x-forwarded-for": f"192.0.2.{number}"})

    with pytest.raises(SignInLocked):
        _try("Ada", address=STRANGER, **{"x-forwarded-for": "192.0.2.99"})


def test_signing_in_forgets_the_failures_before(ada: User) -> None:
    for _ in range(8):
        assert [_answer("Ada", OWNER) for _ in range(6)] == [401] * 6
        assert _answer("Ada", OWNER, PASSWORD) == 200
    # Six of each round stay with the network.
    assert [_answer("Ada", OWNER) for _ in range(3)] == [401, 401, 429]


def test_confirming_a_password_counts_like_signing_in(ada: User) -> None:
    for _ in range(10):
        _answer("ada", OWNER)

    with pytest.raises(SignInLocked):
        confirm_password(
            user=ada, password=PASSWORD, request=RequestFactory().post("/", REMOTE_ADDR=OWNER)
        )


def test_failures_are_counted_while_redis_is_away(ada: User, settings: Settings) -> None:
    settings.CACHES = {
        "default": {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": "redis://127.0.0.1:1",
        }
    }

    assert [_answer("nobody", STRANGER) for _ in range(11)] == [401] * 10 + [429]
    assert _answer("Ada", OWNER, PASSWORD) == 200


def test_failures_are_counted_in_redis(ada: User, settings: Settings, redis_url: str) -> None:
    settings.CACHES = {
        "default": {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": redis_url,
        }
    }

    statuses = [_answer("Ada", STRANGER) for _ in range(11)]

    assert statuses == [401] * 10 + [429]
    assert len(process_counts) == 0
    assert _answer("Ada", OWNER, PASSWORD) == 200


def test_the_admin_is_throttled_where_something_is_sent(db: None, settings: Settings) -> None:
    settings.API_RPM_PER_ADDRESS = 3
    client = APIClient(REMOTE_ADDR=STRANGER)
    body = {"username": "nobody", "password": "wrong"}

    def post() -> int:
        return client.post("/admin/login/", body, format="multipart").status_code

    # A new minute may begin in between.
    statuses = [post() for _ in range(10)]

    assert statuses.count(429) in (4, 7)
    assert {client.get("/admin/login/").status_code for _ in range(6)} == {200}
