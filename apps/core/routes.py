"""Paths of the REST API: one way to write them, each with and without its last slash."""

from __future__ import annotations

import re
from typing import Final

from django.urls import URLPattern, re_path
from rest_framework.views import APIView

_KINDS: Final = {
    "id": "[0-9]{1,18}",
    "uuid": "[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}",
    "word": "[a-z0-9_-]{1,64}",
}
_PARAMETER: Final = re.compile(r"\{(\w+):(\w+)\}")


def rest_path(path: str, view: type[APIView]) -> URLPattern:
    """Return the pattern of `api/<path>`. Parameters: {id:user_id}, {uuid:request_id}, {word:x}."""
    pattern = _PARAMETER.sub(lambda found: f"(?P<{found[2]}>{_KINDS[found[1]]})", path)
    return re_path(rf"^api/{pattern}/?$", view.as_view())
