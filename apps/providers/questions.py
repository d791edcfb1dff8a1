"""What providers of each dialect are asked beside calls: their models, and one token. Pure.

Sources: https://platform.openai.com/docs/api-reference, https://platform.claude.com/docs/en/api,
https://ai.google.dev/api
and, where clouds serve these dialects,
https://docs.cloud.google.com/vertex-ai/docs/reference/rest/v1beta1/publishers.models/list,
https://docs.aws.amazon.com/bedrock/latest/APIReference/API_ListFoundationModels.html
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from apps.providers.hosting import BEDROCK_ANTHROPIC, find_hosting
from apps.providers.maximums import find_max_tokens_parameter

# Where the list has pages, one that holds all that a provider is likely to have.
_LIST_PATHS: Final = {"anthropic": "models?limit=1000", "gemini": "models?pageSize=1000"}
_PREFIX: Final = "models/"
# The least that every model of OpenAI's Responses may be asked for.
_RESPONSES_TOKENS_MIN: Final = 16


def join_url(base_url: str, path: str, *, upstream_name: str = "model") -> str:
    """Return the URL of a path below a base URL, which may have a query of its own and name the
    model as `{model}`.
    """
    base, _, query = base_url.partition("?")
    below, _, own = path.partition("?")
    asked = "&".join(filter(None, (query, own)))
    url = f"{base.rstrip('/')}/{below}".replace("{model}", quote(upstream_name, safe=""))
    return f"{url}?{asked}" if asked else url


def name_below_google(upstream_name: str) -> str:
    """Return where a model of Google's dialect is below the base URL.

    A name with a slash names its collection itself, as tuned models and Vertex AI's do.
    """
    name = upstream_name if "/" in upstream_name else _PREFIX + upstream_name
    return quote(name, safe="/@.-_~")


class ModelList(NamedTuple):
    """Where a provider lists its models, and how their names stand in the list."""

    url: str
    wrapped_in: str
    name_key: str = "id"
    prefix: str = ""  # of a name in the list
    given_prefix: str = ""  # of the name that calls use, in its place

    def read(self, value: Any) -> list[Any] | None:
        """Return the names in a list of models, None where it is none; a name may be anything."""
        # Most wrap the list as {"data": […]}; some send it bare.
        is_bare = isinstance(value, list) and self.wrapped_in == "data"
        entries = (
            value if is_bare else value.get(self.wrapped_in) if isinstance(value, dict) else None
        )
        if not isinstance(entries, list):
            return None
        names = [entry.get(self.name_key) if isinstance(entry, dict) else None for entry in entries]
        return [self._given(name) if isinstance(name, str) else None for name in names]

    def _given(self, name: str) -> str:
        return self.given_prefix + name.removeprefix(self.prefix)


# The address of a publisher's models, or of all in OpenAI's dialect, at Vertex AI.
_VERTEX: Final = re.compile(
    r"(?P<origin>https?://[^/]+)/v1(?:beta1)?/(?:projects/[^/]+/locations/[^/]+/)?"
    r"(?:publishers/(?P<publisher>[a-z0-9-]+)|endpoints/openapi)",
    re.ASCII,
)
_BEDROCK: Final = re.compile(r"(?P<scheme>https?://)(?P<host>[^/]+)", re.ASCII)
_RUNTIME: Final = "bedrock-runtime"


def find_list(dialect: str, base_url: str, *, is_signed: bool = False) -> ModelList:
    """Return where a provider lists its models.

    Bedrock's lists are at another host than its models, where only requests that are signed go: a
    key itself is sent nowhere but below its base URL.
    """
    address = base_url.partition("?")[0].rstrip("/")
    if found := _VERTEX.fullmatch(address):
        publisher = found["publisher"] or "google"
        return ModelList(
            f"{found['origin']}/v1beta1/publishers/{publisher}/models?pageSize=300",
            "publisherModels",
            "name",
            prefix=f"publishers/{publisher}/models/",
            given_prefix="" if found["publisher"] else "google/",
        )
    if (found := _BEDROCK.match(address)) and is_signed:
        is_runtime = found["host"].startswith(_RUNTIME)
        if is_runtime or find_hosting(dialect, base_url) is BEDROCK_ANTHROPIC:
            host = found["host"].replace(_RUNTIME, "bedrock", 1) if is_runtime else found["host"]
            url = f"{found['scheme']}{host}/foundation-models"
            return ModelList(url, "modelSummaries", "modelId")
    url = join_url(base_url, _LIST_PATHS.get(dialect, "models"))
    if dialect == "gemini":
        return ModelList(url, "models", "name", prefix=_PREFIX)
    return ModelList(url, "data")


def one_token(
    dialect: str, upstream_name: str, max_tokens_parameter: str, base_url: str = ""
) -> tuple[str, Mapping[str, Any]]:
    """Return the path and the body by which a model is asked for as little as it can say.

    Without a parameter the one that the base URL tells is taken.
    """
    if hosting := find_hosting(dialect, base_url):
        return hosting.path(upstream_name, is_stream=False), {
            "anthropic_version": hosting.version,
            "messages": [{"role": "user", "content": "Hi"}],
            "max_tokens": 1,
        }
    if dialect == "gemini":
        path = f"{name_below_google(upstream_name)}:generateContent"
        parts = [{"parts": [{"text": "Hi"}], "role": "user"}]
        return path, {"contents": parts, "generationConfig": {"maxOutputTokens": 1}}
    if dialect == "openai-responses":
        return "responses", {
            "model": upstream_name,
            "input": "Hi",
            "max_output_tokens": _RESPONSES_TOKENS_MIN,
            "store": False,
        }
    messages = [{"role": "user", "content": "Hi"}]
    if dialect == "anthropic":
        return "messages", {"model": upstream_name, "messages": messages, "max_tokens": 1}
    maximum = max_tokens_parameter or find_max_tokens_parameter(base_url)
    body = {"model": upstream_name, "messages": messages, maximum: 1}
    return "chat/completions", body


_ANSWERS: Final = {
    "anthropic": "content",
    "gemini": "candidates",
    "openai": "choices",
    "openai-responses": "output",
}


def is_answer(dialect: str, value: Any) -> bool:
    """Return whether a provider answered with what a model said."""
    return isinstance(value, dict) and isinstance(value.get(_ANSWERS[dialect]), list)
