"""The table of client errors: what each numbered row answers and promises.

A row with several codes or statuses uses the first unless the place that raises it names another.
Over 400 lines because it is one table, and nothing else.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

# What an upstream may say about the client's own input and we repeat; anything else becomes the
# first of these (E40).
UPSTREAM_CODES: Final = (
    "invalid_request",
    "array_above_max_length",
    "array_below_min_length",
    "content_filter",
    "content_policy_violation",
    "context_length_exceeded",
    "decimal_above_max_value",
    "decimal_below_min_value",
    "empty_array",
    "image_content_policy_violation",
    "image_parse_error",
    "image_too_large",
    "integer_above_max_value",
    "integer_below_min_value",
    "invalid_base64_image",
    "invalid_function_parameters",
    "invalid_image",
    "invalid_image_format",
    "invalid_image_url",
    "invalid_json",
    "invalid_json_schema",
    "invalid_prompt",
    "invalid_type",
    "invalid_value",
    "missing_required_parameter",
    "previous_response_not_found",
    "string_above_max_length",
    "string_below_min_length",
    "unknown_parameter",
    "unsupported_country_region_territory",
    "unsupported_parameter",
    "unsupported_value",
)


@dataclass(frozen=True, slots=True)
class ErrorRow:
    """One row of the table: what is fixed about an error."""

    condition: str  # when it happens, for the documentation
    statuses: tuple[int, ...]  # the first is the default; 200: after the stream has begun
    type: str
    codes: tuple[str, ...]  # the first is the default
    message: str  # the default, for a human
    headers: tuple[tuple[str, str], ...] = ()
    retry_after: int | None = None  # seconds by default; None: the header is never sent
    should_retry: bool | None = None  # False: `x-should-retry: false`
    is_sent: bool = True  # False: there is nobody to tell; only the record has the code


_INVALID: Final = "invalid_request_error"
_SERVER: Final = "server_error"
_OVERLOADED: Final = "service_unavailable_error"
_QUOTA: Final = "insufficient_quota"
_IDEMPOTENCY: Final = "idempotency_error"
_BEARER: Final = (("www-authenticate", "Bearer"),)
_CLOSE: Final = (("connection", "close"),)

_REFUSED: Final = {
    "E01": ErrorRow(
        condition="no API key",
        statuses=(401,),
        type=_INVALID,
        codes=("missing_api_key",),
        message="No API key was sent. Send it as 'Authorization: Bearer <key>'.",
        headers=_BEARER,
    ),
    "E02": ErrorRow(
        condition="unknown or malformed API key",
        statuses=(401,),
        type=_INVALID,
        codes=("invalid_api_key",),
        message="The API key is not valid.",
        headers=_BEARER,
    ),
    "E03": ErrorRow(
        condition="two different API keys in one request",
        statuses=(401,),
        type=_INVALID,
        codes=("conflicting_credentials",),
        message="The request carries two different API keys.",
        headers=_BEARER,
    ),
    "E04": ErrorRow(
        condition="API key expired or disabled",
        statuses=(401,),
        type=_INVALID,
        codes=("api_key_disabled", "api_key_expired"),
        message="The API key is no longer valid.",
        headers=_BEARER,
    ),
    "E05": ErrorRow(
        condition="account suspended",
        statuses=(403,),
        type=_INVALID,
        codes=("account_disabled",),
        message="The account is suspended.",
    ),
    "E06": ErrorRow(
        condition="the client's address is not on the key's list",
        statuses=(403,),
        type=_INVALID,
        codes=("ip_not_authorized",),
        message="The API key may not be used from this network.",
    ),
    "E07": ErrorRow(
        condition="model unknown, or not allowed for the caller",
        statuses=(404,),
        type=_INVALID,
        codes=("model_not_found",),
        message="The model does not exist or you do not have access to it.",
    ),
    "E08": ErrorRow(
        condition="the endpoint is not among the operations that the key is allowed",
        statuses=(403,),
        type=_INVALID,
        codes=("insufficient_scope",),
        message="The API key may not use this endpoint.",
    ),
    "E09": ErrorRow(
        condition="unknown path, or no stored answer with this id",
        statuses=(404,),
        type=_INVALID,
        codes=("unknown_url", "response_not_found"),
        message="This URL does not exist.",
    ),
    "E10": ErrorRow(
        condition="wrong method",
        statuses=(405,),
        type=_INVALID,
        codes=("method_not_supported",),
        message="This URL does not support the method of the request.",
        headers=(("allow", "POST"),),
    ),
    "E11": ErrorRow(
        condition=(
            "the body is not JSON, not an object, too deep, or holds NaN, Infinity, NUL, a lone"
            " surrogate, an integer beyond 64 bits, more than 1000000 values or more than 250000"
            " objects and members of such"
        ),
        statuses=(400,),
        type=_INVALID,
        codes=("invalid_json",),
        message="The body of the request is not a valid JSON object.",
    ),
    "E12": ErrorRow(
        condition="the body names a parameter twice, or twice but for case",
        statuses=(400,),
        type=_INVALID,
        codes=("duplicate_parameter",),
        message="The body of the request names a parameter more than once.",
    ),
    "E13": ErrorRow(
        condition="a parameter is missing, of the wrong type or out of range",
        statuses=(400,),
        type=_INVALID,
        codes=(
            "invalid_value",
            "missing_required_parameter",
            "invalid_type",
            "integer_below_min_value",
            "integer_above_max_value",
            "previous_response_not_found",
        ),
        message="A parameter of the request is not valid.",
    ),
    "E14": ErrorRow(
        condition="a parameter the gateway cannot meter",
        statuses=(400,),
        type=_INVALID,
        codes=("unsupported_parameter",),
        message="A parameter of the request is not supported by this gateway.",
    ),
    "E15": ErrorRow(
        condition="the body is too large",
        statuses=(413,),
        type=_INVALID,
        codes=("request_too_large",),
        message="The body of the request is too large.",
        headers=_CLOSE,
    ),
    "E16": ErrorRow(
        condition="wrong content type or encoding",
        statuses=(415,),
        type=_INVALID,
        codes=("unsupported_media_type",),
        message="Send the body as application/json, without a content encoding.",
        headers=(("accept", "application/json"),),
    ),
    "E17": ErrorRow(
        condition="headers too large (431) or URL too long (414)",
        statuses=(431, 414),
        type=_INVALID,
        codes=("header_too_large",),
        message="The headers or the URL of the request are too long.",
        headers=_CLOSE,
    ),
    "E18": ErrorRow(
        condition="the client sends its body too slowly",
        statuses=(408,),
        type=_INVALID,
        codes=("request_timeout",),
        message="The body of the request did not arrive in time.",
        headers=_CLOSE,
    ),
    "E19": ErrorRow(
        condition="the balance cannot cover the call",
        statuses=(429,),
        type=_QUOTA,
        codes=("credit_balance_exhausted",),
        message="The balance is too low for this request. Add credit or lower max_tokens.",
        should_retry=False,
    ),
    "E20": ErrorRow(
        condition="a spending limit is reached: of the key, its user, his user group or of every "
        "provider of the model",
        statuses=(429,),
        type=_QUOTA,
        codes=("project_spend_limit_exceeded",),
        message="A spending limit is reached.",
        should_retry=False,
    ),
    "E21": ErrorRow(
        condition="the budget of a day or a month does not cover the call: of the user or his "
        "user group",
        statuses=(429,),
        type=_QUOTA,
        codes=("organization_spend_limit_exceeded",),
        message="A budget does not cover this request.",
        should_retry=False,
    ),
    "E22": ErrorRow(
        condition="too many requests per minute",
        statuses=(429,),
        type="requests",
        codes=("rate_limit_exceeded",),
        message="Too many requests. Wait before sending the next one.",
        retry_after=1,
    ),
    "E23": ErrorRow(
        condition="too many tokens per minute",
        statuses=(429,),
        type="tokens",
        codes=("rate_limit_exceeded",),
        message="Too many tokens. Wait before sending the next request.",
        retry_after=1,
    ),
    "E24": ErrorRow(
        condition="too many requests in flight",
        statuses=(429,),
        type="rate_limit_error",
        codes=("slow_down",),
        message="Too many requests at the same time.",
        retry_after=1,
    ),
    "E25": ErrorRow(
        condition="a risk rule blocks the request for where it comes from or what it is for",
        statuses=(403,),
        type=_INVALID,
        codes=("request_blocked",),
        message="The request was refused by a rule of this gateway.",
    ),
    "E26": ErrorRow(
        condition="a risk rule blocks what the request says",
        statuses=(400,),
        type=_INVALID,
        codes=("content_policy_violation",),
        message="The request was refused because of what it says.",
    ),
    "E27": ErrorRow(
        condition="the first request with the same `Idempotency-Key` is still running",
        statuses=(409,),
        type=_IDEMPOTENCY,
        codes=("idempotency_in_progress",),
        message="A request with this idempotency key is still running.",
        retry_after=1,
    ),
    "E28": ErrorRow(
        condition="the same `Idempotency-Key` came with another body or path before",
        statuses=(422,),
        type=_IDEMPOTENCY,
        codes=("idempotency_key_reused",),
        message="This idempotency key was used for another request.",
    ),
    "E29": ErrorRow(
        condition="the `Idempotency-Key` is empty, longer than 255 characters or not printable",
        statuses=(400,),
        type=_IDEMPOTENCY,
        codes=("invalid_idempotency_key",),
        message="An idempotency key is 1 to 255 printable ASCII characters.",
    ),
    "E31": ErrorRow(
        condition=(
            "the first request with the same `Idempotency-Key` has ended and its answer was not"
            " kept"
        ),
        statuses=(409,),
        type=_IDEMPOTENCY,
        codes=("idempotent_result_unavailable",),
        message="A request with this idempotency key has ended, but its answer was not kept.",
        should_retry=False,
    ),
    "E32": ErrorRow(
        condition="the model has no price or no route",
        statuses=(503,),
        type=_SERVER,
        codes=("model_not_available",),
        message="The model is not available at the moment.",
        should_retry=False,
    ),
    "E33": ErrorRow(
        condition="every route of the model is down, or its provider at a limit",
        statuses=(503,),
        type=_OVERLOADED,
        codes=("server_is_overloaded",),
        message="The model is overloaded. Try again later.",
        retry_after=5,
    ),
    "E34": ErrorRow(
        condition="the database is unreachable",
        statuses=(503,),
        type=_SERVER,
        codes=("service_unavailable",),
        message="The service is not available at the moment.",
        retry_after=2,
    ),
    "E35": ErrorRow(
        condition="the record of the call cannot be written",
        statuses=(503,),
        type=_SERVER,
        codes=("service_unavailable",),
        message="The service is not available at the moment.",
        retry_after=5,
    ),
    "E36": ErrorRow(
        condition="the gateway is shutting down",
        statuses=(503,),
        type=_SERVER,
        codes=("service_restarting",),
        message="The service is restarting. Try again.",
        headers=_CLOSE,
        retry_after=1,
    ),
    "E37": ErrorRow(
        condition=(
            "the gateway is full, or of one user's bodies 64 MiB are still under way or 32 MiB wait"
            " to be parsed"
        ),
        statuses=(503,),
        type=_OVERLOADED,
        codes=("server_is_overloaded",),
        message="The service is overloaded. Try again later.",
        retry_after=1,
    ),
}

_UPSTREAM: Final = {
    "E40": ErrorRow(
        condition=(
            "upstream refused the client's input (400, 422; 403 and 404 for its content or files)"
        ),
        statuses=(400, 422),
        type=_INVALID,
        codes=UPSTREAM_CODES,
        message="The provider refused the request as not valid.",
    ),
    "E41": ErrorRow(
        condition="upstream refused our key (401, 403), or refused without a known reason (403)",
        statuses=(502,),
        type=_SERVER,
        codes=("upstream_auth_error",),
        message="The provider of the model could not be reached.",
        retry_after=5,
    ),
    "E42": ErrorRow(
        condition="our account with the provider is empty (402, 429)",
        statuses=(503,),
        type=_SERVER,
        codes=("upstream_unavailable",),
        message="The provider of the model is not available at the moment.",
        retry_after=5,
    ),
    "E43": ErrorRow(
        condition="upstream rate limit (429)",
        statuses=(429,),
        type="rate_limit_error",
        codes=("upstream_rate_limited",),
        message="The provider of the model receives too many requests. Try again later.",
        retry_after=1,
    ),
    "E44": ErrorRow(
        condition=(
            "upstream does not know the model, or leaves open whether it is the model or the"
            " endpoint, as Gemini does (404), or the model is not for our key (403)"
        ),
        statuses=(503,),
        type=_SERVER,
        codes=("model_not_available",),
        message="The model is not available at the moment.",
        retry_after=5,
    ),
    "E45": ErrorRow(
        condition="too large for the upstream (413)",
        statuses=(413,),
        type=_INVALID,
        codes=("request_too_large",),
        message="The request is too large for the provider of the model.",
    ),
    "E46": ErrorRow(
        condition="upstream failed (5xx); 503 where it was overloaded",
        statuses=(502, 503),
        type=_SERVER,
        codes=("upstream_error",),
        message="The provider of the model failed. Try again.",
        retry_after=1,
    ),
    "E47": ErrorRow(
        condition="upstream cannot be reached",
        statuses=(502,),
        type=_SERVER,
        codes=("upstream_unreachable",),
        message="The provider of the model could not be reached.",
        retry_after=1,
    ),
    "E48": ErrorRow(
        condition="upstream does not answer in time",
        statuses=(504,),
        type=_SERVER,
        codes=("upstream_timeout",),
        message="The provider of the model did not answer in time.",
        retry_after=1,
    ),
    "E49": ErrorRow(
        condition="upstream answered 200 with something that is no answer",
        statuses=(502,),
        type=_SERVER,
        codes=("upstream_invalid_response",),
        message="The provider of the model sent an answer that is not valid.",
        retry_after=1,
    ),
    "E51": ErrorRow(
        condition="upstream redirected (never followed)",
        statuses=(502,),
        type=_SERVER,
        codes=("upstream_invalid_response",),
        message="The provider of the model sent an answer that is not valid.",
        retry_after=1,
    ),
    "E52": ErrorRow(
        condition="the upstream's answer is too large",
        statuses=(502,),
        type=_SERVER,
        codes=("upstream_response_too_large",),
        message="The answer of the provider of the model is too large.",
        should_retry=False,
    ),
    "E53": ErrorRow(
        condition="upstream sent an error as the first event of a stream",
        statuses=(503,),
        type=_SERVER,
        codes=("upstream_error",),
        message="The provider of the model failed. Try again.",
        retry_after=1,
    ),
    "E54": ErrorRow(
        condition="upstream does not have the model at this endpoint (403, 404, in words)",
        statuses=(404,),
        type=_INVALID,
        codes=("model_not_supported",),
        message="The provider does not have the model at this endpoint.",
    ),
}

_MID_STREAM: Final = {
    "E60": ErrorRow(
        condition="upstream broke off, stalled or sent an error after content",
        statuses=(200,),
        type=_SERVER,
        codes=("upstream_interrupted",),
        message="The upstream closed the stream early.",
    ),
    "E61": ErrorRow(
        condition="the stream takes longer than its provider may, or is larger than 256 MiB",
        statuses=(200,),
        type=_SERVER,
        codes=("stream_limit_exceeded",),
        message="The stream exceeded the limits of this gateway.",
    ),
    "E62": ErrorRow(
        condition="the client went away (recorded as 499)",
        statuses=(499,),
        type=_INVALID,
        codes=("client_disconnected",),
        message="The client closed the connection.",
        is_sent=False,
    ),
    "E64": ErrorRow(
        condition="the gateway died (the connection is cut; recorded afterwards)",
        statuses=(200,),
        type=_SERVER,
        codes=("gateway_crashed",),
        message="The service was interrupted.",
        is_sent=False,
    ),
    "E66": ErrorRow(
        condition="the gateway is shutting down and the stream is still running",
        statuses=(200,),
        type=_SERVER,
        codes=("service_restarting",),
        message="The service is restarting.",
    ),
    "E70": ErrorRow(
        condition="a fault of the gateway before settlement",
        statuses=(500,),
        type=_SERVER,
        codes=("internal_error",),
        message="Internal error.",
    ),
    "E71": ErrorRow(
        condition="a fault of the gateway after settlement",
        statuses=(500,),
        type=_SERVER,
        codes=("internal_error",),
        message="Internal error.",
        should_retry=False,
    ),
}

# What is answered before any provider was asked.
REFUSALS: Final = frozenset(_REFUSED)
ROWS: Final[Mapping[str, ErrorRow]] = MappingProxyType(_REFUSED | _UPSTREAM | _MID_STREAM)
