"""Where providers list their models and are asked for a token, also where clouds host a dialect."""

from __future__ import annotations

import pytest

from apps.providers.hosting import BEDROCK_ANTHROPIC, VERTEX_ANTHROPIC, find_hosting
from apps.providers.questions import find_list, one_token

VERTEX = "https://us-east5-aiplatform.googleapis.com/v1/projects/p-1/locations/us-east5"
RUNTIME = "https://bedrock-runtime.us-east-1.amazonaws.com"


@pytest.mark.parametrize(
    ("dialect", "base_url", "hosting"),
    [
        ("anthropic", f"{VERTEX}/publishers/anthropic", VERTEX_ANTHROPIC),
        ("anthropic", f"{VERTEX}/publishers/anthropic/", VERTEX_ANTHROPIC),
        ("anthropic", f"{RUNTIME}/model", BEDROCK_ANTHROPIC),
        ("anthropic", "https://api.anthropic.com/v1", None),
        ("anthropic", "https://bedrock-mantle.us-east-1.api.aws/anthropic/v1", None),
        ("anthropic", "https://api.example.com/v1/models", None),
        ("gemini", f"{VERTEX}/publishers/google", None),
        ("openai", f"{VERTEX}/publishers/anthropic", None),
        ("openai", f"{RUNTIME}/model", None),
        ("openai", f"{RUNTIME}/openai/v1", None),
    ],
)
def test_a_hosted_dialect_is_known_by_the_end_of_its_address(
    dialect: str, base_url: str, hosting: object
) -> None:
    assert find_hosting(dialect, base_url) is hosting


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("gemini-2.5-flash", "models/gemini-2.5-flash:generateContent"),
        ("tunedModels/my-own", "tunedModels/my-own:generateContent"),
        ("publishers/google/models/a", "publishers/google/models/a:generateContent"),
        ("a b?c#d%2F", "models/a%20b%3Fc%23d%252F:generateContent"),
    ],
)
def test_google_is_asked_for_one_token_where_calls_go(model: str, path: str) -> None:
    asked, _ = one_token("gemini", model, "max_tokens")

    assert asked == path


@pytest.mark.parametrize(
    ("of_the_route", "base_url", "asked"),
    [
        ("", "https://api.openai.com/v1", "max_completion_tokens"),
        ("", "https://api.mistral.ai/v1", "max_tokens"),
        ("max_new", "https://api.mistral.ai/v1", "max_new"),
    ],
)
def test_one_token_is_asked_for_by_the_name_that_the_server_takes(
    of_the_route: str, base_url: str, asked: str
) -> None:
    _, body = one_token("openai", "m", of_the_route, base_url)

    assert set(body) == {"model", "messages", asked}


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("claude-sonnet-4-5@20250929", "models/claude-sonnet-4-5@20250929:rawPredict"),
        ("a:b/c d", "models/a%3Ab%2Fc%20d:rawPredict"),
    ],
)
def test_vertex_has_the_model_in_the_path(model: str, path: str) -> None:
    assert VERTEX_ANTHROPIC.path(model, is_stream=False) == path


def test_bedrock_has_the_model_in_the_path() -> None:
    model = "us.anthropic.claude-sonnet-4-20250514-v1:0"

    paths = [BEDROCK_ANTHROPIC.path(model, is_stream=is_stream) for is_stream in (False, True)]

    assert paths == [
        "us.anthropic.claude-sonnet-4-20250514-v1%3A0/invoke",
        "us.anthropic.claude-sonnet-4-20250514-v1%3A0/invoke-with-response-stream",
    ]


@pytest.mark.parametrize(
    ("dialect", "base_url", "is_signed", "url"),
    [
        ("openai", "https://api.openai.com/v1", False, "https://api.openai.com/v1/models"),
        ("anthropic", "https://a.example/v1", False, "https://a.example/v1/models?limit=1000"),
        ("gemini", "https://g.example/v1beta", False, "https://g.example/v1beta/models?pageSize=1000"),
        (
            "gemini",
            f"{VERTEX}/publishers/google",
            True,
            "https://us-east5-aiplatform.googleapis.com/v1beta1/publishers/google/models?pageSize=300",
        ),
        (
            "gemini",
            "https://aiplatform.googleapis.com/v1/publishers/google",
            False,
            "https://aiplatform.googleapis.com/v1beta1/publishers/google/models?pageSize=300",
        ),
        (
            "openai",
            f"{VERTEX}/endpoints/openapi",
            True,
            "https://us-east5-aiplatform.googleapis.com/v1beta1/publishers/google/models?pageSize=300",
        ),
        (
            "anthropic",
            f"{RUNTIME}/model",
            True,
            "https://bedrock.us-east-1.amazonaws.com/foundation-models",
        ),
        (
            "openai",
            "https://bedrock-runtime-fips.us-east-1.amazonaws.com/openai/v1",
            True,
            "https://bedrock-fips.us-east-1.amazonaws.com/foundation-models",
        ),
        # A key itself goes nowhere but below the address it was typed for.
        ("openai", f"{RUNTIME}/openai/v1", False, f"{RUNTIME}/openai/v1/models"),
        (
            "openai",
            "https://bedrock-mantle.us-east-1.api.aws/v1",
            True,
            "https://bedrock-mantle.us-east-1.api.aws/v1/models",
        ),
    ],
)  # fmt: skip
def test_a_list_is_asked_for_where_its_provider_has_it(
    dialect: str, base_url: str, is_signed: bool, url: str
) -> None:
    assert find_list(dialect, base_url, is_signed=is_signed).url == url


def test_names_are_read_as_calls_use_them() -> None:
    google = {"publisherModels": [{"name": "publishers/google/models/gemini-2.5-pro"}, {}, 7]}
    amazon = {"modelSummaries": [{"modelId": "amazon.nova-pro-v1:0"}]}

    gemini = find_list("gemini", f"{VERTEX}/publishers/google")
    compatible = find_list("openai", f"{VERTEX}/endpoints/openapi")
    bedrock = find_list("anthropic", f"{RUNTIME}/model", is_signed=True)
    usual = find_list("openai", "https://api.example.com/v1")

    assert gemini.read(google) == ["gemini-2.5-pro", None, None]
    assert compatible.read(google) == ["google/gemini-2.5-pro", None, None]
    assert bedrock.read(amazon) == ["amazon.nova-pro-v1:0"]
    assert usual.read([{"id": "a"}]) == usual.read({"data": [{"id": "a"}]}) == ["a"]
    assert gemini.read([{"name": "a"}]) is None
    assert bedrock.read({"data": []}) is None


def test_one_token_is_asked_for_as_the_cloud_wants_it() -> None:
    path, body = one_token("anthropic", "a:0", "max_tokens", f"{RUNTIME}/model")

    assert path == "a%3A0/invoke"
    assert body == {
        "anthropic_version": "bedrock-2023-05-31",
        "messages": [{"role": "user", "content": "Hi"}],
        "max_tokens": 1,
    }
