"""Signs made-up calls in as one user, again and again: some of them sign out."""

from __future__ import annotations

import os
from typing import Any

import requests
import schemathesis

_AGAIN_SECONDS = 2
_WAIT_SECONDS = 10


@schemathesis.auth(refresh_interval=_AGAIN_SECONDS)
class Token:
    """An access token from the gateway's own sign-in; none for an anonymous caller."""

    def get(self, case: Any, context: Any) -> str:
        """Return a fresh token."""
        if not os.environ["CALLER"]:
            return ""
        answer = requests.post(
            os.environ["GATEWAY"] + "/api/auth/login/",
            json={"username": os.environ["CALLER"], "password": os.environ["CALLER_PASSWORD"]},
            timeout=_WAIT_SECONDS,
        )
        return str(answer.json()["access"])

    def set(self, case: Any, data: str, context: Any) -> None:
        """Put the token into the call."""
        if data:
            case.headers = {**(case.headers or {}), "Authorization": f"Bearer {data}"}
