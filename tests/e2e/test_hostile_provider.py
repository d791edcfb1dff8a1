"""Providers that leak, redirect and send headers of their own: what reaches clients and records.

P5: headers by an allow list. P11: a provider's key stands in no answer, no row and no line of the
log, wherever the provider repeats it. P12: no redirect is followed.
"""

from __future__ import annotations

import http.client
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import orjson
import pytest

from apps.ai_models.models import AIModel
from tests.e2e.answers import HttpAnswer, ask
from tests.e2e.dump import find_text
from tests.e2e.raw_upstream import (
    Heard,
    RawUpstream,
    chunk,
    completion,
    respond,
    usage_chunk,
)
from tests.support.bench import Bench, Caller

# What comes over the wire is judged before any database is asked.
pytestmark = pytest.mark.sqlite

CHAT = "/v1/chat/completions"
# Upper and lower case, and nothing by which it could be known for a key.
KEY = "CanaryPlain6f1D0c2B9a7E4853ofTheProvider"
BAD_HEADERS = [
    "Set-Cookie: session=evil; Domain=gateway",
    "Set-Cookie2: evil",
    "Location: https://evil.example",
    "Refresh: 0; url=https://evil.example",
    "Server: evil",
    "Via: 1.1 evil",
    "X-Powered-By: evil",
    "openai-organization: org-evil",
    "openai-processing-ms: 1",
    "x-request-id: evil",
    "request-id: evil",
    "cf-ray: evil",
    "Strict-Transport-Security: max-age=0",
    "Clear-Site-Data: *",
    "Access-Control-Allow-Origin: *",
    "Access-Control-Allow-Credentials: true",
    "Content-Security-Policy: default-src *",
    "Content-Disposition: attachment; filename=evil.html",
    "Content-Location: /evil",
    "Link: <https://evil.example>; rel=preload",
    "Alt-Svc: h3=evil.example:443",
    "Cache-Control: public, max-age=99999",
    "Expires: Thu, 01 Jan 2099 00:00:00 GMT",
    "ETag: evil",
    "Age: 5",
    "Vary: evil",
    "Trailer: Set-Cookie",
    "Upgrade: h2c",
    "Proxy-Authenticate: Basic",
    "WWW-Authenticate: Basic realm=evil",
    "X-Accel-Redirect: /evil",
    "X-Should-Retry: true",
    "X-RateLimit-Remaining-Requests: 0",
    "X-Gateway-Output-Cap: 1",
    "NEL: evil",
    "Report-To: evil",
    "Service-Worker-Allowed: /",
    "X-Evil: evil",
]
OWN = {"cache-control", "content-type", "date", "request-id", "x-content-type-options"}
OWN |= {"x-request-id"}
STREAM = chunk("text") + chunk("", "stop") + usage_chunk() + b"data: [DONE]\n\n"
TRAILERS = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"
    b"Trailer: Set-Cookie\r\n\r\n%x\r\n%b\r\n0\r\nSet-Cookie: evil\r\nX-Evil: evil\r\n\r\n"
    % (len(STREAM), STREAM)
)


def _headers(heard: Heard) -> list[bytes]:
    if b'"stream":true' in heard.body:
        return [respond(STREAM, *BAD_HEADERS, kind="text/event-stream; charset=evil")]
    return [respond(completion("text"), *BAD_HEADERS, kind="application/json; charset=evil")]


def _error(status: str) -> Callable[[Heard], list[bytes]]:
    def say(heard: Heard) -> list[bytes]:
        return [respond(b"{}", *BAD_HEADERS, "Content-Encoding: identity", status=status)]

    return say


def _leak(body: str, status: str = "200 OK", **options: str) -> Callable[[Heard], list[bytes]]:
    """Return a provider that says a text of `KEY`."""
    headers = [options["header"].replace("KEY", KEY)] if "header" in options else []
    kind = options.get("kind", "application/json").replace("KEY", KEY)
    said = respond(body.replace("KEY", KEY).encode(), *headers, status=status, kind=kind)
    return lambda heard: [said]


def _say_event(heard: Heard) -> list[bytes]:
    event = orjson.dumps({"error": {"message": f"bad key {KEY}", "code": KEY, "type": KEY}})
    said = respond(chunk("text") + b"data: %b\n\n" % event, kind="text/event-stream")
    cut = said.index(b'data: {"error"')
    return [said[:cut], said[cut:]]


def _say_comment(heard: Heard) -> list[bytes]:
    comment = f": {KEY}\nevent: {KEY}\nid: {KEY}\nretry: {KEY}\n\n".encode()
    return [respond(comment, kind="text/event-stream")]


ERROR = '{"error":{"message":"%s","type":"invalid_request_error","code":"%s","param":"%s"}}'
LEAKS: dict[str, Callable[[Heard], list[bytes] | None]] = {
    "401 with the key": _leak(ERROR % ("Incorrect key: KEY", "KEY", "KEY"), "401 Unauthorized"),
    "403 with the key": _leak(ERROR % ("KEY has no rights", "KEY", "KEY"), "403 Forbidden"),
    "400 with the key": _leak(ERROR % ("The value KEY is odd", "KEY", "KEY"), "400 Bad"),
    "422 with the key": _leak(ERROR % ("messages: KEY", "x", "messages"), "422 Bad"),
    "404 with the key": _leak(ERROR % ("no model for KEY", "KEY", "KEY"), "404 Not Found"),
    "413 with the key": _leak("KEY", "413 Too Large"),
    "429 with the key": _leak(ERROR % ("slow down, KEY", "KEY", "KEY"), "429 Slow"),
    "500 with the key": _leak("Traceback: KEY", "500 Error", kind="text/plain"),
    "503 with the key": _leak('{"detail":"KEY"}', "503 Error"),
    "a reason with the key": _leak("{}", "400 KEY"),
    "a redirect with the key": _leak("", "302 Found", header="Location: http://127.0.0.1:1/KEY"),
    "a type with the key": _leak("{}", kind="text/KEY"),
    "an encoding with the key": _leak("{}", header="Content-Encoding: KEY"),
    "an id with the key": _leak("{}", header="X-Request-Id: KEY"),
    "an id with the key at 500": _leak("{}", "500 Error", header="Request-Id: KEY"),
    "a wait with the key": _leak("{}", "429 Slow", header="Retry-After: KEY"),
    "all headers as JSON": lambda heard: [respond(orjson.dumps(heard.lines))],
    "all headers as an object": lambda heard: [
        respond(orjson.dumps({"headers": heard.lines, "choices": None}))
    ],
    "all headers in an error": lambda heard: [
        respond(orjson.dumps({"error": {"message": heard.head.decode()}}), status="400 Bad")
    ],
    "the request itself": lambda heard: [heard.head + b"\r\n\r\n"],
    "the request as a body": lambda heard: [respond(heard.head, kind="text/html")],
    "an error inside the stream": _say_event,
    "a comment and no answer": _say_comment,
    "silence": lambda heard: None,
    "a cut": lambda heard: [],
    "a head that ends": lambda heard: [f"HTTP/1.1 200 OK\r\nX: {KEY}".encode(), b""],
}


@dataclass(slots=True)
class Hostile:
    """A gateway whose providers leak, and what it answered."""

    bench: Bench
    caller: Caller
    models: dict[str, AIModel]
    upstreams: dict[str, RawUpstream]
    answers: dict[tuple[str, bool], HttpAnswer] = field(default_factory=dict)

    def call(self, name: str, stream: bool) -> HttpAnswer:
        """Make a call, and return what came of its answer."""
        body = {
            "model": self.models[name].name,
            "messages": [{"role": "user", "content": "x"}],
            "stream": stream,
        }
        headers = self.caller.headers
        try:
            return ask(self.bench.gateway, "POST", CHAT, headers=headers, body=orjson.dumps(body))
        except http.client.IncompleteRead as cut:
            return HttpAnswer(200, {}, cut.partial)


WAYS: dict[str, Callable[[Heard], list[bytes] | None]] = {
    "headers": _headers,
    "trailers": lambda heard: [TRAILERS],
    **{f"headers at {status}": _error(f"{status} Bad") for status in (400, 401, 429, 500, 503)},
    **{f"redirect {status}": _leak("", f"{status} Go") for status in (301, 302, 303, 307, 308)},
    **LEAKS,
}

# Whose key is out of use then: the second call is refused before it is on record.
REFUSED = {"401 with the key", "headers at 401"}


@pytest.fixture(scope="module")
def hostile(module_bench: Bench) -> Iterator[Hostile]:
    """Run a provider for each way to be hostile, and make a call of each kind to it."""
    made = Hostile(module_bench, module_bench.make_caller(), {}, {})
    with RawUpstream(lambda heard: [respond(b"{}")]) as target:
        made.upstreams["target"] = target
        for name, say in WAYS.items():
            upstream = made.upstreams[name] = RawUpstream(say)
            upstream.__enter__()
            if name.startswith("redirect"):
                headers = [f"Location: {target.base_url}/chat/completions"]
                upstream.say = lambda heard, status=name[-3:], headers=headers: [  # type: ignore[misc]  # bound per turn
                    respond(b"", *headers, status=f"{status} Go")
                ]
            provider = module_bench.make_provider(
                upstream.base_url,
                secret=KEY,
                first_byte_timeout_seconds=0.7,
                idle_timeout_seconds=0.7,
            )
            made.models[name] = module_bench.make_model("raw", provider=provider)
        module_bench.wait_for_model(list(made.models.values())[-1], made.caller)
        for name in WAYS:
            for stream in (False, True):
                made.answers[name, stream] = made.call(name, stream)
        yield made
        for name in WAYS:
            made.upstreams[name].__exit__()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", ["headers", "trailers"])
def test_of_a_provider_s_headers_none_goes_on(hostile: Hostile, name: str, stream: bool) -> None:
    if name == "trailers" and not stream:
        return  # A stream where none was asked for is refused; see the next test.
    answer = hostile.answers[name, stream]

    assert answer.status == 200
    assert set(answer.headers) == OWN | {"transfer-encoding" if stream else "content-length"}
    kind = "text/event-stream" if stream else "application/json"
    assert answer.headers["content-type"] == f"{kind}; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    assert "evil" not in str(answer.headers)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", [400, 401, 429, 500, 503])
def test_of_the_headers_of_a_refusal_none_goes_on(
    hostile: Hostile, status: int, stream: bool
) -> None:
    answer = hostile.answers[f"headers at {status}", stream]

    assert answer.status == {400: 400, 401: 502, 429: 429, 500: 502, 503: 503}[status]
    assert set(answer.headers) <= OWN | {
        *("content-length", "retry-after", "x-should-retry", "connection"),
    }
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    assert "evil" not in str(answer.headers)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(hostile: Hostile, status: int, stream: bool) -> None:
    answer = hostile.answers[f"redirect {status}", stream]

    assert answer.status == 502
    assert "location" not in answer.headers
    assert len(hostile.upstreams[f"redirect {status}"].heard) == 2
    assert hostile.upstreams["target"].connections == 0


@pytest.mark.parametrize("name", LEAKS)
def test_no_answer_holds_the_key_that_the_provider_repeats(hostile: Hostile, name: str) -> None:
    heard = hostile.upstreams[name].heard
    assert all(f"authorization: Bearer {KEY}" in one.lines for one in heard)
    # A key that was refused is not sent a second time.
    assert len(heard) >= (1 if name in REFUSED else 2)
    for stream in (False, True):
        answer = hostile.answers[name, stream]
        text = str(answer.headers).lower() + answer.body.decode("utf-8", "replace").lower()
        assert KEY.lower() not in text
        assert (answer.status == 200) is (stream and name == "an error inside the stream")


def test_no_row_and_no_line_of_the_log_holds_it(hostile: Hostile) -> None:
    count = 2 * len(WAYS) - len(REFUSED)
    statement = hostile.bench.settled(hostile.caller, count)
    assert len(statement.rows) == count

    for spelling in (KEY, KEY.lower()):
        assert find_text(hostile.bench.database, spelling) == set()
        assert spelling not in hostile.bench.gateway.log()
    # What was answered whole, and the word before the error inside the stream.
    assert sum(charge > 0 for charge in statement.charges) == 4
