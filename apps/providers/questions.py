"""What providers of each dialect are asked beside calls: their models, and one token. Pure.

Sources: https://platform.openai.com/docs/api-reference, https://platform.claude.com/docs/en/api,
https://ai.google.dev/api
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

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


def list_path(dialect: str) -> str:
    """Return where a provider lists its models."""
    return _LIST_PATHS.get(dialect, "models")


def read_entries(dialect: str, value: Any) -> list[Any] | None:
    """Return the names in a list of models, None where it is none; a name may be anything."""
    if dialect == "gemini":
        entries = value.get("models") if isinstance(value, dict) else None
        key = "name"
    else:
        # Most wrap the list as {"data": […]}; some send it bare.
        entries = value.get("data") if isinstance(value, dict) else value
        key = "id"
    if not isinstance(entries, list):
        return None
    names = [entry.get(key) if isinstance(entry, dict) else None for entry in entries]
    if dialect == "gemini":
        return [name.removeprefix(_PREFIX) if isinstance(name, str) else None for name in names]
    return names


def one_token(
    dialect: str, upstream_name: str, max_tokens_parameter: str
) -> tuple[str, Mapping[str, Any]]:
    """Return the path and the body by which a model is asked for as little as it can say."""
    if dialect == "gemini":
        path = f"models/{quote(upstream_name, safe='')}:generateContent"
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
    body = {"model": upstream_name, "messages": messages, max_tokens_parameter: 1}
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
