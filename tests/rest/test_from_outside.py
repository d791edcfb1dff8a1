"""Tests of a real gateway from outside: errors tell nothing, logs stay lines, nothing lies about.

O3, O4 and O8.
"""

from __future__ import annotations

import http.client
from collections.abc import Iterator, Mapping
from typing import Any

import orjson
import pytest

from apps.users.tokens import open_session
from tests.e2e.wire import RawConnection
from tests.rest.refused_events import refusing
from tests.support.databases import Database
from tests.support.gateway import FAST, GatewayProcess
from tests.support.people import PASSWORD, make_admin

# Judged before any database is asked.
BEFORE_THE_DATABASE = pytest.mark.sqlite

LINE_BYTES_MAX = 8_192
MEGABYTE = b"x" * 1_048_576
LOGIN = "/api/auth/login/"
FORGED = b'"}\n{"level": "critical", "message": "forged"}\x1b[31m\x9b31m\xe2\x80\xa8'


@pytest.fixture(scope="module")
def gateway(
    module_db: Database, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    """Run a gateway."""
    make_admin(username="boss", password=PASSWORD)
    started = GatewayProcess.start(
        tmp_path_factory.mktemp("gateway"),
        module_db,
        constants=FAST,
        environment={"METRICS_TOKEN": "metrics-0123456789abcdef"},
    )
    yield started
    started.stop()


def _ask(
    gateway: GatewayProcess,
    path: str,
    *,
    method: str = "GET",
    body: bytes | None = None,
    headers: Mapping[str, str | bytes] | None = None,
) -> tuple[int, dict[str, str], bytes]:
    """Send one request whose path goes out as it stands."""
    caller = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=15)
    given: dict[str, Any] = {"Content-Type": "application/json", **(headers or {})}
    try:
        caller.putrequest(method, path, skip_host="Host" in given)
        if body is not None:
            given["Content-Length"] = str(len(body))
        for name, value in given.items():
            caller.putheader(name, value)
        caller.endheaders(body)
        with caller.getresponse() as answer:
            pairs = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, pairs, answer.read()
    finally:
        caller.close()


def _sign_in(gateway: GatewayProcess, name: bytes, password: str = "wrong") -> tuple[int, bytes]:
    body = orjson.dumps({"username": name.decode("latin-1"), "password": password})
    status, _, content = _ask(gateway, LOGIN, method="POST", body=body)
    return status, content


def _check_log(gateway: GatewayProcess) -> list[dict[str, Any]]:
    """Return the lines of the log; each is an object, bounded, and can be shown on a terminal."""
    raw = gateway.log_path.read_bytes()
    lines = raw.splitlines()
    text = raw.decode()
    assert len(text.splitlines()) == len(lines)
    assert all(character.isprintable() or character == "\n" for character in text)
    assert max(map(len, lines), default=0) <= LINE_BYTES_MAX
    return [orjson.loads(line) for line in lines]


def test_no_call_breaks_a_line_of_the_log(gateway: GatewayProcess) -> None:
    token = open_session(user=make_admin(), request=None).access
    signed = {"Authorization": f"Bearer {token}"}
    # What is left of it is what a header can hold.
    agent = FORGED.replace(b"\n", b" ").replace(b"\x1b", b"")

    statuses = [
        _ask(gateway, "/api/admin/users/", headers={**signed, "User-Agent": agent})[0],
        _ask(gateway, "/api/admin/none/", headers={**signed, "User-Agent": agent})[0],
        _ask(gateway, "/api/%0d%0a%22%7d%1b%5b31m%e2%80%a8%c2%9b/" + "a" * 7_000)[0],
        _ask(gateway, "/api/admin/users/?search=" + "%0a%1b%5b31m" * 20, headers=signed)[0],
        _ask(gateway, "/api/admin/users/", headers={"Host": b"evil%0a\x1b[31m"})[0],
        _sign_in(gateway, FORGED)[0],
        _sign_in(gateway, b"boss", "p" * 4_000)[0],
    ]

    assert statuses == [200, 404, 404, 200, 400, 401, 401]
    lines = _check_log(gateway)
    assert {line["level"] for line in lines} <= {"info", "warning", "error"}
    assert not any(line["message"] == "forged" for line in lines)


@BEFORE_THE_DATABASE
@pytest.mark.parametrize("name", ["User-Agent", "X-Forwarded-For", "Authorization", "Cookie"])
def test_a_header_of_a_megabyte_is_refused(gateway: GatewayProcess, name: str) -> None:
    try:
        status = _ask(gateway, "/api/admin/users/", headers={name: MEGABYTE})[0]
    except OSError:
        status = 431  # Closed before all was sent.

    assert status in (400, 431)
    _check_log(gateway)
    assert gateway.get("/readyz") == 200


@BEFORE_THE_DATABASE
@pytest.mark.parametrize("part", [b"\nX-Role: admin", b"\r", b"\x00", b"\x0b"])
def test_a_header_with_a_control_character_is_refused(gateway: GatewayProcess, part: bytes) -> None:
    head = b"GET /api/admin/users/ HTTP/1.1\r\nHost: localhost\r\nUser-Agent: a" + part

    with RawConnection(gateway.port) as peer:
        peer.send(head + b"\r\n\r\n")
        peer.end_sending()
        answer = peer.read_all()

    assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 401"))
    assert answer.count(b"HTTP/1.1 4") == 1
    _check_log(gateway)


def test_an_error_of_the_server_tells_nothing(gateway: GatewayProcess) -> None:
    with refusing("sign_in.succeeded"):
        failed, content = _sign_in(gateway, b"boss", PASSWORD)
    done, _ = _sign_in(gateway, b"boss", PASSWORD)

    assert (failed, done) == (500, 200)
    assert orjson.loads(content) == {"detail": "Something went wrong here.", "code": "server_error"}
    (line,) = [line for line in _check_log(gateway) if "events are away" in line["message"]]
    assert line["level"] == "error"
    assert "Traceback" in line["message"]
    assert PASSWORD not in gateway.log()


@BEFORE_THE_DATABASE
@pytest.mark.parametrize("host", ["evil.example.com", "localhost.evil.example.com", "a b", ""])
@pytest.mark.parametrize("path", ["/api/admin/users/", "/admin/login/", "/"])
def test_another_host_is_refused(gateway: GatewayProcess, host: str, path: str) -> None:
    status, headers, body = _ask(gateway, path, headers={"Host": host})

    assert status == 400
    assert "evil" not in str(headers)
    assert b"evil" not in body
    assert b"ALLOWED_HOSTS" not in body
    if path.startswith("/api/"):
        assert orjson.loads(body)["code"] == "bad_request"


@BEFORE_THE_DATABASE
@pytest.mark.parametrize("format", ["api", "admin", "html", "xml", "json2"])
def test_there_is_no_other_rendering(gateway: GatewayProcess, format: str) -> None:
    token = open_session(user=make_admin(), request=None).access

    status, headers, body = _ask(
        gateway,
        f"/api/admin/users/?format={format}",
        headers={"Authorization": f"Bearer {token}", "Accept": "text/html"},
    )

    assert status in (404, 406)
    assert headers["content-type"] == "application/json"
    assert sorted(orjson.loads(body)) == ["code", "detail"]


@BEFORE_THE_DATABASE
@pytest.mark.parametrize(
    "path",
    [
        "/.git/config", "/.git/HEAD", "/.env", "/.env.example", "/manage.py", "/Makefile",
        "/requirements.txt", "/openapi.json", "/data/db.sqlite3", "/db.sqlite3", "/backup.zip",
        "/first-run.txt", "/data/first-run.txt", "/auditing/settings.py", "/debug/", "/__debug__/",
        "/server-status", "/phpinfo.php", "/api", "/api/", "/api/admin/", "/api/schema.json",
        "/api/schema/swagger/", "/api/.env", "/admin/../.env", "/admin/.git/config", "/graphql",
        "/static/", "/static/.env", "/static/../manage.py", "/static/../.env",
        "/static/%2e%2e/manage.py", "/static/..%2fmanage.py",
        "/static/%2e%2e%2f%2e%2e%2fetc/passwd",
        "/static//etc/passwd", "/static/..%5cmanage.py", "/static/staticfiles.json.bak",
        "//etc/passwd", "/..%2f..%2fetc/passwd", "/etc/passwd", "/proc/self/environ",
        "/static/drf_spectacular_sidecar/swagger-ui-dist/none.js.map", "/index.js.map",
        "/health.bak", "/media/", "/redoc/", "/swagger/", "/api/docs.json", "/.well-known/x",
    ],
)  # fmt: skip
def test_nothing_lies_about(gateway: GatewayProcess, path: str) -> None:
    status, _, body = _ask(gateway, path)

    assert status in (302, 404), body
    assert len(body) < 2_000
    for word in (b"SECRET_KEY", b"Traceback", b"root:", b"urlpatterns", b"import ", b"[core]"):
        assert word not in body


@BEFORE_THE_DATABASE
def test_metrics_are_not_for_everybody(gateway: GatewayProcess) -> None:
    for path in ("/metrics", "/metrics/", "/api/metrics", "/v1/metrics"):
        status, _, body = _ask(gateway, path)

        assert status in (401, 403, 404)
        assert b"# HELP" not in body
