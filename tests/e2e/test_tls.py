"""Providers over TLS: who proves that he is who was asked for hears a call, and nobody else.

The gateway trusts one authority, by SSL_CERT_FILE.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import pytest

from tests.e2e.answers import check_error
from tests.e2e.conftest import check_books
from tests.e2e.raw_upstream import Heard, RawUpstream, chunk, completion, respond, usage_chunk
from tests.e2e.rows import chat
from tests.support.bench import INPUT_NANOS, OUTPUT_NANOS, PROVIDER_SECRET, Bench, open_bench
from tests.support.certificates import Authority
from tests.support.databases import Database
from tests.support.gateway import DemoThread

# What comes over the wire is judged before any database is asked.
pytestmark = pytest.mark.sqlite

NAME: Final = "localhost"
CHARGE_NANOS: Final = 10 * INPUT_NANOS + 16 * OUTPUT_NANOS
STREAM: Final = chunk("Over") + chunk(" TLS", "stop") + usage_chunk() + b"data: [DONE]\n\n"
# How a server proves who it is: by the authority that is trusted, or by another one.
Prove = Callable[[Authority, Authority], ssl.SSLContext | None]
UNPROVEN: Final[dict[str, Prove]] = {
    "an unknown authority": lambda _, other: other.context_for(NAME),
    "no authority": lambda _, other: other.context_for(NAME, is_self_signed=True),
    "another name": lambda trusted, _: trusted.context_for("api.example.com"),
    "an address": lambda trusted, _: trusted.context_for("127.0.0.1"),
    "a certificate that has ended": lambda trusted, _: trusted.context_for(NAME, days=-1),
    "a certificate that has not begun": lambda trusted, _: trusted.context_for(NAME, days=3),
    "no TLS": lambda _, __: None,
}
unproven = pytest.mark.parametrize("way", UNPROVEN)


@dataclass(frozen=True, slots=True)
class Secured:
    """A gateway, the authority that it trusts, and one that it does not know."""

    bench: Bench
    trusted: Authority
    other: Authority

    @contextmanager
    def unproven(self, way: str) -> Iterator[tuple[RawUpstream, str]]:
        """Run a server that would answer, and give it with the URL that it cannot prove."""
        with RawUpstream(_say, context=UNPROVEN[way](self.trusted, self.other)) as upstream:
            yield upstream, f"https://{NAME}:{upstream.port}/v1"


@pytest.fixture(scope="module")
def secured(
    module_db: Database, demo: DemoThread, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Secured]:
    """Run a gateway that trusts one authority."""
    directory = tmp_path_factory.mktemp("tls")
    trusted, other = Authority(directory / "trusted"), Authority(directory / "other")
    bench = open_bench(directory, module_db, demo, environment={"SSL_CERT_FILE": str(trusted.path)})
    yield Secured(bench, trusted, other)
    bench.gateway.stop()
    check_books()


def _say(heard: Heard) -> list[bytes]:
    if heard.json.get("stream"):
        return [respond(STREAM, kind="text/event-stream")]
    return [respond(completion("Over TLS"))]


@pytest.mark.parametrize(
    ("host", "asked"), [(NAME, [NAME]), ("127.0.0.1", [None])], ids=["a name", "an address"]
)
def test_who_proves_who_he_is_hears_calls_and_the_key_on_one_connection(
    secured: Secured, host: str, asked: list[str | None]
) -> None:
    context = secured.trusted.context_for(host)
    names: list[str | None] = []
    context.sni_callback = lambda _socket, name, _context: names.append(name)
    with RawUpstream(_say, context=context) as upstream:
        provider = secured.bench.make_provider(f"https://{host}:{upstream.port}/v1")
        stage = secured.bench.stage("raw", provider=provider)

        whole, streamed = chat(stage), chat(stage, stream=True)

    assert (whole.status, streamed.status) == (200, 200)
    assert b"Over TLS" in whole.body
    assert streamed.body.endswith(b"data: [DONE]\n\n")
    assert (upstream.connections, names) == (1, asked)
    assert [heard.lines[:3] for heard in upstream.heard] == 2 * [
        [
            "POST /v1/chat/completions HTTP/1.1",
            f"host: {host}:{upstream.port}",
            f"authorization: Bearer {PROVIDER_SECRET}",
        ]
    ]
    assert stage.settled(2).charges == (CHARGE_NANOS, CHARGE_NANOS)


@unproven
def test_e47_who_cannot_prove_who_he_is_hears_nothing(secured: Secured, way: str) -> None:
    with secured.unproven(way) as (upstream, url):
        provider = secured.bench.make_provider(url, connect_timeout_seconds=1)
        stage = secured.bench.stage("raw", provider=provider)

        answer = chat(stage)

    check_error(
        answer,
        status=502,
        type="server_error",
        code="upstream_unreachable",
        retries=True,
        has_retry_after=True,
    )
    assert upstream.heard == []
    statement = stage.settled()
    assert (statement.charges, statement.entries) == ((0,), ())
    (attempt,) = statement.attempts
    assert attempt.outcome == "upstream_unreachable"
    # An operator has to see that it is not the network.
    text = "TimeoutError" if way == "no TLS" else "SSLCertVerificationError"
    assert attempt.error_text == text


@unproven
def test_who_cannot_prove_who_he_is_is_passed_over_for_the_next_route(
    secured: Secured, way: str
) -> None:
    with secured.unproven(way) as (upstream, url):
        provider = secured.bench.make_provider(url, connect_timeout_seconds=1)
        stage = secured.bench.stage(
            "raw", provider=provider, fallbacks=[("demo-chat-proven:prompt=10,tokens=16", None)]
        )

        answer = chat(stage)

    assert answer.status == 200
    assert upstream.heard == []
    statement = stage.settled()
    first, second = statement.attempts
    assert (first.outcome, second.outcome) == ("upstream_unreachable", "answered")
    # At the latest after the second that its provider is given for a connection.
    assert first.duration_ms < 3_000
    assert statement.charges == (CHARGE_NANOS,)
