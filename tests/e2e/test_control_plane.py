"""Tests of the control plane beside running calls: bounded, and no burden to them."""

from __future__ import annotations

import http.client
import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest
from django.db import connection, transaction

from apps.audit.models import APIRequest
from apps.users.tokens import open_session
from tests.e2e.wire import LAST_CHUNK, RawConnection
from tests.support.bench import Bench
from tests.support.gateway import FAST
from tests.support.people import make_admin
from tests.support.processes import wait_until

CONSTANTS = {
    **FAST,
    "auditing.control_plane:CALLS_MAX": 2,
    "auditing.control_plane:WAIT_SECONDS": 0.3,
    "auditing.control_plane:STATEMENT_SECONDS": 2,
    "auditing.control_plane:BODY_SECONDS": 0.5,
    "auditing.control_plane:SEND_SECONDS": 0.5,
    "apps.audit.export:EXPORT_SECONDS_MAX": 0,
}
PUNYCODE = b"x-" + b"b" * 1_000_000


def _get(port: int, path: str, token: str) -> tuple[int, Any]:
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        client.request("GET", path, headers={"Authorization": f"Bearer {token}"})
        answer = client.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        client.close()


def _post(port: int, length: int, body: bytes) -> bytes:
    head = f"POST /api/auth/login/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"
    with RawConnection(port) as peer:
        peer.send(head.encode() + body)
        return peer.read_all()


@pytest.mark.postgres
def test_statements_that_wait_are_cut_off_and_calls_go_on(bench: Bench) -> None:
    token = open_session(user=make_admin(), request=None).access
    port = bench.gateway.port
    stage = bench.stage()
    assert _get(port, "/api/admin/users/", token)[0] == 200

    with transaction.atomic(), ThreadPoolExecutor(5) as pool:
        with connection.cursor() as cursor:
            cursor.execute("LOCK TABLE users_user IN ACCESS EXCLUSIVE MODE")
        waiting = [pool.submit(_get, port, "/api/admin/users/", token) for _ in range(5)]
        done = stage.client().chat.completions.create(**stage.body())
        answers = [each.result() for each in waiting]

    assert done.usage is not None
    assert {status for status, _ in answers} == {503}
    assert {body["code"] for _, body in answers} == {"busy", "database_unavailable"}
    assert _get(port, "/api/admin/users/", token)[0] == 200


def test_a_body_beyond_the_bound_is_413(bench: Bench) -> None:
    answer = _post(bench.gateway.port, 2_000_000, b" " * 1_100_000)

    assert answer.startswith(b"HTTP/1.1 413")
    assert b'"body_too_large"' in answer


def test_a_body_that_does_not_come_is_408(bench: Bench) -> None:
    answer = _post(bench.gateway.port, 10, b"{")

    assert answer.startswith(b"HTTP/1.1 408")
    assert b'"body_too_slow"' in answer


@pytest.mark.parametrize(
    ("path", "content_type"),
    [
        ("/api/auth/login/", "application/json; charset=punycode"),
        ("/api/auth/login/", 'application/json; charset="UTF-7"'),
        ("/api/auth/login/", "application/json; charset=utf-8; Charset=utf-16"),
        ("/admin/login/", "application/x-www-form-urlencoded; charset=punycode"),
    ],
)
def test_a_codec_that_the_client_chose_is_415(bench: Bench, path: str, content_type: str) -> None:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {content_type}\r\n"
    with RawConnection(bench.gateway.port) as peer:
        peer.send(f"{head}Content-Length: {len(PUNYCODE)}\r\n\r\n".encode() + PUNYCODE)
        answer = peer.read_all()

    assert answer.startswith(b"HTTP/1.1 415")
    assert b'"charset_unsupported"' in answer


@pytest.mark.parametrize("format", ["csv", "jsonl"])
def test_a_file_that_took_too_long_does_not_end_like_a_whole_one(bench: Bench, format: str) -> None:
    token = open_session(user=make_admin(), request=None).access
    stage = bench.stage()
    stage.client().chat.completions.create(**stage.body())
    wait_until(APIRequest.objects.exists, timeout_seconds=5, what="the record")
    head = f"GET /api/admin/requests/export?format={format} HTTP/1.1\r\nHost: localhost\r\n"

    with RawConnection(bench.gateway.port) as peer:
        peer.send(f"{head}Authorization: Bearer {token}\r\n\r\n".encode())
        answer = peer.read_all()

    assert answer.startswith(b"HTTP/1.1 200")
    assert b"transfer-encoding: chunked" in answer
    assert not answer.endswith(LAST_CHUNK)


def test_clients_that_do_not_read_keep_nobody_else_waiting(bench: Bench) -> None:
    token = open_session(user=make_admin(), request=None).access
    port = bench.gateway.port
    # Made once: on a busy machine that takes longer than others wait for a place.
    assert _get(port, "/api/schema/", token)[0] == 200
    with ExitStack() as stack:
        slow = [stack.enter_context(RawConnection(port, receive_buffer=2_048)) for _ in range(6)]
        for peer in slow:
            peer.send(b"GET /api/schema/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")

        statuses = {_get(port, "/api/user/profile/", token)[0] for _ in range(5)}

        assert statuses == {200}
