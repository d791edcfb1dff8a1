"""Row E08: what a key may be used for, at every endpoint and in each dialect's own form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import orjson
import pytest

from apps.api_keys.operations import KEY_OPERATIONS, KeyOperation
from tests.e2e.answers import HttpAnswer, ask, check_error, check_nothing_leaks
from tests.e2e.rows import INVALID, check_nothing_happened
from tests.support.bench import MESSAGES, Bench, Caller, Stage

# Operations are judged before any database is asked.
pytestmark = pytest.mark.sqlite

_VERSION: Final = {"anthropic-version": "2023-06-01"}
_STORED: Final = "/v1/responses/resp_0123456789abcdef"
_CONTENTS: Final = {"contents": [{"parts": [{"text": "Say something."}]}]}
_CONTENT: Final = {"content": {"parts": [{"text": "a text"}]}}


class Asked(NamedTuple):
    """One thing that a client asks for; `{model}` stands for its model."""

    method: str
    path: str
    body: Mapping[str, Any] | None = None
    dialect: str = "openai"
    status: int = 200  # where the key may
    headers: Mapping[str, str] = {}


def _post(path: str, dialect: str = "openai", **body: Any) -> Asked:
    return Asked("POST", path, body, dialect)


# By operation: the demo's model, and what belongs to it.
ASKED: Final[dict[KeyOperation, tuple[str, tuple[Asked, ...]]]] = {
    "chat": (
        "demo-chat",
        (
            _post("/v1/chat/completions", model="{model}", messages=MESSAGES),
            _post("/api/v1/chat/completions/", model="{model}", messages=MESSAGES),
            _post("/v1/messages", "anthropic", model="{model}", messages=MESSAGES, max_tokens=9),
            _post("/v1/messages/count_tokens", "anthropic", model="{model}", messages=MESSAGES),
            _post("/v1/responses", model="{model}", input="Say something."),
            _post("/v1/responses/input_tokens", model="{model}", input="Say something."),
            Asked("GET", _STORED, status=404),
            Asked("GET", f"{_STORED}/input_items", status=404),
            Asked("DELETE", _STORED, status=404),
            _post("/v1beta/models/{model}:generateContent", "gemini", **_CONTENTS),
            _post("/v1beta/models/{model}:streamGenerateContent", "gemini", **_CONTENTS),
            _post("/v1/models/{model}:countTokens", "gemini", **_CONTENTS),
        ),
    ),
    "completions": (
        "demo-chat",
        (_post("/v1/completions", model="{model}", prompt="Say something."),),
    ),
    "embeddings": (
        "demo-embedding",
        (
            _post("/v1/embeddings", model="{model}", input="a text"),
            _post("/v1beta/models/{model}:embedContent", "gemini", **_CONTENT),
            _post(
                "/v1beta/models/{model}:batchEmbedContents",
                "gemini",
                requests=[{"model": "models/{model}", **_CONTENT}],
            ),
        ),
    ),
    "models": (
        "demo-chat",
        (
            Asked("GET", "/v1/models"),
            Asked("GET", "/v1/models/{model}"),
            Asked("GET", "/v1/models", dialect="anthropic", headers=_VERSION),
            Asked("GET", "/v1beta/models", dialect="gemini"),
            Asked("GET", "/v1beta/models/{model}", dialect="gemini"),
        ),
    ),
    "moderations": (
        "demo-moderation",
        (_post("/v1/moderations", model="{model}", input="a text"),),
    ),
    "quote": (
        "demo-chat",
        (_post("/v1/quote", request={"model": "{model}", "messages": MESSAGES}),),
    ),
    "rerank": (
        "demo-rerank",
        (_post("/v1/rerank", model="{model}", query="red", documents=["a red car"]),),
    ),
    "usage": ("demo-chat", (Asked("GET", "/v1/usage"),)),
}


def send(stage: Stage, caller: Caller, asked: Asked) -> HttpAnswer:
    """Ask for something in the name of a caller."""
    name = stage.model.name
    body = (
        None if asked.body is None else orjson.dumps(asked.body).replace(b"{model}", name.encode())
    )
    return ask(
        stage.bench.gateway,
        asked.method,
        asked.path.format(model=name),
        headers={**caller.headers, **asked.headers},
        body=body,
    )


def check_e08(answer: HttpAnswer, asked: Asked, operation: KeyOperation) -> None:
    """Check the whole answer of a key that may not, in the dialect that was spoken."""
    message = f"The API key may not use this endpoint: its operations do not include {operation}."
    if asked.dialect == "openai":
        check_error(answer, status=403, type=INVALID, code="insufficient_scope")
        assert answer.error["message"] == message
        return
    request_id = answer.headers["request-id"]
    expected: dict[str, Any] = {
        "type": "error",
        "error": {"type": "permission_error", "message": message},
        "request_id": request_id,
    }
    if asked.dialect == "gemini":
        prefix = "type.googleapis.com/google.rpc."
        details = [
            {"@type": f"{prefix}ErrorInfo", "reason": "INSUFFICIENT_SCOPE"},
            {"@type": f"{prefix}RequestInfo", "requestId": request_id},
        ]
        status = "PERMISSION_DENIED"
        expected = {
            "error": {"code": 403, "message": message, "status": status, "details": details}
        }
    assert (answer.status, orjson.loads(answer.body)) == (403, expected)
    assert "x-should-retry" not in answer.headers
    assert "retry-after" not in answer.headers
    check_nothing_leaks(answer)


def test_every_operation_is_asked_for_here() -> None:
    assert tuple(ASKED) == KEY_OPERATIONS


@pytest.mark.parametrize("operation", KEY_OPERATIONS)
def test_e08_a_key_that_may_do_everything_else(bench: Bench, operation: KeyOperation) -> None:
    upstream_name, all_asked = ASKED[operation]
    stage = bench.stage(upstream_name)
    others: list[str] = [name for name in KEY_OPERATIONS if name != operation]
    narrow = bench.make_caller(allowed_operations=others)

    for asked in all_asked:
        check_e08(send(stage, narrow, asked), asked, operation)

    check_nothing_happened(stage, narrow)


@pytest.mark.parametrize("operation", KEY_OPERATIONS)
def test_a_key_that_may_do_nothing_else_is_answered(bench: Bench, operation: KeyOperation) -> None:
    upstream_name, all_asked = ASKED[operation]
    stage = bench.stage(upstream_name)
    only = bench.make_caller(allowed_operations=[operation])

    answers = [send(stage, only, asked) for asked in all_asked]

    assert [answer.status for answer in answers] == [asked.status for asked in all_asked]


def test_e08_comes_before_what_is_wrong_with_the_request(bench: Bench) -> None:
    stage = bench.stage()
    narrow = bench.make_caller(allowed_operations=["models"])
    wrong = _post("/v1/chat/completions", model="no-such", n=0)

    answer = send(stage, narrow, wrong)

    check_e08(answer, wrong, "chat")


def test_a_path_that_is_not_offered_stays_unknown(bench: Bench) -> None:
    narrow = bench.make_caller(allowed_operations=["models"])

    answer = ask(bench.gateway, "POST", "/v1/videos", headers=narrow.headers, body=b"{}")

    check_error(answer, status=404, type=INVALID, code="unknown_url")
