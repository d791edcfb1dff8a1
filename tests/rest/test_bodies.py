"""Tests of bodies that cannot be read: always 400, never an error of the server."""

from __future__ import annotations

from typing import Any

import pytest

from apps.users.models import UserGroup
from tests.support.people import make_admin, rest_client

# Decided before any statement runs: once is enough.
pytestmark = pytest.mark.sqlite

PATH = "/api/admin/user-groups/"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nothing",
        b"[1]",
        b'"text"',
        b"null",
        b'{"name": "a", "name": "b"}',
        b'{"name": NaN}',
        b'{"name": 1e999}',
        b'{"name": "\\ud800"}',
        b'{"name": "\\u0000"}',
        b'{"name": "a", "rpm": ' + b"9" * 5_000 + b"}",
        b'{"name": "a", "rpm": 99999999999999999999}',
        b'{"name": "a", "rpm": 1.5}',
        b"\xff\xfe{\x00}\x00",
        b'\xef\xbb\xbf{"name": "a"}',
        b'{"name": "\xff"}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
    ],
)
def test_a_body_that_cannot_be_read_is_400(db: None, body: bytes) -> None:
    client: Any = rest_client(make_admin())

    answer = client.generic("POST", PATH, body, content_type="application/json")

    assert answer.status_code == 400
    assert UserGroup.objects.count() == 0


@pytest.mark.parametrize(
    "content_type", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"]
)
def test_what_is_not_json_is_415(db: None, content_type: str) -> None:
    client: Any = rest_client(make_admin())

    answer = client.generic("POST", PATH, b'{"name": "a"}', content_type=content_type)

    assert answer.status_code == 415
    assert UserGroup.objects.count() == 0
