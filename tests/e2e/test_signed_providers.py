"""Vertex AI and Bedrock, whose requests are signed anew each time, behind a gateway.

The clouds of the tests check signatures and tokens with code of their own and have a demo provider
answer. Usage × price is what is charged, to the nano.

Over 400 lines because both clouds are tried in all that they may do to a call.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any, Final

import anthropic
import openai
import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from django.utils import timezone
from google import genai
from google.genai import types

from apps.providers.asking import ask_for_models, ask_for_one_token
from apps.providers.credentials import change_key
from apps.providers.health import check_key
from apps.providers.models import Provider, ProviderKey
from tests.e2e.answers import ask
from tests.e2e.raw_upstream import Heard
from tests.e2e.rows import chat
from tests.e2e.wire import LAST_CHUNK, RawConnection, body_of, post_bytes
from tests.support.amazon_frames import chunk, exception
from tests.support.bench import INPUT_NANOS, OUTPUT_NANOS, Bench, Stage
from tests.support.clouds import (
    ACCESS_KEY_ID,
    PROJECT,
    SECRET_ACCESS_KEY,
    SESSION_TOKEN,
    Cloud,
    Refused,
    aws_key,
    make_private_key,
)
from tests.support.gateway import FAST
from tests.support.processes import wait_until

# What is signed, and how it is metered, depends on no engine.
pytestmark = pytest.mark.sqlite

CONSTANTS = {
    **FAST,
    "apps.proxy.sharing:SHARE_SECONDS": 0.05,
    # Tokens of a few seconds are renewed in time.
    "apps.proxy.signing:MARGIN_SECONDS": 0.0,
    "apps.proxy.signing:RENEW_SECONDS": 0.0,
}
WISHES: Final = "demo-chat:prompt=10,tokens=12"
CHARGE: Final = 10 * INPUT_NANOS + 12 * OUTPUT_NANOS
HELLO: Final[Any] = [{"role": "user", "content": "Say something."}]
# What a provider of each kind is, by what its clients know it under.
KINDS: Final = {
    "vertex-gemini": ("gemini", f"{PROJECT}/publishers/google", "google-service-account"),
    "vertex-anthropic": ("anthropic", f"{PROJECT}/publishers/anthropic", "google-service-account"),
    "vertex-openai": ("openai", f"{PROJECT}/endpoints/openapi", "google-service-account"),
    "bedrock-anthropic": ("anthropic", "/model", "aws-sigv4"),
    "bedrock-openai": ("openai", "/openai/v1", "aws-sigv4"),
}


@pytest.fixture(scope="module")
def private_key() -> rsa.RSAPrivateKey:
    """Return the key of a service account, made once."""
    return make_private_key()


@pytest.fixture
def cloud(bench: Bench, private_key: rsa.RSAPrivateKey) -> Iterator[Cloud]:
    """Run both clouds."""
    with Cloud(bench.demo, private_key) as cloud:
        yield cloud


def provider_at(bench: Bench, cloud: Cloud, kind: str, secret: str = "", **values: Any) -> Provider:
    """Make a provider of a kind with a key that is well, or with another one."""
    dialect, path, key_header = KINDS[kind]
    is_google = key_header == "google-service-account"
    return bench.make_provider(
        cloud.origin + path,
        secret=secret or (cloud.service_account() if is_google else aws_key()),
        dialect=dialect,
        key_header=key_header,
        **values,
    )


def stage_at(bench: Bench, cloud: Cloud, kind: str, wishes: str = WISHES, **values: Any) -> Stage:
    """Return a stage at a provider of a kind."""
    return bench.stage(wishes, provider=provider_at(bench, cloud, kind, **values))


# ---- clients of all dialects


def ask_openai(stage: Stage, *, is_stream: bool) -> str:
    """Return what OpenAI's SDK gets."""
    client = stage.client(max_retries=0)
    if not is_stream:
        return client.chat.completions.create(**stage.body()).choices[0].message.content or ""
    chunks = list(client.chat.completions.create(**stage.body(stream=True)))
    return "".join(one.choices[0].delta.content or "" for one in chunks if one.choices)


def ask_anthropic(stage: Stage, *, is_stream: bool, **values: Any) -> str:
    """Return what Anthropic's SDK gets."""
    asked: Any = {"model": stage.model.name, "max_tokens": 100, "messages": HELLO, **values}
    with anthropic.Anthropic(
        api_key=stage.caller.raw, base_url=stage.bench.gateway.url, timeout=20, max_retries=0
    ) as client:
        if not is_stream:
            return "".join(
                block.text
                for block in client.messages.create(**asked).content
                if block.type == "text"
            )
        with client.messages.stream(**asked) as stream:
            return "".join(stream.text_stream)


def ask_gemini(stage: Stage, *, is_stream: bool) -> str:
    """Return what Google's SDK gets."""
    options = types.HttpOptions(base_url=stage.bench.gateway.url, timeout=20_000)
    with genai.Client(api_key=stage.caller.raw, http_options=options) as client:
        asked: Any = {"model": stage.model.name, "contents": "Say something."}
        if not is_stream:
            return client.models.generate_content(**asked).text or ""
        return "".join(one.text or "" for one in client.models.generate_content_stream(**asked))


CLIENTS: Final[dict[str, Callable[..., str]]] = {
    "openai": ask_openai,
    "anthropic": ask_anthropic,
    "gemini": ask_gemini,
}


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("kind", KINDS)
def test_clients_of_all_dialects_are_answered_and_charged_exactly(
    bench: Bench, cloud: Cloud, kind: str, client: str
) -> None:
    plain, stage = bench.stages(WISHES, WISHES, provider=provider_at(bench, cloud, kind))

    whole = CLIENTS[client](plain, is_stream=False)
    streamed = CLIENTS[client](stage, is_stream=True)

    assert whole
    assert streamed == whole
    for made in (plain, stage):
        statement = made.settled()
        assert (statement.charges, statement.states) == ((CHARGE,), ("completed",))
        assert [row.usage_source for row in statement.rows] == ["reported"]
        (attempt,) = statement.attempts
        assert (attempt.status_code, attempt.outcome) == (200, "answered")
    assert cloud.refused == []
    assert len(cloud.used) == 2


# ---- what is sent


def test_bedrock_gets_its_version_and_the_betas_in_the_body_alone(
    bench: Bench, cloud: Cloud
) -> None:
    stage = stage_at(bench, cloud, "bedrock-anthropic", headers={"x-team": "a  b"})
    operators = stage_at(
        bench, cloud, "bedrock-anthropic", headers={"anthropic-beta": "operator-2025-02-02"}
    )
    betas = {"anthropic-beta": "interleaved-thinking-2025-05-14, other-2025-01-01"}

    for is_stream in (False, True):
        ask_anthropic(stage, is_stream=is_stream, extra_headers=betas)

    bodies, heads = list(cloud.bodies), list(cloud.heads)
    ask_openai(operators, is_stream=False)

    assert cloud.bodies[-1]["anthropic_beta"] == ["operator-2025-02-02"]
    for body in bodies:
        assert body == {
            "max_tokens": 100,
            "messages": HELLO,
            "anthropic_version": "bedrock-2023-05-31",
            "anthropic_beta": ["interleaved-thinking-2025-05-14", "other-2025-01-01"],
        }
    for heard in heads:
        names = [name.lower() for name in heard.names]
        assert "x-api-key" not in names
        assert not any(name.startswith("anthropic") for name in names)
        assert "x-team" in names
    assert [heard.lines[0].split(" ")[1].rpartition("/")[2] for heard in heads] == [
        "invoke",
        "invoke-with-response-stream",
    ]


def test_vertex_gets_its_version_in_the_body_and_the_betas_in_a_header(
    bench: Bench, cloud: Cloud
) -> None:
    stage = stage_at(bench, cloud, "vertex-anthropic")
    betas = {"anthropic-beta": "interleaved-thinking-2025-05-14"}

    for is_stream in (False, True):
        ask_anthropic(stage, is_stream=is_stream, extra_headers=betas)

    whole = {
        "max_tokens": 100,
        "messages": HELLO,
        "anthropic_version": "vertex-2023-10-16",
    }
    assert cloud.bodies == [whole, {**whole, "stream": True}]
    for heard in cloud.heads:
        assert "anthropic-beta: interleaved-thinking-2025-05-14" in heard.lines


def test_the_maximum_that_the_wallet_allows_is_sent(bench: Bench, cloud: Cloud) -> None:
    stage = stage_at(bench, cloud, "bedrock-anthropic")

    chat(stage, max_tokens=7)

    assert cloud.bodies[0]["max_tokens"] == 7
    assert stage.settled().charges == (10 * INPUT_NANOS + 7 * OUTPUT_NANOS,)


def test_a_session_token_goes_along(bench: Bench, cloud: Cloud) -> None:
    cloud.sessions = {"AKIAIOSFODNN7EXAMPLE": SESSION_TOKEN}
    stage = stage_at(bench, cloud, "bedrock-anthropic", secret=aws_key(session_token=SESSION_TOKEN))

    assert chat(stage).status == 200
    assert cloud.refused == []


def test_a_large_body_is_signed_as_it_is_sent(bench: Bench, cloud: Cloud) -> None:
    stage = stage_at(bench, cloud, "bedrock-anthropic")
    body = stage.body(messages=[{"role": "user", "content": "wörd " * 100_000}])

    answer = ask(
        bench.gateway,
        "POST",
        "/v1/chat/completions",
        headers=stage.caller.headers,
        body=orjson.dumps(body),
    )

    assert (answer.status, cloud.refused) == (200, [])
    assert len(cloud.heads[0].body) > 500_000


# ---- tokens


def test_one_token_serves_all_calls(bench: Bench, cloud: Cloud) -> None:
    stage = stage_at(bench, cloud, "vertex-openai")

    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda _: chat(stage).status, range(24)))

    assert statuses == [200] * 24
    assert len(cloud.tokens) == 1
    assert cloud.used == cloud.tokens * 24
    assert stage.settled(24).charges == (CHARGE,) * 24


def test_an_expired_token_is_replaced(bench: Bench, cloud: Cloud) -> None:
    cloud.token_seconds = 1
    stage = stage_at(bench, cloud, "vertex-gemini")

    statuses = [chat(stage).status]
    time.sleep(1.1)
    statuses += [chat(stage).status]

    assert statuses == [200, 200]
    assert cloud.used == cloud.tokens
    assert len(cloud.tokens) == 2
    assert cloud.refused == []


def test_a_revoked_token_is_replaced_within_the_attempt(bench: Bench, cloud: Cloud) -> None:
    stage = stage_at(bench, cloud, "vertex-anthropic")
    chat(stage)
    time.sleep(1.1)  # It is no new one any more.
    cloud.revoked = set(cloud.tokens)

    assert chat(stage).status == 200

    statement = stage.settled(2)
    assert (statement.charges, len(statement.attempts)) == ((CHARGE, CHARGE), 2)
    assert (len(cloud.tokens), cloud.refused) == (2, [401])


def test_a_token_endpoint_that_fails_leads_to_another_route(bench: Bench, cloud: Cloud) -> None:
    cloud.token_refusal = (503, {"error": "internal_failure"})
    provider = provider_at(bench, cloud, "vertex-openai")
    stage = bench.stage(WISHES, provider=provider, fallbacks=[("demo-chat-other:prompt=10", None)])

    assert chat(stage).status == 200

    first, second = stage.settled().attempts
    assert (first.outcome, first.status_code, first.cost_nanos) == ("upstream_unreachable", None, 0)
    assert first.error_text == "no access token: The token endpoint answered 503."
    assert second.outcome == "answered"
    assert not ProviderKey.objects.filter(provider=provider, disabled_at__isnull=False).exists()


# ---- keys that are refused


def wait_until_disabled(provider: Provider) -> ProviderKey:
    """Return the provider's key when it has been disabled."""
    keys = ProviderKey.objects.filter(provider=provider, disabled_reason="auth")
    wait_until(keys.exists, timeout_seconds=10, what="the disabled key")
    return keys.get()


def test_a_wrong_aws_secret_is_a_refused_key_until_a_check_finds_it_well(
    bench: Bench, cloud: Cloud
) -> None:
    wrong = aws_key(secret_access_key="another-secret-of-forty-characters-0123")
    provider = provider_at(bench, cloud, "bedrock-anthropic", secret=wrong)
    stage = bench.stage(WISHES, provider=provider)

    refused = chat(stage)
    key = wait_until_disabled(provider)
    is_well = check_key(key=key, now=timezone.now())
    key.refresh_from_db()
    calls = len(cloud.heads)
    meanwhile = chat(stage)
    calls_meanwhile = len(cloud.heads) - calls
    change_key(key=key, values={}, secret=aws_key())
    wait_until(lambda: chat(stage).status == 200, timeout_seconds=10, what="the new secret")

    assert (refused.status, refused.error["code"]) == (502, "upstream_auth_error")
    assert (meanwhile.status, calls_meanwhile, is_well) == (502, 0, False)
    statement = stage.settled(2)
    attempt = statement.attempts[0]
    assert (attempt.status_code, attempt.outcome) == (403, "upstream_auth_error")
    assert statement.charges == (0, CHARGE)


def test_a_refused_service_account_is_a_refused_key_until_a_check_finds_it_well(
    bench: Bench, cloud: Cloud
) -> None:
    cloud.token_refusal = (400, {"error": "invalid_grant", "error_description": "No account."})
    provider = provider_at(bench, cloud, "vertex-gemini")
    stage = bench.stage(WISHES, provider=provider)

    refused = chat(stage)
    key = wait_until_disabled(provider)
    was_well = check_key(key=key, now=timezone.now())
    key.refresh_from_db()
    cloud.token_refusal = None
    is_well = check_key(key=key, now=timezone.now())
    wait_until(lambda: chat(stage).status == 200, timeout_seconds=10, what="the enabled key")

    assert (refused.status, refused.error["code"]) == (502, "upstream_auth_error")
    assert (was_well, is_well) == (False, True)
    attempt = stage.settled(2).attempts[0]
    assert (attempt.status_code, attempt.cost_nanos) == (401, 0)
    assert attempt.error_text == "the token endpoint refused the key: invalid_grant"


def test_a_provider_that_tells_what_it_was_sent_tells_nobody(bench: Bench, cloud: Cloud) -> None:
    provider = provider_at(bench, cloud, "vertex-openai")
    stage = bench.stage(WISHES, provider=provider)
    chat(stage)
    cloud.revoked = set(cloud.tokens)  # Its refusal repeats the token, which is new.

    refused = chat(stage)

    assert refused.status == 502
    (_, attempt) = stage.settled(2).attempts
    assert "[redacted]" in attempt.error_text
    for text in (attempt.error_text, refused.body.decode(), bench.gateway.log()):
        assert not any(token in text for token in cloud.tokens)


def test_a_session_token_that_is_told_inside_a_stream_is_told_nobody(
    bench: Bench, cloud: Cloud
) -> None:
    cloud.sessions = {ACCESS_KEY_ID: SESSION_TOKEN}
    stage = stage_at(bench, cloud, "bedrock-anthropic", secret=aws_key(session_token=SESSION_TOKEN))
    cloud.mangle = lambda frames: [exception("validationException", f"Not this: {SESSION_TOKEN}")]

    received = stream(stage)

    assert received.startswith(b"HTTP/1.1 400 ")
    (attempt,) = stage.settled().attempts
    assert "[redacted]" in attempt.error_text
    for text in (attempt.error_text, received.decode(), bench.gateway.log()):
        assert SESSION_TOKEN not in text


def test_a_token_that_is_told_about_a_stored_answer_is_told_nobody(
    bench: Bench, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud.sessions = {ACCESS_KEY_ID: SESSION_TOKEN}
    provider = bench.make_provider(
        f"{cloud.origin}/openai/v1",
        secret=aws_key(session_token=SESSION_TOKEN),
        dialect="openai-responses",
        key_header="aws-sigv4",
    )
    stage = bench.stage(WISHES, provider=provider)
    client = stage.client(max_retries=0)
    kept = client.responses.create(model=stage.model.name, input="Say something.")

    def refuse(_: Heard) -> None:
        raise Refused(400, {"error": {"message": f"Not this: {SESSION_TOKEN}"}})

    monkeypatch.setattr(cloud, "_check_signature", refuse)
    with pytest.raises(openai.BadRequestError) as refusal:
        client.responses.retrieve(kept.id)

    assert "Not this" in refusal.value.message
    assert SESSION_TOKEN not in refusal.value.message


@pytest.mark.parametrize("kind", ["bedrock-anthropic", "vertex-openai"])
def test_a_key_of_another_kind_is_never_sent(bench: Bench, cloud: Cloud, kind: str) -> None:
    provider = provider_at(bench, cloud, kind)
    stage = bench.stage(WISHES, provider=provider)
    assert chat(stage).status == 200
    calls = len(cloud.heads)

    # By SQL: the API leaves the key behind.
    Provider.objects.filter(pk=provider.pk).update(key_header="authorization")
    wait_until(lambda: chat(stage).status == 503, timeout_seconds=10, what="the changed provider")
    calls_before = len(cloud.heads)
    chat(stage)

    assert len(cloud.heads) == calls_before
    assert calls_before >= calls
    assert "a key of another kind" in bench.gateway.log()
    assert SECRET_ACCESS_KEY.encode() not in b"".join(h.head + h.body for h in cloud.heads)
    assert b"PRIVATE KEY" not in b"".join(h.head + h.body for h in cloud.heads)


# ---- clocks


@pytest.mark.parametrize("minutes", [-90, 90])
def test_a_clock_that_is_off_is_corrected_by_the_providers(
    bench: Bench, cloud: Cloud, minutes: int
) -> None:
    cloud.clock = timedelta(minutes=minutes)
    provider = provider_at(bench, cloud, "bedrock-anthropic")
    stage = bench.stage(WISHES, provider=provider)

    statuses = [chat(stage).status for _ in range(3)]
    cloud.clock = timedelta(0)
    statuses.append(chat(stage).status)

    assert statuses == [200] * 4
    assert cloud.refused == [403, 403]  # Once for each time that the clocks differed.
    statement = stage.settled(4)
    assert (statement.charges, len(statement.attempts)) == ((CHARGE,) * 4, 4)
    assert "the clock of this machine is" in bench.gateway.log()
    assert not ProviderKey.objects.filter(provider=provider, disabled_at__isnull=False).exists()


# ---- streams in frames

STREAM_BODY: Final = {"max_tokens": 100, "messages": HELLO, "stream": True}


def stream(stage: Stage) -> bytes:
    """Return all that a client of Anthropic's gets of a stream."""
    body = orjson.dumps({**STREAM_BODY, "model": stage.model.name})
    request = post_bytes(stage.caller, body, "/v1/messages", "Connection: close\r\n")
    with RawConnection(stage.bench.gateway.port) as connection:
        connection.send(request)
        # A stream that ends in order leaves the connection open.
        while LAST_CHUNK not in connection.received and connection.read_more():
            pass
        return connection.received


def events_of(received: bytes) -> list[dict[str, Any]]:
    """Return the data of a stream's events, parsed."""
    events = body_of(received).split(b"\n\n")
    return [orjson.loads(event.partition(b"data: ")[2]) for event in events if event]


def kinds_of(received: bytes) -> list[str]:
    """Return the types of a stream's events."""
    return [str(event["type"]) for event in events_of(received)]


def test_a_stream_is_the_same_however_its_frames_are_cut(bench: Bench, cloud: Cloud) -> None:
    stage = stage_at(bench, cloud, "bedrock-anthropic", "demo-chat:prompt=10,tokens=2")
    sizes = iter((10**9, 5, 17, 64))

    def cut(frames: list[bytes]) -> Sequence[bytes]:
        whole, size = b"".join(frames), next(sizes)
        return [whole[at : at + size] for at in range(0, len(whole), size)]

    cloud.mangle = cut
    said = [events_of(stream(stage)) for _ in range(4)]

    assert [event["type"] for event in said[0]][-1] == "message_stop"
    texts = [
        [event["delta"] for event in events if event["type"] == "content_block_delta"]
        for events in said
    ]
    assert texts == [texts[0]] * 4
    assert said[0][-1] == {"type": "message_stop"}  # without what Amazon adds
    assert stage.settled(4).charges == (10 * INPUT_NANOS + 2 * OUTPUT_NANOS,) * 4


def without_last_bytes(frames: list[bytes]) -> Sequence[bytes]:
    """Cut the last frame in its middle; the HTTP answer ends in order."""
    return [*frames[:-1], frames[-1][:-10]]


def without_last_frame(frames: list[bytes]) -> Sequence[bytes]:
    """Leave the end out."""
    return frames[:-1]


def with_a_wrong_byte(frames: list[bytes]) -> Sequence[bytes]:
    """Change a byte of the payload of the last frame but two."""
    bad = bytearray(frames[-3])
    bad[len(bad) // 2] ^= 1
    return [*frames[:-3], bytes(bad), *frames[-2:]]


def with_an_exception(frames: list[bytes]) -> Sequence[bytes]:
    """End with an exception, in one piece with what came before it."""
    return [b"".join([*frames[:-3], exception("modelStreamErrorException", "Told by Amazon.")])]


def with_a_long_frame(frames: list[bytes]) -> Sequence[bytes]:
    """Announce a frame of 2 GiB."""
    return [*frames[:-2], (2**31).to_bytes(4, "big") + b"\0" * 100]


@pytest.mark.parametrize(
    ("mangle", "source"),
    [
        # The usage is in the last event but one.
        (without_last_bytes, "reported"),
        (without_last_frame, "reported"),
        (with_a_wrong_byte, "estimated"),
        (with_an_exception, "estimated"),
        (with_a_long_frame, "estimated"),
    ],
)
def test_a_stream_that_breaks_is_seen_to_break_and_paid_as_delivered(
    bench: Bench,
    cloud: Cloud,
    mangle: Callable[[list[bytes]], Sequence[bytes]],
    source: str,
) -> None:
    provider = provider_at(bench, cloud, "bedrock-anthropic", failures_max=1_000)
    stage = bench.stage(WISHES, provider=provider)
    cloud.mangle = mangle

    received = stream(stage)

    kinds = kinds_of(received)
    assert (kinds[0], kinds[-1]) == ("message_start", "error")
    assert kinds.count("content_block_delta") == 12
    assert "message_stop" not in kinds
    assert b"Told by Amazon" not in received
    (row,) = stage.settled().rows
    assert (row.state, row.error_code) == ("upstream_interrupted", "upstream_interrupted")
    assert row.usage_source == source
    assert row.charge_nanos == row.input_tokens * INPUT_NANOS + row.output_tokens * OUTPUT_NANOS
    if source == "reported":
        assert row.charge_nanos == CHARGE
    else:
        # By the tokenizer, or while that is being loaded by the characters.
        assert 12 <= row.output_tokens <= 16


@pytest.mark.parametrize(
    ("name", "status", "code", "attempt_status"),
    [
        ("throttlingException", 429, "rate_limit_error", 429),
        ("validationException", 400, "invalid_request_error", 400),
        ("modelTimeoutException", 502, "api_error", 408),
        ("internalServerException", 502, "api_error", 500),
        ("serviceUnavailableException", 529, "overloaded_error", 503),
    ],
)
def test_an_exception_before_the_first_event_is_an_error_of_its_row(
    bench: Bench, cloud: Cloud, name: str, status: int, code: str, attempt_status: int
) -> None:
    provider = provider_at(bench, cloud, "bedrock-anthropic", failures_max=1_000)
    stage = bench.stage(WISHES, provider=provider)
    cloud.mangle = lambda frames: [exception(name, "Told by Amazon.")]

    received = stream(stage)

    answer = orjson.loads(body_of(received))
    assert received.startswith(b"HTTP/1.1 %d " % status)
    assert answer["error"]["type"] == code
    statement = stage.settled()
    assert statement.charges == (0,)
    assert {attempt.status_code for attempt in statement.attempts} == {attempt_status}
    assert {attempt.cost_nanos for attempt in statement.attempts} == {0}


def test_a_stream_that_breaks_before_its_first_event_goes_to_another_route(
    bench: Bench, cloud: Cloud
) -> None:
    provider = provider_at(bench, cloud, "bedrock-anthropic")
    stage = bench.stage(WISHES, provider=provider, fallbacks=[("demo-chat-spare:prompt=10", None)])
    cloud.mangle = lambda frames: [frames[0][:-5] + b"wrong", *frames[1:]]

    kinds = kinds_of(stream(stage))

    assert kinds[-1] == "message_stop"
    first, second = stage.settled().attempts
    assert (first.outcome, second.outcome) == ("upstream_error", "answered")


def test_frames_of_others_are_no_answer(bench: Bench, cloud: Cloud) -> None:
    stage = stage_at(bench, cloud, "bedrock-anthropic")
    cloud.mangle = lambda frames: [chunk({"type": "content_block_delta"}), *frames]

    received = stream(stage)

    assert received.startswith(b"HTTP/1.1 502 ")
    assert stage.settled().charges == (0,)


# ---- what the control plane asks


def test_models_are_listed_and_one_token_is_asked_for(bench: Bench, cloud: Cloud) -> None:
    listed = {
        kind: ask_for_models(provider_at(bench, cloud, kind)).names
        for kind in KINDS
        if kind != "bedrock-openai"
    }
    for kind in KINDS:
        ask_for_one_token(
            provider_at(bench, cloud, kind),
            upstream_name="demo-chat:tokens=1",
            max_tokens_parameter="max_tokens",
        )

    assert listed == {
        "vertex-gemini": ("a-model",),
        "vertex-anthropic": ("a-model",),
        "vertex-openai": ("google/a-model",),
        "bedrock-anthropic": ("a.model-v1:0", "b"),
    }
    assert cloud.refused == []


@pytest.mark.parametrize("kind", ["bedrock-anthropic", "vertex-anthropic"])
def test_one_token_is_asked_for_where_calls_go_whatever_must_be_quoted(
    bench: Bench, cloud: Cloud, kind: str
) -> None:
    provider = provider_at(bench, cloud, kind)
    stage = bench.stage("demo-chat-arn/\u00e4%2F:tokens=1", provider=provider)

    called = chat(stage)
    ask_for_one_token(
        provider, upstream_name=stage.upstream_name, max_tokens_parameter="max_tokens"
    )

    assert called.status == 200
    first, second = (heard.lines[0] for heard in cloud.heads[-2:])
    assert first == second
    assert "/demo-chat-arn%2F%C3%A4%252F-" in first
    assert cloud.refused == []
