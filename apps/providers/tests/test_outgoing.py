"""Tests of the way out: where it leads, where it does not, and how much it takes."""

from __future__ import annotations

import ast
import gzip
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from apps.core.addresses import AllowedNetwork, parse_private_upstreams
from apps.providers.outgoing import Answer, Ask, Failure, OutgoingFailed, Resolve, fetch
from apps.providers.tests.listener import Listener, Script, closed_port, drip, response
from tests.support.cases import for_all
from tests.support.certificates import Authority

LOOPBACK = parse_private_upstreams("127.0.0.0/8")
APPS = Path(__file__).parents[2]
SECRET = "sk-CANARY-UP-0123456789"


class Resolver:
    """Gives one list of addresses after the other, the last one for ever."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, int]] = []

    def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append((host, port))
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def _fail(
    url: str,
    *,
    private: tuple[AllowedNetwork, ...] = LOOPBACK,
    resolve: Resolve | None = None,
    timeout_seconds: float = 5.0,
    body_bytes_max: int = 1_000,
) -> Failure:
    ask = Ask(url, timeout_seconds=timeout_seconds, body_bytes_max=body_bytes_max)
    with pytest.raises(OutgoingFailed) as caught:
        fetch(ask, private=private, resolve=resolve or Resolver([]))
    return caught.value.failure


def test_a_name_is_resolved_once_and_kept_for_the_server() -> None:
    resolver = Resolver(["127.0.0.1"])
    with Listener(response(b"hello")) as server:
        ask = Ask(f"http://provider.test:{server.port}/v1/models?a=b", headers={"x-one": "1"})

        answer = fetch(ask, private=LOOPBACK, resolve=resolver)

    assert answer == Answer(200, b"hello")
    assert resolver.asked == [("provider.test", server.port)]
    head = server.heard[0].decode().lower().split("\r\n")
    assert head[0] == "get /v1/models?a=b http/1.1"
    assert f"host: provider.test:{server.port}" in head
    assert {"x-one: 1", "accept-encoding: identity"} <= set(head)


def test_a_name_that_changes_its_mind_leads_nowhere() -> None:
    allowed = Listener(response(), host="127.0.0.2")
    forbidden = Listener(response(), host="127.0.0.1", port=allowed.port)
    private = parse_private_upstreams(f"127.0.0.2:{allowed.port}")
    resolver = Resolver(["127.0.0.2"], ["127.0.0.1"], ["127.0.0.2", "127.0.0.1"], [])
    url = f"http://rebind.example.com:{allowed.port}/v1"
    with allowed, forbidden:
        answer = fetch(Ask(url), private=private, resolve=resolver)
        failures = [_fail(url, private=private, resolve=resolver) for _ in range(3)]

    assert answer.status_code == 200
    assert failures == [Failure.NOT_ALLOWED] * 3
    assert (allowed.connections, forbidden.connections) == (1, 0)
    assert len(resolver.asked) == 4


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Again", "308 For ever"])
def test_a_redirect_is_an_answer_and_not_followed(status: str) -> None:
    with Listener(response()) as target:
        location = f"Location: {target.base_url}"
        with Listener(response(b"", status, location)) as server:
            answer = fetch(Ask(server.base_url), private=LOOPBACK)

    assert answer.status_code == int(status[:3])
    assert target.connections == 0


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        (response(b"x" * 1_001), Failure.TOO_LARGE),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 200_000, Failure.TOO_LARGE),
        (
            response(gzip.compress(b"x" * 100_000), "200 OK", "Content-Encoding: gzip"),
            Failure.BROKEN,
        ),
        (response(b"{}", "200 OK", "Content-Encoding: br"), Failure.BROKEN),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", Failure.BROKEN),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000, Failure.BROKEN),
        (b"SSH-2.0-OpenSSH_9.9\r\n", Failure.BROKEN),
        (b"", Failure.BROKEN),
        (drip(b"HTTP/1.1 200 OK\r\nX-Slow: "), Failure.TIMEOUT),
        (drip(b"HTTP/1.1 200 OK\r\n\r\n"), Failure.TIMEOUT),
    ],
)
def test_hostile_answers_are_bounded(answer: bytes | Script, failure: Failure) -> None:
    seconds = 1.0 if failure is Failure.TIMEOUT else 5.0
    with Listener(answer) as server:
        assert _fail(server.base_url, timeout_seconds=seconds) is failure


def test_a_resolver_that_hangs_does_not_hold_anybody_up() -> None:
    is_over = threading.Event()

    def hang(host: str, port: int) -> list[str]:
        is_over.wait(10)
        return ["127.0.0.1"]

    failure = _fail("http://provider.test:8080/", resolve=hang, timeout_seconds=0.2)
    is_over.set()

    assert failure is Failure.TIMEOUT


def test_what_cannot_be_reached_is_told_by_its_class() -> None:
    def unknown(host: str, port: int) -> list[str]:
        raise OSError("no such name")

    with closed_port() as port:
        assert _fail(f"http://127.0.0.1:{port}/v1") is Failure.NOT_CONNECTED
    assert _fail("http://provider.test:8080/", resolve=unknown) is Failure.NAME_UNKNOWN


def test_the_next_address_is_tried_where_the_first_is_dead() -> None:
    with Listener(response(), host="127.0.0.3") as server:
        url = f"http://provider.test:{server.port}/"

        answer = fetch(Ask(url), private=LOOPBACK, resolve=Resolver(["127.0.0.2", "127.0.0.3"]))

    assert answer.status_code == 200


@for_all(
    "url",
    [
        "http://127.0.0.1/",
        "https://127.0.0.1/",
        "http://[::1]/",
        "https://[::ffff:7f00:1]/",
        "https://[64:ff9b::a9fe:a9fe]/",
        "https://[2002:a9fe:a9fe::1]/",
        "http://127.1/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://0177.0.0.1/",
        "https://169.254.169.254/latest/meta-data/",
        "https://168.63.129.16/",
        "https://100.100.100.200/",
        "https://224.0.0.1/",
        "https://metadata.google.internal/",
        "https://kubernetes.default/",
        "https://localhost/",
        "https://LOCALHOST/",
        "https://good@127.0.0.1/",
        "https://127.0.0.1#@good",
        "https://good\\@127.0.0.1/",
        "https://good%00.127.0.0.1/",
        "https://good\t.example.com/",
        "https:127.0.0.1",
        "https://api.example.com:0/",
        "https://api.example.com:99999/",
        "https://api.example.com/../secret",
        "gopher://api.example.com/",
        "file:///etc/passwd",
        "http+unix://api.example.com/",
        "data:,x",
        "http://public.example.com/",
        "",
    ],
)
def test_what_the_policy_refuses_is_refused_with_one_text(url: str) -> None:
    resolver = Resolver(["127.0.0.1"])

    assert _fail(url, private=(), resolve=resolver) == "This URL is not allowed."
    assert resolver.asked == []


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "fe80::1%lo", "nonsense"]
)
def test_a_public_name_that_leads_inside_is_refused(address: str) -> None:
    url = "https://api.example.com/v1"

    assert _fail(url, private=(), resolve=Resolver([address])) == "This URL is not allowed."


def test_only_listed_ports_of_private_hosts_are_open() -> None:
    with Listener(response()) as server, Listener(response()) as other:
        private = parse_private_upstreams(f"127.0.0.1:{server.port},169.254.0.0/16")

        assert fetch(Ask(server.base_url), private=private).status_code == 200
        assert _fail(other.base_url, private=private) is Failure.NOT_ALLOWED
        assert _fail("http://169.254.169.254/", private=private) is Failure.NOT_ALLOWED

    assert other.connections == 0


def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with Listener(response()) as proxy, Listener(response()) as server:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")

        answer = fetch(Ask(server.base_url), private=LOOPBACK)

    assert (answer.status_code, proxy.connections) == (200, 0)


def test_a_certificate_is_checked_against_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)
    context = authority.context_for("api.example.com")
    names: list[str | None] = []
    context.sni_callback = lambda _socket, name, _context: names.append(name)
    resolver = Resolver(["127.0.0.1"])
    with Listener(response(), context=context) as server:
        right = f"https://api.example.com:{server.port}/v1"
        untrusted = _fail(right, resolve=resolver)
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.path))
        answer = fetch(Ask(right), private=LOOPBACK, resolve=resolver)
        wrong = _fail(f"https://other.example.com:{server.port}/v1", resolve=resolver)

    assert (untrusted, wrong) == (Failure.TLS, Failure.TLS)
    assert answer.status_code == 200
    assert names == ["api.example.com", "api.example.com", "other.example.com"]


def test_secrets_are_not_in_what_is_printed() -> None:
    ask = Ask("https://api.example.com", headers={"authorization": SECRET}, body=SECRET.encode())

    assert SECRET not in f"{ask!r} {Answer(200, SECRET.encode())!r}"


def test_there_is_no_other_way_out() -> None:
    clients = {"httpx", "httpcore", "aiohttp", "requests", "urllib3", "http.client"}
    clients |= {"aiohappyeyeballs", "httptools"}
    clients |= {"urllib.request", "websockets", "smtplib", "ftplib"}
    found = set()
    for path in APPS.rglob("*.py"):
        if {"tests", "demo"} & set(path.relative_to(APPS).parts):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            if any(name in clients or name.partition(".")[0] in clients for name in names):
                found.add(str(path.relative_to(APPS)))

    # The data plane has a client and a guard of its own, and a server with the same parser; the
    # installation looks at its own port.
    assert found == {
        "providers/outgoing.py",
        "proxy/http_client.py",
        "proxy/protocol.py",
        "proxy/installation.py",
        "proxy/upstream.py",
    }
