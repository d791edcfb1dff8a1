"""User names and e-mail addresses: how they are compared, and that nobody passes for another."""

from __future__ import annotations

from apps.core.domain_errors import DomainError
from apps.users.models import User


class UserExists(DomainError):
    """The user name or the e-mail address is taken."""

    status_code = 409
    code = "user_exists"
    message = "A user with this user name or e-mail address already exists."


class UsernameAmbiguous(DomainError):
    """The user name looks like somebody's e-mail address."""

    code = "username_ambiguous"
    message = "A user name with an @ must be the user's own e-mail address."


def clean_names(*, username: str, email: str) -> tuple[str, str]:
    """Return the user name and the address as they are stored and compared.

    Raises UsernameAmbiguous.
    """
    username, email = User.normalize_username(username), email.lower()
    if "@" in username and username.lower() != email:
        raise UsernameAmbiguous
    return username, email


def are_names_taken(user: User) -> bool:
    """Return whether somebody else has this user's name or address."""
    others = User.objects.exclude(pk=user.pk)
    return (
        others.filter(username=user.username).exists() or others.filter(email=user.email).exists()
    )
