"""Sessions of the Django admin: a row of Django's for each browser that is signed in there.

The row says whose it is only inside of what it keeps, so all of them are read. There are few: one
for each browser of an administrator within two weeks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from django.contrib.auth import SESSION_KEY
from django.contrib.sessions.models import Session as BrowserSession
from django.http import HttpRequest
from django.utils import timezone

from apps.users.models import User

_PIECE: Final = 200


def end_browser_sessions(*, user: User, except_key: str | None = None) -> int:
    """Sign a user out of the Django admin, but for one browser, and return how many there were."""
    keys = [
        session.pk
        for session in _list_open()
        if session.pk != except_key and session.get_decoded().get(SESSION_KEY) == str(user.pk)
    ]
    return BrowserSession.objects.filter(pk__in=keys).delete()[0]


def find_browser_key(request: HttpRequest | None) -> str | None:
    """Return what names the browser's session of a request, None where it came without one."""
    session = getattr(request, "session", None)
    return session.session_key if session is not None else None


def _list_open() -> Iterator[BrowserSession]:
    """Give the sessions that have not expired, a piece at a time; each is nearer to the end."""
    rows = BrowserSession.objects.filter(expire_date__gt=timezone.now()).order_by("pk")
    piece = list(rows[:_PIECE])
    while piece:
        yield from piece
        piece = list(rows.filter(pk__gt=piece[-1].pk)[:_PIECE])
