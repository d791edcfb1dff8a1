"""API keys of people."""

from typing import Any

from apps.api_keys.issue import issue_key
from apps.api_keys.models import APIKey
from apps.users.models import User


def make_key(user: User, **values: Any) -> APIKey:
    """Return a new key of a user."""
    return issue_key(user=user, **{"name": "main", **values})[0]
