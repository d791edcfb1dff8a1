"""Signs made-up calls in as one user, again and again: some of them sign out.

What calls do to the caller is undone at each sign-in, which goes past the gateway: a call may have
set another password or ended all sessions.
"""

from __future__ import annotations

import os
from typing import Any, Final

import django
import schemathesis

django.setup()

from apps.users.models import User  # noqa: E402  # models need the setup
from apps.users.tokens import open_session  # noqa: E402

_CALLER: Final = os.environ["CALLER"]
# After these the caller may not be signed in any more.
_ENDING: Final = ("/api/auth/", "/api/user/profile", "/api/admin/users/")


@schemathesis.auth(refresh_interval=None)
class Token:
    """An access token of the caller, good at every call; none for an anonymous caller."""

    token = ""

    def get(self, case: Any, context: Any) -> str | None:
        """Return a token."""
        if _CALLER and not Token.token:
            Token.token = open_session(user=User.objects.get(pk=_CALLER), request=None).access
        return Token.token or None

    def set(self, case: Any, data: str, context: Any) -> None:
        """Put the token into the call."""
        case.headers = {**(case.headers or {}), "Authorization": f"Bearer {data}"}


@schemathesis.hook
def after_call(context: Any, case: Any, response: Any) -> None:
    """Sign in again where this call may have signed the caller out."""
    if response.status_code == 401 or (
        case.method != "GET" and case.operation.path.startswith(_ENDING)
    ):
        Token.token = ""
