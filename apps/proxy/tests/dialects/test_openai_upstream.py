"""Tests of how requests that OpenAI's providers get are bounded, and changed on their way.

Over 400 lines because it is one table of cases after another over one module.
"""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.proxy.dialects.openai_request import parse_request
from apps.proxy.dialects.openai_upstream import input_tokens_bound, upstream_body
from apps.proxy.dialects.parsed_request import Endpoint
from apps.proxy.dialects.upstream_errors import clean_message, is_key_refused, upstream_error
from tests.support.cases import for_all

CHAT: dict[str, Any] = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}]}


def sent(body: dict[str, Any], **changes: Any) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "upstream_model": "up-1",
        "stream": False,
        "output_cap": None,
        "cap_parameter": "max_tokens",
    }
    parsed: dict[str, Any] = json.loads(upstream_body(body, **(arguments | changes)))
    return parsed


def test_the_upstream_sees_its_own_name_of_the_model_and_nothing_else_changed() -> None:
    body = CHAT | {"max_tokens": 7, "temperature": 0.5, "unknown": {"a": [1]}}

    assert sent(body) == body | {"model": "up-1"}
    assert body["model"] == "gpt-4o"


@pytest.mark.parametrize(
    "options",
    [
        None,
        {},
        {"include_usage": False},
        {"include_usage": "junk"},
        {"include_usage": True, "Include_Usage": False},
        {"includeUsage": False},
        {"include_u\u017fage": False},
        "junk",
        5,
    ],
)
def test_a_stream_always_asks_for_usage(options: object) -> None:
    body = CHAT | {"stream": True, "stream_options": options}

    assert sent(body, stream=True)["stream_options"] == {"include_usage": True}


def test_other_options_of_a_stream_are_kept() -> None:
    body = CHAT | {"stream": True, "stream_options": {"include_obfuscation": False}}

    assert sent(body, stream=True)["stream_options"] == {
        "include_obfuscation": False,
        "include_usage": True,
    }
    assert "stream_options" not in sent(body)


def test_a_lowered_cap_replaces_whatever_the_client_asked_for() -> None:
    body = CHAT | {"max_tokens": 9_000, "max_completion_tokens": 8_000}

    assert sent(body, output_cap=256) == CHAT | {"model": "up-1", "max_tokens": 256}
    assert sent(CHAT, output_cap=256, cap_parameter="max_completion_tokens") == CHAT | {
        "model": "up-1",
        "max_completion_tokens": 256,
    }


def bound(
    body: dict[str, Any],
    context: int = 100_000,
    image: int = 1_000,
    endpoint: Endpoint = "chat/completions",
) -> int:
    return input_tokens_bound(endpoint, body, json.dumps(body).encode(), context, image)


def test_text_is_bounded_by_its_bytes_and_by_the_context() -> None:
    size = len(json.dumps(CHAT))

    assert bound(CHAT) == size + 64
    assert bound(CHAT, context=20) == 20


def test_the_query_of_a_ranking_is_read_with_each_document() -> None:
    body = {"model": "ranker", "query": "naïve", "documents": ["a", "b", {"text": "c"}]}
    size = len(json.dumps(body))

    assert bound(body, endpoint="rerank") == size + 2 * (6 + 64) + 64
    assert bound(body, context=20, endpoint="rerank") == 60


def test_tools_add_the_prompt_around_them() -> None:
    body = CHAT | {"tools": [{"type": "function", "function": {"name": "f"}}]}

    assert bound(body) == len(json.dumps(body)) + 64 + 1_024


def message(*parts: object) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": list(parts)}]}


def test_an_image_counts_as_an_image_and_not_as_text() -> None:
    url = "data:image/png;base64," + "A" * 50_000
    body = message({"type": "image_url", "image_url": {"url": url}})

    assert bound(body) == len(json.dumps(body)) - len(url) + 1_000 + 64
    assert bound(message(*body["messages"][0]["content"] * 3)) < 4_000


def test_an_image_that_is_moderated_counts_as_an_image_beside_its_address() -> None:
    image = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    body = {"model": "m", "input": [{"type": "text", "text": "a"}, image, image]}

    assert bound(body, endpoint="moderations") == len(json.dumps(body)) + 2 * 1_000 + 64


def test_text_cannot_hide_in_an_image() -> None:
    for url in ('data:image/png;base64,"' + "a" * 5_000, "http://example.com/" + "a" * 5_000):
        body = message({"type": "image_url", "image_url": {"url": url}})

        assert bound(body) > 6_000


@pytest.mark.parametrize(
    "part", [{"type": "file", "file": {"file_id": "f"}}, {"type": "video_url"}, {}, "text", None]
)
def test_what_the_provider_looks_up_counts_as_a_full_context(part: object) -> None:
    assert bound(message(part)) == 100_000


WAV = b"RIFF\x00\x00\x00\x00WAVEfmt " + bytes(300)
MP3 = b"\xff\xfb\x90\x00" + bytes(300)
NOTED = b"ID3\x04\x00\x00\x00\x00\x01\x03" + bytes(131) + MP3


def sound(data: object) -> dict[str, Any]:
    return {"type": "input_audio", "input_audio": {"data": data, "format": "mp3"}}


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


@for_all(
    "data",
    [encoded(WAV), encoded(MP3), encoded(NOTED), f"data:;base64,{encoded(WAV)}"],
)
def test_a_sound_of_so_many_bytes_is_bounded_by_them(data: str) -> None:
    body = message(sound(data))

    assert bound(body) == len(json.dumps(body)) + 64


@for_all(
    "data",
    [
        "https://example.com/two-hours.mp3",
        "data:audio/mp3;base64,https://example.com/two-hours.mp3",
        encoded(b"fLaC" + bytes(300)),
        encoded(NOTED[:141] + b"fLaC" + bytes(300)),
        encoded(b"OggS" + bytes(300)),
        encoded(b"RIFF"),
        "",
        7,
        None,
    ],
)
def test_a_sound_of_any_length_counts_as_a_full_context(data: object) -> None:
    assert bound(message(sound(data))) == 100_000


def test_a_sound_beside_its_part_counts_as_a_full_context() -> None:
    assert bound(message({**sound(encoded(WAV)), "type": "video"})) == 100_000
    assert bound(message({"type": "input_audio", "input_audio": encoded(WAV)})) == 100_000


def test_an_earlier_spoken_answer_counts_as_a_full_context() -> None:
    body = {"model": "m", "messages": [{"role": "assistant", "audio": {"id": "a"}}]}

    assert bound(body) == 100_000


def test_every_prompt_may_fill_a_context() -> None:
    many = {"model": "m", "prompt": ["word " * 100] * 3}
    one = {"model": "m", "prompt": [17] * 500}

    assert bound(many, context=50, endpoint="completions") == 150
    assert bound(one, context=50, endpoint="completions") == 50
    inputs = {"model": "m", "input": ["a" * 500] * 2}
    assert bound(inputs, context=50, endpoint="embeddings") == 100


TEXTS = ["word " * 100] * 100
READ: list[tuple[Endpoint, dict[str, Any]]] = [
    ("completions", {"model": "m", "prompt": TEXTS}),
    ("embeddings", {"model": "m", "input": TEXTS}),
    ("moderations", {"model": "m", "input": TEXTS}),
    ("rerank", {"model": "m", "query": "a", "documents": TEXTS}),
]


@for_all("value", ["x", None, [], {}, 5, False, [1], ["x"]])
@for_all("name", ["prompt", "input", "documents", "messages", "query"])
@for_all(("endpoint", "body"), READ)
def test_a_client_cannot_lower_the_bound_of_its_texts_by_another_name_for_them(
    endpoint: Endpoint, body: dict[str, Any], name: str, value: object
) -> None:
    # First, where it would be found first, too.
    beside = body if name in body else {name: value, **body}

    assert parse_request(endpoint, beside).body == beside
    assert bound(beside, context=50, endpoint=endpoint) == 50 * 100


@given(
    read=st.sampled_from(READ),
    added=st.dictionaries(
        st.sampled_from(["prompt", "input", "documents", "query", "messages", "tools", "user"]),
        st.none() | st.text(max_size=5) | st.lists(st.integers() | st.text(max_size=5), max_size=5),
    ),
    context=st.integers(1, 10_000),
)
def test_nothing_that_a_client_adds_lowers_the_bound(
    read: tuple[Endpoint, dict[str, Any]], added: dict[str, Any], context: int
) -> None:
    endpoint, body = read

    more = bound({**added, **body}, context, endpoint=endpoint)

    assert more >= bound(body, context, endpoint=endpoint)


def test_a_chat_is_one_context_whatever_stands_beside_its_messages() -> None:
    chat = message({"type": "text", "text": "word " * 100})

    for name in ("prompt", "input", "documents"):
        assert bound(chat | {name: TEXTS}, context=50) == 50


@given(st.lists(st.text(max_size=50), min_size=1, max_size=5))
def test_no_text_has_more_tokens_than_the_bound(texts: list[str]) -> None:
    body = {
        "model": "m",
        "messages": [{"role": "user", "content": text} for text in texts],
    }
    encoded = upstream_body(
        parse_request("chat/completions", body).body,
        upstream_model="m",
        stream=False,
        output_cap=None,
        cap_parameter="max_tokens",
    )

    # A token of byte-pair encodings is at least one byte.
    bytes_of_text = sum(len(text.encode()) for text in texts)
    assert input_tokens_bound("chat/completions", body, encoded, 10**9, 0) >= bytes_of_text


def error_body(**members: object) -> bytes:
    return json.dumps({"error": {"message": "no", "type": None, "param": None} | members}).encode()


# One sentence for a model that is not there and for one at the wrong endpoint: nobody can tell.
GEMINI_NOT_FOUND = (
    b'{"error":{"code":404,"message":"models/m is not found for API version v1beta, or is not '
    b"supported for embedContent. Call ListModels to see the list of available models and their "
    b'supported methods.","status":"NOT_FOUND"}}'
)
# As Bedrock says it: https://docs.aws.amazon.com/bedrock/latest/userguide/troubleshooting-api-error-codes.html
AWS_POLICY = (
    b'{"message":"User: arn:aws:iam::123456789012:user/x is not authorized to perform: '
    b"bedrock:InvokeModel on resource: arn:aws:bedrock:us-east-1::foundation-model/anthropic.claude"
    b'-v2 because no identity-based policy allows the bedrock:InvokeModel action"}'
)
AWS_TOKEN = b'{"message":"The security token included in the request is invalid."}'
AWS_SIGNATURE = (
    b'{"message":"The request signature we calculated does not match the signature you provided. '
    b'Check your AWS Secret Access Key and signing method."}'
)


XAI_UNSAFE = (
    b'{"code":"The caller does not have permission to execute the specified operation","error":'
    b'"Content violates usage guidelines. Team: t, API key ID: k, Model: m, Failed check: '
    b'SAFETY_CHECK_TYPE_BIO"}'
)
GOOGLE_FILE = error_body(
    code=403,
    status="PERMISSION_DENIED",
    message="You do not have permission to access the File abc or it may not exist.",
)


@for_all(
    ("status", "body", "expected"),
    [
        (400, error_body(code="context_length_exceeded", param="messages"), ("E40", 400)),
        (422, error_body(), ("E40", 422)),
        (400, b"not json", ("E40", 400)),
        (400, b"", ("E40", 400)),
        (400, error_body(message="API key not valid. Please pass a valid API key."), ("E41", 502)),
        (400, error_body(code="invalid_api_key"), ("E41", 502)),
        (400, error_body(message="Your credit balance is too low"), ("E42", 503)),
        (401, error_body(), ("E41", 502)),
        (403, error_body(), ("E41", 502)),
        (403, error_body(message="insufficient balance"), ("E42", 503)),
        (403, error_body(code="model_not_found"), ("E44", 503)),
        (403, error_body(code="Model.AccessDenied"), ("E44", 503)),
        (403, error_body(message="Project `p` does not have access to model `m`."), ("E44", 503)),
        (403, error_body(message="The model m-4.1 is blocked at the project level."), ("E44", 503)),
        (403, error_body(message="No permission to use the specified resource."), ("E41", 502)),
        (403, error_body(message="Not permitted. Missing scopes: model.request."), ("E41", 502)),
        (403, AWS_POLICY, ("E44", 503)),
        (403, AWS_TOKEN, ("E41", 502)),
        (403, AWS_SIGNATURE, ("E41", 502)),
        (403, error_body(message="API key expired: no access to models."), ("E41", 502)),
        (401, error_body(message="Project `p` does not have access to model `m`."), ("E41", 502)),
        (403, error_body(code=403, message="Your input was flagged for hate."), ("E40", 400)),
        (403, XAI_UNSAFE, ("E40", 400)),
        (403, GOOGLE_FILE, ("E40", 400)),
        (403, GOOGLE_FILE.replace(b"abc", b"expired API key"), ("E40", 400)),
        (403, GOOGLE_FILE.replace(b"abc", b"insufficient funds"), ("E40", 400)),
        (403, error_body(message="Cannot fetch content from the provided URL."), ("E40", 400)),
        (
            403,
            error_body(message="s@x.com does not have storage.objects.get access to the object."),
            ("E40", 400),
        ),
        (
            403,
            error_body(
                type="permission_error", message="File not found, or no permission to access it."
            ),
            ("E40", 400),
        ),
        *(
            (status, error_body(message=message), ("E40", 400))
            for status, message in (
                (403, "You are not allowed to request logprobs from this model"),
                (404, "File not found: file_1"),
                (404, "Item with id 'rs_1' not found. Items are not persisted."),
            )
        ),
        *(
            (status, error_body(param="model", message=message), ("E54", 404))
            for status, message in (
                (403, "You are not allowed to generate embeddings from this model"),
                (404, "This is a chat model and not supported in the v1/completions endpoint."),
                (404, "This is not a chat model and thus not supported in the v1/chat/completions"),
                (404, "This model is only supported in v1/responses and not in v1/completions."),
            )
        ),
        (402, error_body(), ("E42", 503)),
        (404, error_body(code="model_not_found"), ("E44", 503)),
        (404, GEMINI_NOT_FOUND, ("E44", 503)),
        (404, b"<html>File not found</html>", ("E44", 503)),
        (413, error_body(), ("E45", 413)),
        (429, error_body(code="rate_limit_exceeded"), ("E43", 429)),
        (429, error_body(code="insufficient_quota"), ("E42", 503)),
        (429, error_body(type="insufficient_quota"), ("E42", 503)),
        (429, error_body(message="You exceeded your current quota, please check"), ("E42", 503)),
        (408, error_body(), ("E46", 502)),
        (409, error_body(), ("E46", 502)),
        (500, error_body(), ("E46", 502)),
        (502, b"<html>Bad gateway</html>", ("E46", 502)),
        (503, error_body(), ("E46", 503)),
        (529, error_body(type="overloaded_error"), ("E46", 503)),
        (599, b"", ("E46", 502)),
        (301, b"", ("E51", 502)),
        (307, b"", ("E51", 502)),
    ],
)
def test_each_failure_of_an_upstream_becomes_its_row(
    status: int, body: bytes, expected: tuple[str, int]
) -> None:
    error = upstream_error(status, {}, body)

    assert (error.row, error.status) == expected


@for_all(
    "body",
    [
        AWS_TOKEN,
        AWS_SIGNATURE,
        error_body(code="invalid_api_key"),
        error_body(type="authentication_error"),
        error_body(code="account_deactivated"),
        error_body(code="unsupported_country_region_territory"),
        error_body(details=[{"reason": "API_KEY_SERVICE_BLOCKED"}]),
        *(
            error_body(message=message)
            for message in (
                "API key expired: no access to models.",
                "Your API key was reported as leaked. Please use another API key.",
                "The provided API key has an IP address restriction.",
                "Permission denied: Consumer 'api_key:x' has been suspended.",
                "Your project has been denied access. Please contact support.",
                "Generative Language API has not been used in project 1 before or it is disabled.",
                "Organization has been restricted. Please reach out to support.",
                "Your access was terminated due to violation of our policies.",
                "Country, region, or territory not supported",
                "Method doesn't allow unregistered callers.",
                "Request is missing required authentication credential.",
                "insufficient balance",
                "Your team has used all available credits.",
            )
        ),
    ],
)
def test_a_403_that_speaks_of_the_key_or_its_account_refuses_the_key(body: bytes) -> None:
    assert upstream_error(403, {}, body).row in ("E41", "E42")
    assert is_key_refused(body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>API key expired</html>",
        b"{}",
        b'{"error":{"message":7,"code":[],"type":{},"details":[7,{"reason":[]}]}}',
        error_body(),
        error_body(type="permission_error"),
        error_body(message="No permission to use the specified resource."),
        error_body(message="Not permitted. Missing scopes: model.request."),
        error_body(message="The content of this project is not for everybody."),
        AWS_POLICY,
        XAI_UNSAFE,
        GOOGLE_FILE,
    ],
)
def test_a_403_that_speaks_of_something_else_refuses_no_key(body: bytes) -> None:
    assert not is_key_refused(body)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 1),
        ({"retry-after": "7"}, 7),
        ({"retry-after": "0"}, 1),
        ({"retry-after": "0.2"}, 1),
        ({"retry-after": "6.5"}, 7),
        ({"retry-after": "86400"}, 60),
        ({"retry-after": "-5"}, 1),
        ({"retry-after": "NaN"}, 1),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}, 1),
        ({"retry-after-ms": "1500"}, 2),
        ({"retry-after-ms": "junk", "retry-after": "9"}, 9),
        ({"retry-after": "9" * 5_000}, 1),
    ],
)
def test_a_rate_limit_tells_how_long_to_wait_within_a_minute(
    headers: dict[str, str], seconds: int
) -> None:
    assert upstream_error(429, headers, b"").retry_after == seconds


def test_a_complaint_about_the_input_keeps_known_codes_and_parameters() -> None:
    body = error_body(
        message="This model's maximum context length is 8192 tokens.",
        code="context_length_exceeded",
        param="messages[3].content",
    )

    error = upstream_error(400, {}, body)

    assert error.code == "context_length_exceeded"
    assert error.param == "messages[3].content"
    assert error.message == "This model's maximum context length is 8192 tokens."


@pytest.mark.parametrize(
    ("members", "code", "param"),
    [
        ({"code": "sk-SECRET", "param": "sk-SECRET"}, "invalid_request", None),
        ({"code": "ERR_INTERNAL_7", "param": "internal_field"}, "invalid_request", None),
        ({"code": 400, "param": 5}, "invalid_request", None),
        ({"code": ["x"], "param": {"a": 1}}, "invalid_request", None),
        ({"code": "server_error", "param": "messages\n"}, "invalid_request", None),
        ({"type": "invalid_value", "param": "n"}, "invalid_value", "n"),
        (
            {"param": "tools[0].function.parameters"},
            "invalid_request",
            "tools[0].function.parameters",
        ),
        ({"param": "n" * 101}, "invalid_request", None),
    ],
)
def test_unknown_codes_and_parameters_are_dropped(
    members: dict[str, object], code: str, param: str | None
) -> None:
    error = upstream_error(400, {}, error_body(**members))

    assert (error.code, error.param) == (code, param)


@pytest.mark.parametrize(
    "body",
    [
        b'{"error":"the text"}',
        b'{"message":"the text"}',
        b'[{"error":{"message":"the text","code":400,"status":"INVALID_ARGUMENT"}}]',
        b'{"object":"error","message":"the text","type":"BadRequestError","code":400}',
    ],
)
def test_the_text_is_found_in_every_wrapping(body: bytes) -> None:
    assert upstream_error(400, {}, body).message == "the text"


DEFAULT = "The provider refused the request as not valid."


@pytest.mark.parametrize("body", [b"[]", b"{}", b"5", b"null", b'{"error":5}', b'{"error":[]}'])
def test_without_a_text_ours_is_used(body: bytes) -> None:
    assert upstream_error(400, {}, body).message == DEFAULT


@for_all(
    ("message", "cleaned"),
    [
        ("Bad value for key sk-proj-abc123DEF.", "Bad value for key [removed]"),
        ("Incorrect key: sk-CANARY-UP-1234", "Incorrect key: [removed]"),
        ("Incorrect key: sk-ab****************wxyz", "Incorrect key: [removed]"),
        ("Key AIzaSyD-1234567890abcdef", "Key [removed]"),
        ("Authorization: Bearer abc.def", "Authorization: [removed]"),
        ("See https://internal.example/x?key=1 for more", "See [removed] for more"),
        ("host llm-7.prod.internal:8080 said no", "host [removed] said no"),
        ("host messages.prod.internal said no", "host [removed] said no"),
        ("messages.1.content.0: text is empty", "messages.1.content.0: text is empty"),
        ("tools.12.custom.name: too long", "tools.12.custom.name: too long"),
        ("system.0.text: too long", "system.0.text: too long"),
        ("thinking.enabled.budget_tokens: too low", "thinking.enabled.budget_tokens: too low"),
        ('"thinking.type.disabled" is refused', '"thinking.type.disabled" is refused'),
        ("dial tcp 10.0.5.7:11434: refused", "dial tcp [removed]: refused"),
        ("connect fd00:ec2:0:1::254 failed", "connect [removed] failed"),
        ("connect localhost:8080 failed", "connect [removed] failed"),
        ("for organization org-AbC123xyz", "for organization [removed]"),
        ("project proj_AbC123", "project [removed]"),
        ("cannot open /srv/app/config.yaml now", "cannot open [removed] now"),
        ("cannot open C:\\app\\config now", "cannot open [removed] now"),
        ("mail admin@example.com", "mail [removed]"),
        ("<b>bold</b> text", "[removed]bold[removed] text"),
        ("id 019ad702-e400-7000-8000-000000000000", "id [removed]"),
        ("token 0123456789abcdef0123456789abcdef", "token [removed]"),
        ("line one\r\nline\x00two", "line one line two"),
        (
            "max_tokens must be at most 4096, and/or n=1.",
            "max_tokens must be at most 4096, and/or n=1.",
        ),
        ("messages[0].content is too long", "messages[0].content is too long"),
        ("Missing 'tools[0].function.parameters'.", "Missing 'tools[0].function.parameters'."),
        ("Traceback (most recent call last): ...", ""),
        ('File "/app/main.py", line 3', ""),
        ("goroutine 1 panic: nil", ""),
    ],
)
def test_nothing_that_looks_internal_reaches_the_client(message: str, cleaned: str) -> None:
    error = upstream_error(400, {}, error_body(message=message))

    assert error.message == (cleaned or DEFAULT)


def test_a_message_is_at_most_500_characters() -> None:
    assert len(clean_message("word " * 10_000)) <= 500
    assert len(clean_message("a/b.c@d:" * 10_000)) <= 500


@given(st.binary(max_size=100), st.integers(100, 999))
def test_any_failure_is_one_of_the_rows(body: bytes, status: int) -> None:
    rows = {"E40", "E41", "E42", "E43", "E44", "E45", "E46", "E51", "E54"}

    assert upstream_error(status, {}, body).row in rows


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 413, 422, 429, 500, 503, 529])
def test_the_canary_of_a_provider_key_never_passes(status: int) -> None:
    body = error_body(
        message="Incorrect API key provided: sk-CANARY-UP-1. Request: Bearer sk-CANARY-UP-1",
        code="sk-CANARY-UP-1",
        param="sk-CANARY-UP-1",
        type="sk-CANARY-UP-1",
    )

    error = upstream_error(status, {"x-key": "sk-CANARY-UP-1"}, body)

    assert "CANARY" not in f"{error} {error.code} {error.param} {error.type} {error.headers!r}"
