"""What the failure of a provider means for the client, in whichever dialect it is told.

Nothing that an upstream writes reaches a client unless it is about the client's own input, and
then without anything that looks like a key, an address, a path or an organisation.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

import orjson

from apps.core.error_rows import UPSTREAM_CODES
from apps.core.errors import GatewayError

# What an error of an upstream may be called in our records and answers; the rest is dropped.
_KNOWN_CODES: Final = frozenset(UPSTREAM_CODES) | {
    "account_deactivated",
    "api_error",
    "authentication_error",
    "billing_hard_limit_reached",
    "billing_not_active",
    "engine_overloaded",
    "engine_overloaded_error",
    "insufficient_quota",
    "internal_error",
    "internal_server_error",
    "invalid_api_key",
    "invalid_request_error",
    "model_not_found",
    "overloaded_error",
    "permission_error",
    "rate_limit_error",
    "rate_limit_exceeded",
    "server_error",
    "server_is_overloaded",
    "service_unavailable",
    "slow_down",
    "timeout",
    "timeout_error",
    "upstream_error",
}
_EMPTY_ACCOUNT_CODES: Final = frozenset(
    {
        "account_deactivated",
        "billing_hard_limit_reached",
        "billing_not_active",
        "insufficient_quota",
    }
)
_EMPTY_ACCOUNT_TEXT: Final = re.compile(
    r"credit balance is too low|insufficient (?:balance|credits?|funds|quota)|exceeded your current"
    r" quota|out of credits|used all available credits|n[o']t have any credits"
    r"|account (?:is )?(?:in arrears|overdue)",
    re.IGNORECASE,
)
_BAD_KEY_TEXT: Final = re.compile(
    r"api[ _-]?key[^.]{0,40}(?:not valid|invalid|expired|incorrect)"
    r"|(?:invalid|incorrect|expired)[^.]{0,20}api[ _-]?key",
    re.IGNORECASE,
)
# What stands in a 403 whose key may use other models, in either order: "Project … does not have
# access to model …" (OpenAI), "The model … is blocked at the project level" (Groq), "You don't have
# access to the model with the specified model ID.", "… is not authorized to perform:
# bedrock:InvokeModel on resource: …" (Bedrock). "Missing scopes: model.request" is about the key.
_NO_MODEL_TEXT: Final = re.compile(
    r"(?:access|permi(?:ssion|tted)|allowed|authori[sz]ed|entitled|blocked|enabled)\b"
    r"[^\n]{0,60}\bmodels?\b(?!\.\w)"
    r"|not authorized to perform: bedrock:Invoke"
    r"|\bmodels?\b(?!\.\w)[^\n]{0,200}"
    r"\b(?:access|permi(?:ssion|tted)|allowed|authori[sz]ed|entitled|blocked|enabled)",
    re.IGNORECASE,
)
# What stands in a 403 or 404 for what the client sent: its content, a parameter, or a file, an
# address or an item that the provider may not read, or that is not there. Sources: OpenRouter
# ("Your input was flagged"), xAI ("Content violates usage guidelines. … Failed check:
# SAFETY_CHECK_TYPE_BIO"), Gemini ("You do not have permission to access the File … or it may not
# exist.", "Cannot fetch content from the provided URL.", "… does not have storage.objects.get
# access to …"), Anthropic (files), OpenAI ("You are not allowed to request logprobs from this
# model", "Item with id '…' not found.").
_INPUT_TEXT: Final = re.compile(
    r"\b(?:input|prompt|content) (?:was|is|has been) flagged|\bcontent violates\b"
    r"|\bfailed check: safety|\bthe provided ur[il]\b|\bstorage\.(?:objects|buckets)\."
    r"|\bfiles?\b[^\n]{0,120}\b(?:exist|permission|not found)"
    r"|\bpermission\b[^\n]{0,60}\bfiles?\b"
    r"|\bnot allowed to request\b|\b(?:item|response) with id\b",
    re.IGNORECASE,
)
# What stands in a 403 or 404 for the endpoint at which the client asks a model, as OpenAI says it:
# "This is a chat model and not supported in the v1/completions endpoint.", "This model is only
# supported in v1/responses and not in v1/chat/completions.", "You are not allowed to generate
# embeddings from this model".
_ENDPOINT_TEXT: Final = re.compile(
    r"\bmodel\b[^\n]{0,60}\bsupported in (?:the )?v1/"
    r"|\bnot allowed to generate embeddings\b"
    r"|\bdoes not support (?:chat|completions?|embeddings?|moderations?|rerank)"
    r"|\bnot an? (?:chat|completions?|embeddings?|moderation|rerank\w*) model\b",
    re.IGNORECASE,
)
# What stands in a 403 for the key or the account behind it, and no client can lead to. Whether a
# scope is missing depends on the endpoint that a client asks, so that is none of it.
_REFUSED_KEY_TEXT: Final = re.compile(
    r"api[ _-]?key[^\n]{0,60}\b(?:blocked|compromised|deactivated|disabled|leaked|restriction"
    r"|revoked|suspended)\b"
    r"|\b(?:account|consumer|organi[sz]ation|project|team|tenant|workspace)\b[^\n]{0,160}"
    r"\b(?:banned|deactivated|denied access|disabled|locked|restricted|suspended|terminated)\b"
    r"|\baccess (?:was|has been) terminated|\bunregistered callers\b"
    r"|\b(?:country|region|territory|location)\b[^\n]{0,60}\bnot supported"
    r"|\b(?:security token|request signature|signing method|signature expired)\b"
    r"|\b(?:expired|incorrect|invalid|missing)\b[^.\n]{0,30}\b(?:authentication|credentials?)\b",
    re.IGNORECASE,
)
_REFUSED_KEY_CODES: Final = frozenset({"unsupported_country_region_territory"})
# Source: https://github.com/googleapis/googleapis/blob/master/google/api/error_reason.proto
_REFUSED_KEY_REASONS: Final = frozenset(
    {
        "ACCESS_TOKEN_EXPIRED", "ACCOUNT_STATE_INVALID", "API_KEY_HTTP_REFERRER_BLOCKED",
        "API_KEY_INVALID", "API_KEY_IP_ADDRESS_BLOCKED", "API_KEY_SERVICE_BLOCKED",
        "BILLING_DISABLED", "CONSUMER_INVALID", "CONSUMER_SUSPENDED", "CREDENTIALS_MISSING",
        "SERVICE_DISABLED", "USER_PROJECT_DENIED",
    }
)  # fmt: skip

_BODY_BYTES_READ: Final = 64 * 1024
_MESSAGE_LENGTH_MAX: Final = 500
_PARAM_LENGTH_MAX: Final = 100

_PARAM: Final = re.compile(r"[a-z_][a-z0-9_]*(?:\.[a-z0-9_]+|\[[0-9]{1,6}\])*", re.ASCII)
_KNOWN_PARAMS: Final = frozenset(
    {
        "best_of", "dimensions", "encoding_format", "frequency_penalty", "function_call",
        "functions", "input", "logit_bias", "logprobs", "max_completion_tokens", "max_tokens",
        "messages", "metadata", "min_p", "min_tokens", "modalities", "n", "parallel_tool_calls",
        "presence_penalty", "previous_response_id", "prompt", "reasoning", "reasoning_effort",
        "repetition_penalty", "response_format", "seed", "stop", "store", "stream",
        "stream_options", "suffix", "temperature", "thinking", "tool_choice", "tools", "top_k",
        "top_logprobs", "top_p", "user", "verbosity",
    }
)  # fmt: skip

# What Anthropic says of a place in a request looks like the name of a host.
_NO_PLACE: Final = (
    r"(?!(?:functions|input|messages|system|tools)\.[0-9]+\b"
    r"|thinking\.(?:adaptive|enabled|type)\b)"
)
# In this order: a URL holds a path and a host, and the name of a file looks like a host.
_UNSAFE: Final = (
    re.compile(r"<[^<>]{0,500}>"),
    re.compile(r"\b[a-z][a-z0-9+.-]{1,20}://\S+", re.IGNORECASE),
    re.compile(r"\b(?:bearer|basic)\s+\S+", re.IGNORECASE),
    re.compile(r"\b(?:sk|pk|rk|key|gsk|xai|hf|tok|ghp|nvapi|fw|r8|pplx|csk|AKIA)[-_*][\w.*-]{3,}"),
    re.compile(r"\b(?:AIza|AKIA|ya29\.|eyJ)[\w.*-]{6,}"),
    re.compile(r"\b(?:org|proj|acct|req|user|team|file|asst|ws)[-_][\w-]{4,}", re.IGNORECASE),
    re.compile(r"\S+@\S+"),
    re.compile(r"\b[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?::[0-9]{1,5})?\b"),
    re.compile(r"\[?\b(?:[0-9a-f]{0,4}:){3,}[0-9a-f]{0,4}\b\]?", re.IGNORECASE),
    re.compile(r"(?<![\w/])(?:~|\.{1,2})?/(?:[\w.@-]+/)*[\w.@-]+"),
    re.compile(
        rf"(?<![\w.\]]){_NO_PLACE}(?:[a-z0-9-]+\.)+[a-z]{{2,}}(?::[0-9]{{1,5}}|/\S*)?(?![\w\[(])",
        re.IGNORECASE,
    ),
    re.compile(r"\blocalhost(?::[0-9]{1,5})?", re.IGNORECASE),
    re.compile(r"\b[A-Za-z]:\\\S+"),
    re.compile(r"\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b", re.IGNORECASE),
    re.compile(r"\b(?=[\w-]*[0-9])(?=[\w-]*[A-Za-z])[\w-]{24,}\b"),
    re.compile(r"\*{2,}[\w-]*"),
)
_INTERNAL: Final = re.compile(
    r"traceback|File \"|\bat [\w.$]+\(|stack ?trace|panic:", re.IGNORECASE
)


def allowed_code(code: object) -> str | None:
    """Return an upstream's error code if it is a known one."""
    return code if isinstance(code, str) and code in _KNOWN_CODES else None


def error_code(document: Mapping[str, Any]) -> str | None:
    """Return the code of the error in an event, for the record, if it is a known one."""
    error = document.get("error")
    if not isinstance(error, dict):
        return None
    return allowed_code(error.get("code")) or allowed_code(error.get("type"))


def clean_message(message: str) -> str:
    """Return an upstream's message without what could be a secret or an internal name.

    Returns "" where the message is an insight into the upstream's machinery.
    """
    text = " ".join(message[:_BODY_BYTES_READ].split())[: 2 * _MESSAGE_LENGTH_MAX]
    if _INTERNAL.search(text) is not None:
        return ""
    for pattern in _UNSAFE:
        text = pattern.sub("[removed]", text)
    return text[:_MESSAGE_LENGTH_MAX].strip()


def upstream_error(
    status: int, headers: Mapping[str, str], body: bytes, *, is_converted: bool = False
) -> GatewayError:
    """Return what an upstream's failure means for the client: one of E40 to E46, E51 or E54.

    `headers` must be looked up by lower-case names or ignore case. `is_converted`: the client sent
    no parameter of the name that the upstream has for it.
    """
    error = _error_object(body)
    code = allowed_code(error.get("code")) or allowed_code(error.get("type"))
    message = error.get("message")
    text = message if isinstance(message, str) else ""
    if 300 <= status < 400:
        return GatewayError("E51")
    is_of_client = status in (403, 404) and _is_input_refused(code, text)
    # It may repeat any words of the client.
    is_empty = not is_of_client and _is_account_empty(code, text)
    if status == 402 or (400 <= status < 500 and is_empty):
        return GatewayError("E42")
    if is_of_client or status in (400, 422):
        if status == 400 and _is_key_bad(code, text):
            return GatewayError("E41")
        return GatewayError(
            "E40",
            status=400 if is_of_client else status,
            code=code if code in UPSTREAM_CODES else None,
            param=None if is_converted else _param(error.get("param")),
            message=clean_message(text) or None,
        )
    if status in (403, 404) and _ENDPOINT_TEXT.search(text[: 2 * _MESSAGE_LENGTH_MAX]):
        return GatewayError("E54")
    if status == 403 and _is_about_the_model(error, code, text):
        return GatewayError("E44")  # The key works, but not for this model.
    if status in (401, 403):
        return GatewayError("E41")
    if status == 429:
        return GatewayError("E43", retry_after=_retry_after(headers))
    if status == 404:
        return GatewayError("E44")
    if status == 413:
        return GatewayError("E45")
    return GatewayError("E46", status=503 if status in (503, 529) else 502)


def is_key_refused(body: bytes) -> bool:
    """Return whether a 403 says that the key is refused, or the account behind it.

    A provider says 403 for much that a client wrote, too, and in ever new words.
    """
    error = _error_object(body)
    codes = {one for one in (error.get("code"), error.get("type")) if isinstance(one, str)}
    code = next(filter(None, map(allowed_code, codes)), None)
    message = error.get("message")
    text = message[: 2 * _MESSAGE_LENGTH_MAX] if isinstance(message, str) else ""
    return (
        _is_key_bad(code, text)
        or _is_account_empty(code, text)
        or not codes.isdisjoint(_REFUSED_KEY_CODES)
        or not _reasons(error).isdisjoint(_REFUSED_KEY_REASONS)
        or _REFUSED_KEY_TEXT.search(text) is not None
    )


def _reasons(error: Mapping[str, Any]) -> set[str]:
    """Return why an error of Google's is one, by the names that it has for that."""
    details = error.get("details")
    reasons = [
        detail.get("reason")
        for detail in (details if isinstance(details, list) else ())
        if isinstance(detail, dict)
    ]
    return {reason for reason in reasons if isinstance(reason, str)}


def _error_object(body: bytes) -> Mapping[str, Any]:
    """Return the object that describes an error, in whichever wrapping it came."""
    if len(body) > _BODY_BYTES_READ:
        return {}
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    if isinstance(document, list) and document:
        # Gemini's compatible endpoint wraps its errors in an array.
        document = document[0]
    if not isinstance(document, dict):
        return {}
    error = document.get("error", document)
    if isinstance(error, str):
        return {"message": error}
    return error if isinstance(error, dict) else {}


def _is_account_empty(code: str | None, text: str) -> bool:
    return code in _EMPTY_ACCOUNT_CODES or _EMPTY_ACCOUNT_TEXT.search(text) is not None


def _is_about_the_model(error: Mapping[str, Any], code: str | None, text: str) -> bool:
    """Return whether a 403 says that the key may not use this model.

    Its code may be any that names a model: model_not_found, model_not_allowed, Model.AccessDenied.
    """
    if _is_key_bad(code, text):
        return False
    codes = (error.get("code"), error.get("type"))
    return (
        any(isinstance(one, str) and "model" in one.lower() for one in codes)
        or _NO_MODEL_TEXT.search(text[: 2 * _MESSAGE_LENGTH_MAX]) is not None
    )


def _is_input_refused(code: str | None, text: str) -> bool:
    return code in ("content_filter", "content_policy_violation") or (
        _INPUT_TEXT.search(text[: 2 * _MESSAGE_LENGTH_MAX]) is not None
    )


def _is_key_bad(code: str | None, text: str) -> bool:
    return code in ("invalid_api_key", "authentication_error") or (
        _BAD_KEY_TEXT.search(text) is not None
    )


def _param(param: object) -> str | None:
    """Return the parameter an upstream complains about if a client can have sent it."""
    if not isinstance(param, str) or len(param) > _PARAM_LENGTH_MAX:
        return None
    if _PARAM.fullmatch(param) is None:
        return None
    return param if re.split(r"[.\[]", param, maxsplit=1)[0] in _KNOWN_PARAMS else None


def _retry_after(headers: Mapping[str, str]) -> int | None:
    """Return the seconds that an upstream asks to wait; a date counts as unknown."""
    for name, per_second in (("retry-after-ms", 1000), ("retry-after", 1)):
        value = headers.get(name, "")
        if re.fullmatch(r"[0-9]{1,9}(?:\.[0-9]{1,9})?", value, re.ASCII):
            # Rounded up without floats: a fraction of a second is a second.
            whole, _, fraction = value.partition(".")
            return -(-int(whole) // per_second) + (1 if fraction.strip("0") else 0)
    return None
