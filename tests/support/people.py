"""People for tests of REST and of the Django admin."""

from __future__ import annotations

import itertools
from typing import Any, Final

from rest_framework.test import APIClient

from apps.billing.accounts import find_standing
from apps.billing.customers import create_user
from apps.users.models import User
from apps.users.tokens import open_session

PASSWORD: Final = "correct horse battery staple"
_numbers = itertools.count(1)


def make_user(**values: Any) -> User:
    """Make a user with accounts; without a password nobody can sign in."""
    number = next(_numbers)
    defaults: dict[str, Any] = {
        "username": f"person{number}",
        "email": f"person{number}@example.com",
        "password": None,
    }
    return create_user(**{**defaults, **values})


def make_admin(**values: Any) -> User:
    """Make an administrator."""
    return make_user(is_superuser=True, **values)


def balance_of(user: User) -> int:
    """Return what is in a user's wallet, in nanos."""
    return find_standing(user.customer_id).balance_nanos


def rest_client(user: User) -> APIClient:
    """Return a client that is signed in over REST."""
    client = APIClient()
    access = open_session(user=user, request=None).access
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {access}")
    return client
