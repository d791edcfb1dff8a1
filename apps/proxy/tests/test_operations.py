"""What stands at which path, and in which dialect it answers."""

from typing import get_args

import pytest

from apps.api_keys.operations import KeyOperation
from apps.proxy.dialects.parsed_request import Endpoint
from apps.proxy.operations import (
    Kind,
    Operation,
    dialect_of,
    find_operation,
    is_operation_path,
    recorded_path,
)
from tests.support.cases import for_all


@for_all(
    ("path", "operation"),
    [
        ("/v1/chat/completions", Operation("call")),
        ("/api/v1/messages/", Operation("call", "anthropic", "messages")),
        (
            "/v1beta/models/m:generateContent",
            Operation("call", "gemini", "generateContent", "m", is_stream=False),
        ),
        (
            "/api/v1beta/models/m:streamGenerateContent",
            Operation("call", "gemini", "generateContent", "m", is_stream=True),
        ),
        (
            "/v1/models/a/b:c:generateContent",
            Operation("call", "gemini", "generateContent", "a/b:c", is_stream=False),
        ),
        ("/v1beta/models/m:countTokens", Operation("count", "gemini", "generateContent", "m")),
        ("/v1beta/models/m:embedContent", Operation("call", "gemini", "embedContent", "m")),
        (
            "/v1/models/m:batchEmbedContents",
            Operation("call", "gemini", "batchEmbedContents", "m"),
        ),
        ("/v1beta/models", Operation("models", "gemini")),
        ("/v1beta/models/", Operation("models", "gemini")),
        ("/v1beta/models/a/b", Operation("model", "gemini", model="a/b")),
        # Models of ours may have a colon.
        ("/v1/models/ft:gpt:a", Operation("model", model="ft:gpt:a")),
        ("/v1beta/chat/completions", None),
        ("/v1beta", None),
        ("/v1/x:generateContent", None),
    ],
)
def test_a_path_asks_for_one_operation(path: str, operation: Operation | None) -> None:
    assert is_operation_path(path)
    assert find_operation(path) == operation


@for_all(
    ("path", "operation"),
    [
        ("/v1/chat/completions", "chat"),
        ("/v1/completions", "completions"),
        ("/v1/embeddings", "embeddings"),
        ("/v1/messages", "chat"),
        ("/v1/messages/count_tokens", "chat"),
        ("/v1/models", "models"),
        ("/v1/models/m", "models"),
        ("/v1/moderations", "moderations"),
        ("/v1/quote", "quote"),
        ("/v1/rerank", "rerank"),
        ("/v1/responses", "chat"),
        ("/v1/responses/input_tokens", "chat"),
        ("/v1/responses/resp_1", "chat"),
        ("/v1/responses/resp_1/input_items", "chat"),
        ("/v1/usage", "usage"),
        ("/v1beta/models", "models"),
        ("/v1beta/models/m:generateContent", "chat"),
        ("/v1beta/models/m:countTokens", "chat"),
        ("/v1beta/models/m:embedContent", "embeddings"),
        ("/v1beta/models/m:batchEmbedContents", "embeddings"),
    ],
)
def test_a_key_is_allowed_kinds_of_paths(path: str, operation: str) -> None:
    found = find_operation(path)

    assert found is not None
    assert found.key_operation == operation


def test_all_that_can_be_asked_for_can_be_allowed_and_the_other_way_round() -> None:
    asked = {Operation("call", endpoint=endpoint) for endpoint in get_args(Endpoint)}
    asked |= {Operation(kind) for kind in get_args(Kind)}

    assert {operation.key_operation for operation in asked} == set(get_args(KeyOperation))


@pytest.mark.parametrize("path", ["/v1betas/models", "/v1alpha/models", "/v2/models", "/v1beta2"])
def test_other_versions_are_no_paths_of_the_data_plane(path: str) -> None:
    assert not is_operation_path(path)


@pytest.mark.parametrize(
    ("path", "header", "dialect"),
    [
        ("/v1/models", b"authorization", "openai"),
        ("/v1/models", b"anthropic-version", "anthropic"),
        ("/v1/models/m", b"x-goog-api-key", "gemini"),
        ("/v1/models/m:generateContent", b"authorization", "gemini"),
        ("/v1beta/anything", b"authorization", "gemini"),
        ("/v1/messages", b"x-goog-api-key", "anthropic"),
        ("/v1/chat/completions", b"x-goog-api-key", "openai"),
    ],
)
def test_sdks_are_answered_in_their_own_dialect(path: str, header: bytes, dialect: str) -> None:
    assert dialect_of(path, [(b"accept", b"*/*"), (header, b"x")]) == dialect


@pytest.mark.parametrize(
    ("path", "recorded"),
    [
        ("/v1/chat/completions", "/v1/chat/completions"),
        ("/v1beta/models/a/models/b:generateContent", "/v1beta/models/{model}:generateContent"),
        ("/api/v1/models/m:countTokens", "/api/v1/models/{model}:countTokens"),
    ],
)
def test_the_name_of_a_model_is_no_part_of_the_recorded_path(path: str, recorded: str) -> None:
    operation = find_operation(path)

    assert operation is not None
    assert recorded_path(path, operation) == recorded
