"""Refusals: what the provider says with each status code, in OpenAI's words.

Dialects write them in their own shape, and some of them in their own words.

Source: https://platform.openai.com/docs/guides/error-codes
"""

from __future__ import annotations

from dataclasses import dataclass

KEY_PAGE = "https://platform.openai.com/account/api-keys"


# Not frozen: the interpreter must be able to set an exception's traceback.
@dataclass(eq=False)
class ProviderError(Exception):
    """A refusal; type, code and param are OpenAI's."""

    status: int
    message: str
    type: str = "invalid_request_error"
    code: str | None = None
    param: str | None = None
    retry_after: int | None = None  # seconds


def build_status_error(
    status: int, *, code: str | None, model: str, key: str, retry_after: int | None
) -> ProviderError:
    """Return what OpenAI (or a provider that imitates it) says with this status.

    `key` is the key as received: the text of a 401 contains it in full.
    """
    type_, usual_code, param, message = _USUAL.get(status, _find_general(status))
    if status == 429 and code == "insufficient_quota":
        type_ = "insufficient_quota"
        message = "You exceeded your current quota, please check your plan and billing details."
    elif status == 429:
        retry_after = 1 if retry_after is None else retry_after
    elif status == 400 and code == "context_length_exceeded":
        param = "messages"
        message = (
            "This model's maximum context length is 8192 tokens. However, your messages resulted "
            "in 9001 tokens. Please reduce the length of the messages."
        )
    return ProviderError(
        status=status,
        message=message.format(model=model, key=key, seconds=retry_after or 1),
        type=type_,
        code=code or usual_code,
        param=param,
        retry_after=retry_after,
    )


def build_key_error(received: str | None) -> ProviderError:
    """Return the 401 for a wrong or missing key; like OpenAI's, it shows a piece of the key."""
    if not received:
        return ProviderError(401, f"You didn't provide an API key. You can find one at {KEY_PAGE}.")
    piece = f"{received[:8]}{'*' * 12}{received[-4:]}"
    message = f"Incorrect API key provided: {piece}. You can find your API key at {KEY_PAGE}."
    return ProviderError(401, message, code="invalid_api_key")


def _find_general(status: int) -> tuple[str, str | None, str | None, str]:
    if status >= 500:
        return "server_error", None, None, "The server had an error. Sorry about that!"
    return "invalid_request_error", None, None, "The request was refused."


# type, code, param, message
_USUAL: dict[int, tuple[str, str | None, str | None, str]] = {
    400: (
        "invalid_request_error",
        "invalid_value",
        "messages",
        "Invalid value for 'messages': the demo provider was asked to refuse it.",
    ),
    401: (
        "invalid_request_error",
        "invalid_api_key",
        None,
        f"Incorrect API key provided: {{key}}. You can find your API key at {KEY_PAGE}.",
    ),
    402: (
        "insufficient_credits",
        "insufficient_credits",
        None,
        "This account has no credits left. Add credits and try again.",
    ),
    403: (
        "request_forbidden",
        "unsupported_country_region_territory",
        None,
        "Country, region, or territory not supported",
    ),
    404: (
        "invalid_request_error",
        "model_not_found",
        None,
        "The model `{model}` does not exist or you do not have access to it.",
    ),
    413: (
        "invalid_request_error",
        "request_too_large",
        None,
        "Maximum content size limit (26214400) exceeded",
    ),
    422: (
        "invalid_request_error",
        "invalid_value",
        "messages",
        "Unprocessable input: messages.0.content",
    ),
    429: (
        "requests",
        "rate_limit_exceeded",
        None,
        "Rate limit reached for {model} in organization org-demo on requests per min (RPM): "
        "Limit 3, Used 3, Requested 1. Please try again in {seconds}s.",
    ),
    500: (
        "server_error",
        None,
        None,
        "The server had an error while processing your request. Sorry about that!",
    ),
    502: ("server_error", "bad_gateway", None, "Bad gateway."),
    503: (
        "server_error",
        "service_unavailable",
        None,
        "The engine is currently overloaded, please try again later",
    ),
    504: ("server_error", "timeout", None, "The request timed out."),
    529: ("overloaded_error", "overloaded", None, "Overloaded"),
}
