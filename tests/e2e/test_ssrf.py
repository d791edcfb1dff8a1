"""Where both planes connect to, with a real resolver, a name server and listeners (S1 to S9).

127.0.0.2 stands for what may be reached, at one port; 127.0.0.1 and ::1 for what may not, at the
same port. Nobody knows an address but the name server.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

import orjson
import pytest

from apps.ai_models.models import AIModel
from apps.providers.models import Provider
from apps.users.tokens import open_session
from tests.e2e.answers import HttpAnswer, ask
from tests.e2e.raw_upstream import RawUpstream, completion, respond
from tests.e2e.rows import chat
from tests.support.bench import PROVIDER_SECRET, Bench, Caller, open_bench
from tests.support.databases import Database
from tests.support.dns import NameServer, name_server
from tests.support.gateway import FAST, DemoThread
from tests.support.people import make_admin
from tests.support.processes import free_port

# What comes over the wire is judged before any database is asked.
pytestmark = pytest.mark.sqlite

CHAT = "/v1/chat/completions"
REFUSED = "This URL is not allowed."
LISTING = respond(b'{"object":"list","data":[{"id":"raw"}]}', "Connection: close")
ANSWER = respond(completion("text"), "Connection: close")
# Names are asked for anew at each connection.
CONSTANTS = {**FAST, "apps.proxy.names:NAME_SECONDS": 0.0}


@dataclass(slots=True)
class Net:
    """A gateway, the name server that it asks, and who listens."""

    bench: Bench
    caller: Caller
    names: NameServer
    allowed: RawUpstream
    forbidden: list[RawUpstream]
    port: int
    providers: dict[str, Provider] = field(default_factory=dict)
    models: dict[str, AIModel] = field(default_factory=dict)

    def prepare(self, urls: list[str]) -> None:
        """Make a model for each URL, as if it had been saved long ago."""
        for url in urls:
            self.providers[url] = self.bench.make_provider(url)
            self.models[url] = self.bench.make_model("raw", provider=self.providers[url])
        last = self.bench.make_model()
        self.bench.wait_for_model(last, self.caller)

    def call(self, url: str) -> HttpAnswer:
        """Call the model whose provider is at a URL."""
        body = {
            "model": self.models[url].name,
            "messages": [{"role": "user", "content": "x"}],
        }
        headers = self.caller.headers
        return ask(self.bench.gateway, "POST", CHAT, headers=headers, body=orjson.dumps(body))

    def rest(self, path: str, **body: object) -> HttpAnswer:
        """Change something over REST, as an administrator."""
        # Each may ask providers 30 times a minute only.
        token = open_session(user=make_admin(), request=None).access
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        return ask(
            self.bench.gateway, "POST", f"/api/admin/{path}/", headers=headers,
            body=orjson.dumps(body),
        )  # fmt: skip

    def try_provider(self, url: str) -> tuple[bool, str]:
        """Have the control plane ask a provider, and return what it says."""
        answer = self.rest(f"providers/{self.providers[url].pk}/test")
        assert answer.status == 200, answer.body
        body = orjson.loads(answer.body)
        return body["success"], body["message"]

    @property
    def forbidden_connections(self) -> int:
        """How often somebody was reached who must not be."""
        return sum(listener.connections for listener in self.forbidden)


@pytest.fixture(scope="module")
def net(
    module_db: Database, demo: DemoThread, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Net]:
    """Run everything."""
    directory = tmp_path_factory.mktemp("ssrf")
    with ExitStack() as stack:
        names, prefix = stack.enter_context(name_server(directory))
        port = free_port()

        def say(heard: object) -> list[bytes]:
            return [LISTING if b"GET " in heard.head else ANSWER]  # type: ignore[attr-defined]  # Heard

        def listen(host: str) -> RawUpstream:
            return stack.enter_context(RawUpstream(say, host=host, port=port))

        bench = open_bench(
            directory, module_db, demo, constants=CONSTANTS, prefix=prefix,
            # Listed or not, link-local addresses stay closed.
            environment={"PRIVATE_UPSTREAMS": f"127.0.0.2:{port},169.254.0.0/16,0.0.0.0/8"},
        )  # fmt: skip
        stack.callback(bench.gateway.stop)
        forbidden = [listen(host) for host in ("127.0.0.1", "127.0.0.3", "::1")]
        made = Net(bench, bench.make_caller(), names, listen("127.0.0.2"), forbidden, port)
        urls = (url.replace("PORT", str(port)) for url in URLS)
        made.prepare([*_tell_names(names, port), *urls])
        yield made


# What a name resolves to, one list a look-up; only the first of the first may be used.
TURNS: dict[str, list[list[str]]] = {
    "loopback the second time": [["127.0.0.2"], ["127.0.0.1"]],
    "loopback in IPv6 the second time": [["127.0.0.2"], ["::1"]],
    "loopback beside it the second time": [["127.0.0.2"], ["127.0.0.2", "127.0.0.1"]],
    "loopback before it the second time": [["127.0.0.2"], ["127.0.0.1", "127.0.0.2"]],
    "IPv6 beside it the second time": [["127.0.0.2"], ["127.0.0.2", "::1"]],
}
ADDRESSES = [
    "127.0.0.1", "127.0.0.3", "0.0.0.9", "10.0.0.1", "172.16.0.1", "192.168.0.1", "100.64.0.1",
    "169.254.169.254", "169.254.170.2", "169.254.170.23", "100.100.100.200", "168.63.129.16",
    "192.0.0.192", "224.0.0.1", "255.255.255.255", "198.18.0.1", "::", "::1", "::ffff:127.0.0.1",
    "::ffff:169.254.169.254", "::ffff:0:127.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe", "64:ff9b:1::7f00:1", "2002:7f00:1::1", "2002:a9fe:a9fe::1",
    "2001:0:7f00:1::", "fe80::1", "fec0::1", "fc00::1", "fd00:ec2::254", "fd00:42::42", "ff02::1",
    "100::1", "2001:db8::1",
]  # fmt: skip


LITERALS = [
    "http://127.0.0.1:PORT", "https://127.0.0.1:PORT", "http://127.0.0.3:PORT", "http://[::1]:PORT",
    "http://[::ffff:7f00:1]:PORT", "http://[::ffff:127.0.0.1]:PORT", "http://[::127.0.0.1]:PORT",
    "https://[64:ff9b::7f00:1]:PORT", "https://[2002:7f00:1::1]:PORT", "http://0.0.0.0:PORT",
    "http://0:PORT", "http://127.1:PORT", "http://2130706433:PORT", "http://0x7f.1:PORT",
    "http://0x7f000001:PORT", "http://0177.0.0.1:PORT", "http://017700000001:PORT",
    "http://\u2460\u2461\u2466.0.0.1:PORT", "http://127\u30020\u30020\u30021:PORT",
    "http://127.0.0.1.:PORT", "http://127.0.0.2.:PORT", "http://169.254.169.254",
    "https://169.254.169.254", "https://169.254.170.2", "http://metadata.google.internal",
    "https://metadata.google.internal", "https://100.100.100.200", "https://168.63.129.16",
    "https://[fd00:ec2::254]", "http://127.0.0.2:1", "http://127.0.0.2", "http://good@127.0.0.1:PORT",
    "http://127.0.0.2:PORT@127.0.0.1:PORT", "http://127.0.0.1:PORT#@127.0.0.2:PORT",
    "http://127.0.0.2:PORT\\@127.0.0.1:PORT", "http://127.0.0.2%00.127.0.0.1:PORT",
    "http://127.0.0.2\t:PORT", "http://127.0.0.2\n:PORT", "http:127.0.0.1:PORT",
    "//127.0.0.1:PORT", "http://127.0.0.2:0", "http://127.0.0.2:99999", "http://127.0.0.2:-1",
    "http://127.0.0.2:PORT/../x", "http://127.0.0.2:PORT/%2e%2e/x", "http://127.0.0.2:PORT//x",
    "http://127.0.0.2:PORT/v1?a=b", "gopher://127.0.0.2:PORT", "file:///etc/passwd",
    "ftp://127.0.0.2:PORT", "http+unix://127.0.0.2:PORT", "unix:/tmp/x", "data:,x",
    "ws://127.0.0.2:PORT", "http://127.0.0.2:PORT\r\nX: y",
]  # fmt: skip
UNKNOWN = "unknown.example.com"
URLS = [
    *LITERALS, "http://127.0.0.1:1", "http://127.0.0.1:99", "http://127.0.0.2:PORT/v1",
    f"http://{UNKNOWN}:PORT/v1",
]  # fmt: skip


def _tell_names(names: NameServer, port: int) -> list[str]:
    """Have the name server know all names, and return the URLs with them."""
    urls = []
    for number, turns in enumerate(TURNS.values()):
        for host in (f"turns{number}.example.com", f"asked{number}.example.com"):
            names.answers[host] = turns
            urls.append(f"http://{host}:{port}/v1")
    for number, address in enumerate(ADDRESSES):
        host = f"inside{number}.example.com"
        names.answers[host] = [[address]]
        urls += [f"http://{host}:{port}/v1", f"https://{host}:{port}/v1"]
    names.answers["listed.example.com"] = [["127.0.0.2"]]
    return [*urls, f"http://listed.example.com:{port}/a"]


@pytest.mark.parametrize("number", range(len(TURNS)), ids=list(TURNS))
def test_a_name_that_turns_inside_leads_nowhere(net: Net, number: int) -> None:
    host = f"turns{number}.example.com"
    url = f"http://{host}:{net.port}/v1"
    allowed = net.allowed.connections

    first, second = net.call(url), net.call(url)

    assert (first.status, second.status) == (200, 502)
    assert second.error["code"] == "upstream_unreachable"
    assert net.names.asked.count(host) == 2
    assert net.allowed.connections - allowed == 1
    assert net.forbidden_connections == 0


@pytest.mark.parametrize("number", range(len(TURNS)), ids=list(TURNS))
def test_it_leads_nowhere_from_the_control_plane_either(net: Net, number: int) -> None:
    url = f"http://asked{number}.example.com:{net.port}/v1"
    allowed = net.allowed.connections

    first, second = net.try_provider(url), net.try_provider(url)

    assert first[0] is True
    assert second == (False, REFUSED)
    assert net.allowed.connections - allowed == 1
    assert net.forbidden_connections == 0


@pytest.mark.parametrize("number", range(len(ADDRESSES)), ids=ADDRESSES)
def test_a_name_with_a_forbidden_address_is_not_connected_to(net: Net, number: int) -> None:
    urls = [f"{scheme}://inside{number}.example.com:{net.port}/v1" for scheme in ("http", "https")]

    for url in urls:
        answer = net.call(url)
        assert (answer.status, answer.error["code"]) == (502, "upstream_unreachable")
        assert net.try_provider(url) == (False, REFUSED)
    assert net.names.asked.count(f"inside{number}.example.com") == 4
    assert net.forbidden_connections == 0


def test_e47_a_name_that_nobody_knows_is_passed_over_for_the_next_route(net: Net) -> None:
    unknown, listed = f"http://{UNKNOWN}:{net.port}/v1", f"http://127.0.0.2:{net.port}/v1"
    stage = net.bench.stage(
        "raw", provider=net.providers[unknown], fallbacks=[("raw", net.providers[listed])]
    )

    alone, passed_over = net.call(unknown), chat(stage)

    assert (alone.status, alone.error["code"]) == (502, "upstream_unreachable")
    assert passed_over.status == 200
    assert [(attempt.outcome, attempt.error_text) for attempt in stage.settled().attempts] == [
        ("upstream_unreachable", "gaierror"),
        ("answered", ""),
    ]
    assert net.names.asked.count(UNKNOWN) == 2
    assert net.forbidden_connections == 0


@pytest.mark.parametrize("literal", LITERALS)
def test_a_url_that_leads_elsewhere_is_refused_at_save_and_at_use(net: Net, literal: str) -> None:
    url = literal.replace("PORT", str(net.port))
    before = net.allowed.connections

    saved = net.rest("providers", name="new", base_url=url, api_key=PROVIDER_SECRET)

    assert (saved.status, orjson.loads(saved.body)) == (400, {"base_url": [REFUSED]})
    if url.endswith("?a=b"):
        return  # It leads nowhere else, but nobody can save one.
    assert net.try_provider(url) == (False, REFUSED)
    assert net.call(url).status == 503
    assert net.forbidden_connections == 0
    assert net.allowed.connections == before


def test_open_and_closed_ports_inside_look_alike(net: Net) -> None:
    urls = ["http://127.0.0.1:PORT", "http://127.0.0.1:1", "http://127.0.0.1:99"]

    found = {net.try_provider(url.replace("PORT", str(net.port))) for url in urls}

    assert found == {(False, REFUSED)}
    assert net.forbidden_connections == 0


def test_what_is_listed_works_with_its_name_kept(net: Net) -> None:
    urls = [f"http://127.0.0.2:{net.port}/v1", f"http://listed.example.com:{net.port}/a"]

    answers = [net.call(url) for url in urls]

    assert [answer.status for answer in answers] == [200, 200]
    assert net.allowed.heard[-1].lines[:2] == [
        "POST /a/chat/completions HTTP/1.1",
        f"host: listed.example.com:{net.port}",
    ]
