"""The shipped nginx.conf, in a real nginx, in front of two small servers.

Over 400 lines because the two servers are written here, which no other test needs.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from apps.core.errors import GatewayError
from apps.proxy.dialects.answer_conversion import error_body
from tests.support.processes import accepts_connections, free_port, until

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
pytestmark = pytest.mark.skipif(
    NGINX is None, reason="nginx is not installed (.ci/run installs it)"
)

CONFIGURATION = Path(__file__).parent.parent / "nginx.conf"
MIB = 1024 * 1024
HEADERS_BYTES_MAX = 65_536
WAIT_SECONDS = 10.0
# Dialect and path: each has its own shape of errors.
PATHS = [
    ("openai", "/v1/chat/completions"),
    ("openai", "/api/v1/messages_of_somebody"),
    ("anthropic", "/v1/messages"),
    ("anthropic", "/api/v1/messages/count_tokens"),
    ("gemini", "/v1beta/models/demo:generateContent"),
    ("gemini", "/v1/models/demo:streamGenerateContent"),
]

Answer = Callable[["Call", asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Call:
    """What reached a server: the path as sent, the headers with lower-case names, the body."""

    server: str
    path: str
    headers: dict[str, str]
    body: bytes
    reader: asyncio.StreamReader


async def answer_plainly(call: Call, writer: asyncio.StreamWriter) -> None:
    """Say which server it is."""
    body = call.server.encode()
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))


@dataclass(slots=True)
class Upstream:
    """A server that remembers its calls and answers as the test says."""

    name: str
    port: int
    answer: Answer = answer_plainly
    calls: list[Call] = field(default_factory=list)
    # Set when the head of a call is there, before its body.
    has_begun: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the calls of one connection."""
        try:
            while head := await _read_head(reader):
                self.has_begun.set()
                lines = head.decode().split("\r\n")
                pairs = [line.split(": ", 1) for line in lines[1:] if line]
                headers = {name.lower(): value for name, value in pairs}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                call = Call(self.name, lines[0].split(" ")[1], headers, body, reader)
                self.calls.append(call)
                await self.answer(call, writer)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # The other side is gone; what reached us is in `calls`.
        finally:
            writer.close()


async def _read_head(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b""


@dataclass(frozen=True, slots=True)
class Front:
    """A running nginx and what is behind it."""

    port: int
    gateway: Upstream
    web: Upstream
    client: httpx.AsyncClient

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a raw connection to nginx."""
        return await asyncio.open_connection("127.0.0.1", self.port)


@pytest.fixture
async def front(tmp_path: Path) -> AsyncIterator[Front]:
    """Start nginx with the shipped configuration; only addresses and paths differ."""
    async with _running_front(tmp_path, {}) as front:
        yield front


@pytest.fixture
async def front_of_balancer(tmp_path: Path) -> AsyncIterator[Front]:
    """Start nginx as operators do behind a balancer, which is whoever connects from 127.0.0.1."""
    named = {
        "# 10.0.0.5/32 1;": "127.0.0.1/32 1;",
        "# set_real_ip_from 10.0.0.5/32;": "set_real_ip_from 127.0.0.1/32;",
    }
    async with _running_front(tmp_path, named) as front:
        yield front


@asynccontextmanager
async def _running_front(tmp_path: Path, changes: dict[str, str]) -> AsyncIterator[Front]:
    async with AsyncExitStack() as stack:
        gateway, web = Upstream("gateway", free_port()), Upstream("web", free_port())
        for upstream in (gateway, web):
            server = await asyncio.start_server(
                upstream.serve, "127.0.0.1", upstream.port, limit=HEADERS_BYTES_MAX
            )
            stack.callback(server.close)
        port = free_port()
        process = await _start_nginx(tmp_path, port, gateway, web, changes)
        try:
            # No certificates are needed, and loading them takes longer than a test.
            client = httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{port}",
                timeout=WAIT_SECONDS,
                verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            )
            async with client:
                yield Front(port, gateway, web, client)
        finally:
            process.terminate()
            await process.wait()


async def _start_nginx(
    directory: Path, port: int, gateway: Upstream, web: Upstream, changes: dict[str, str]
) -> asyncio.subprocess.Process:
    text = CONFIGURATION.read_text()
    for shipped, ours in {
        **changes,
        "listen 8080;": f"listen 127.0.0.1:{port};",
        "server gateway:8000 ": f"server 127.0.0.1:{gateway.port} ",
        "server web:8000;": f"server 127.0.0.1:{web.port};",
        "worker_processes auto;": "worker_processes 1;",
        "alias /srv/static/;": f"alias {directory}/static/;",
    }.items():
        assert text.count(shipped) == 1
        text = text.replace(shipped, ours)
    text = text.replace("/tmp/nginx", f"{directory}/nginx")  # noqa: S108  The shipped paths.
    (directory / "nginx.conf").write_text(text)
    (directory / "static").mkdir()
    (directory / "static" / "app.css").write_text("body {}")
    # Started by root, the workers would be somebody who cannot read the test's directory.
    user = "user root;" if os.geteuid() == 0 else ""
    with (directory / "nginx.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            str(NGINX),
            *("-p", str(directory), "-c", str(directory / "nginx.conf")),
            *("-g", f"daemon off; {user}"),
            stdout=log,
            stderr=log,
        )
    async with asyncio.timeout(WAIT_SECONDS):
        while not accepts_connections(port):
            assert process.returncode is None, (directory / "nginx.log").read_text()
            await asyncio.sleep(0.01)
    return process


@pytest.mark.parametrize(
    ("path", "server"),
    [
        ("/v1/chat/completions", "gateway"),
        ("/v1/chat/completions/", "gateway"),
        ("/v1", "gateway"),
        ("/v1/", "gateway"),
        ("/api/v1/models", "gateway"),
        ("/api/v1", "gateway"),
        ("/v1beta/models/demo:generateContent", "gateway"),
        ("/health", "gateway"),
        ("/health/", "gateway"),
        ("/api/health", "gateway"),
        ("/livez", "gateway"),
        ("/readyz", "gateway"),
        ("/", "web"),
        ("/v10/models", "web"),
        ("/v1models", "web"),
        ("/api/v1x/models", "web"),
        ("/healthy", "web"),
        ("/api/auth/login/", "web"),
        ("/api/admin/requests/?user=1", "web"),
        ("/admin/", "web"),
        ("/api/schema/", "web"),
    ],
)
async def test_a_path_goes_to_its_server_as_it_was_sent(
    front: Front, path: str, server: str
) -> None:
    answer = await front.client.post(path, content=b"{}")

    assert (answer.status_code, answer.text) == (200, server)
    calls = [*front.gateway.calls, *front.web.calls]
    assert [(call.server, call.path, call.body) for call in calls] == [(server, path, b"{}")]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/chat/completions"),
        ("GET", "/api/admin/requests/export?format=jsonl"),
        ("GET", "/api/admin/requests/export/"),
        ("GET", "/api/user/requests/export"),
    ],
)
@pytest.mark.parametrize("is_chunked", [True, False])
async def test_what_is_streamed_arrives_piece_by_piece(
    front: Front, is_chunked: bool, method: str, path: str
) -> None:
    # Even a buffering nginx forwards chunks at once, but not a body that ends with its connection.
    received: asyncio.Queue[None] = asyncio.Queue()

    async def answer(call: Call, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n")
        writer.write(b"transfer-encoding: chunked\r\n\r\n" if is_chunked else b"\r\n")
        for number in range(5):
            event = b"data: %d\n\n" % number
            writer.write(b"9\r\n%b\r\n" % event if is_chunked else event)
            # The next event is sent only when the client has this one: a buffer would wait forever.
            await asyncio.wait_for(received.get(), WAIT_SECONDS)
        if is_chunked:
            writer.write(b"0\r\n\r\n")
        else:
            writer.close()

    front.gateway.answer = front.web.answer = answer

    pieces = []
    async with front.client.stream(method, path) as stream:
        async for piece in stream.aiter_raw():
            pieces.append(piece)
            received.put_nowait(None)

    assert pieces == [b"data: %d\n\n" % number for number in range(5)]


async def test_a_request_body_is_passed_on_as_it_arrives(front: Front) -> None:
    reader, writer = await front.connect()

    writer.write(b"POST /v1/echo HTTP/1.1\r\nhost: x\r\ncontent-length: 6\r\n\r\nabc")
    await asyncio.wait_for(front.gateway.has_begun.wait(), WAIT_SECONDS)
    writer.write(b"def")
    status = await asyncio.wait_for(reader.readline(), WAIT_SECONDS)
    writer.close()

    assert status == b"HTTP/1.1 200 OK\r\n"
    assert front.gateway.calls[0].body == b"abcdef"


async def test_a_cut_stream_is_seen_as_cut(front: Front) -> None:
    async def answer(call: Call, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await writer.drain()
        raise ConnectionResetError

    front.gateway.answer = answer

    with pytest.raises(httpx.RemoteProtocolError, match="without sending complete message body"):
        await front.client.post("/v1/chat/completions", json={})
    assert len(front.gateway.calls) == 1


async def test_the_gateway_sees_that_the_client_left(front: Front) -> None:
    left = asyncio.Event()

    async def answer(call: Call, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n")
        assert await call.reader.read(1) == b""
        left.set()

    front.gateway.answer = answer
    reader, writer = await front.connect()
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n")
    await asyncio.wait_for(reader.readuntil(b"hello"), WAIT_SECONDS)

    writer.close()

    await asyncio.wait_for(left.wait(), WAIT_SECONDS)


async def test_a_body_of_32_mib_passes(front: Front) -> None:
    answer = await front.client.post("/v1/chat/completions", content=b"x" * (32 * MIB))

    assert answer.status_code == 200
    assert len(front.gateway.calls[0].body) == 32 * MIB


async def test_a_larger_body_is_refused_in_the_dialect_of_the_client(front: Front) -> None:
    reader, writer = await front.connect()

    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"
        % (32 * MIB + 1)
    )
    answer = await asyncio.wait_for(reader.readuntil(b"}}"), WAIT_SECONDS)
    writer.close()

    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 413 ")
    assert body == error_body("openai", GatewayError("E15"), "")
    assert front.gateway.calls == []


@pytest.mark.parametrize("path", ["/api/admin/users", "/api/user/requests/export/", "/admin/"])
async def test_what_the_pages_and_the_rest_api_take_has_at_most_1_mib(
    front: Front, path: str
) -> None:
    taken = await front.client.post(path, content=b"x" * MIB)
    reader, writer = await front.connect()
    writer.write(f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {MIB + 1}\r\n\r\n".encode())
    answer = await asyncio.wait_for(reader.readuntil(b"}"), WAIT_SECONDS)
    writer.close()

    head, _, body = answer.partition(b"\r\n\r\n")
    assert taken.status_code == 200
    assert head.startswith(b"HTTP/1.1 413 ")
    assert json.loads(body)["code"] == "body_too_large"
    assert len(front.web.calls) == 1


@pytest.mark.parametrize(("dialect", "path"), PATHS)
async def test_a_stopped_gateway_is_a_503_that_clients_retry(
    front: Front, dialect: str, path: str
) -> None:
    async def answer(call: Call, writer: asyncio.StreamWriter) -> None:
        raise ConnectionResetError

    front.gateway.answer = answer

    refused = await front.client.post(path, json={})

    request_id = refused.headers["x-request-id"]
    assert refused.status_code == 503
    assert refused.headers["content-type"] == "application/json"
    assert refused.headers["retry-after"] == "1"
    assert refused.headers["request-id"] == request_id
    assert refused.content == error_body(dialect, GatewayError("E36"), request_id)
    # A POST that may have been worked on is not sent again.
    assert len(front.gateway.calls) == 1


@pytest.mark.parametrize(("dialect", "path"), PATHS)
async def test_a_body_that_is_too_large_is_refused_in_the_shape_of_its_dialect(
    front: Front, dialect: str, path: str
) -> None:
    reader, writer = await front.connect()
    length = 32 * MIB + 1
    writer.write(f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n".encode())
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), WAIT_SECONDS)
    headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:] if line)
    body = await reader.readexactly(int(headers["Content-Length"]))
    writer.close()

    assert head.startswith(b"HTTP/1.1 413 ")
    assert headers["request-id"] == headers["x-request-id"]
    assert body == error_body(dialect, GatewayError("E15"), headers["x-request-id"])
    assert front.gateway.calls == []


async def test_a_balancer_that_is_named_tells_who_called_and_how(front_of_balancer: Front) -> None:
    front = front_of_balancer
    told = {"X-Forwarded-For": "203.0.113.9, 198.51.100.7", "X-Forwarded-Proto": "https"}

    await front.client.get("/v1/models", headers=told)
    await front.client.get("/v1/models", headers={**told, "X-Forwarded-Proto": "spdy"})

    headers = [call.headers for call in front.gateway.calls]
    # What the balancer saw itself; what stood before it is its client's claim.
    assert [found["x-forwarded-for"] for found in headers] == ["198.51.100.7"] * 2
    assert [found["x-forwarded-proto"] for found in headers] == ["https", "http"]


async def test_a_client_cannot_claim_to_be_somebody_else(front: Front) -> None:
    await front.client.get(
        "/v1/models",
        headers={
            "X-Forwarded-For": "10.0.0.1",
            "Forwarded": "for=10.0.0.1",
            "X-Forwarded-Host": "elsewhere",
            "X-Forwarded-Proto": "https",
        },
    )

    headers = front.gateway.calls[0].headers
    assert headers["x-forwarded-for"] == "127.0.0.1"
    assert headers["x-forwarded-proto"] == "http"
    assert headers["host"] == f"127.0.0.1:{front.port}"
    assert not {"forwarded", "x-forwarded-host"} & headers.keys()


async def test_a_header_of_a_provider_does_not_steer_nginx(front: Front) -> None:
    async def answer(call: Call, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\nx-accel-redirect: /static/app.css\r\n"
            b"x-accel-buffering: yes\r\ncontent-length: 2\r\n\r\nok"
        )

    front.gateway.answer = answer

    received = await front.client.get("/v1/models")

    assert received.text == "ok"


async def test_static_files_come_from_disk(front: Front) -> None:
    answer = await front.client.get("/static/app.css")

    assert (answer.status_code, answer.text) == (200, "body {}")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-type"] == "text/css"
    assert front.web.calls == []


async def test_metrics_are_not_public(front: Front) -> None:
    answer = await front.client.get("/metrics")

    assert answer.status_code == 404
    assert front.web.calls == []


async def test_a_key_in_a_query_is_not_logged(front: Front, tmp_path: Path) -> None:
    await front.client.get("/v1beta/models?key=sk-audit-secret")
    await front.client.get("/v1beta/models/shown")

    log = tmp_path / "nginx.log"
    await until(lambda: "/v1beta/models/shown" in log.read_text())
    assert "sk-audit-secret" not in log.read_text()
