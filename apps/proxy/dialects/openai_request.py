"""Requests in OpenAI's dialect: what the gateway must know of them before it lets them through.

Everything that decides what a call can cost is checked here (E13) or refused because it cannot be
metered (E14). What only the model understands passes untouched. Fields by which a client could
choose the upstream or its key are removed.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple

from apps.core.errors import GatewayError

Endpoint = Literal["chat/completions", "completions", "embeddings"]

CHOICES_MAX: Final = 128
INPUTS_MAX: Final = 2048
MODEL_NAME_LENGTH_MAX: Final = 256
INTEGER_MAX: Final = 2**31 - 1

_ROLES: Final = frozenset({"assistant", "developer", "function", "system", "tool", "user"})
_SERVICE_TIERS: Final = frozenset({"auto", "default"})
_TOOL_TYPES: Final = frozenset({"custom", "function"})
OUTPUT_PARAMETERS: Final = ("max_completion_tokens", "max_tokens")

# Paid features without a price here, and ways to make the upstream run something else than the
# model that is billed.
_UNSUPPORTED: Final = frozenset(
    {
        "audio",
        "enable_search",
        "fallbacks",
        "google_search",
        "mcp_servers",
        "models",
        "plugins",
        "prediction",
        "route",
        "search_parameters",
        "web_search",
        "web_search_options",
    }
)
_REMOVED: Final = frozenset(
    {
        "api_base",
        "api_key",
        "api_type",
        "api_version",
        "base_model",
        "base_url",
        "context_window_fallbacks",
        "custom_llm_provider",
        "deployment_id",
        "extra_body",
        "extra_headers",
        "extra_query",
        "headers",
        "mock_response",
        "model_list",
        "num_retries",
        "organization",
        "project",
        "provider",
        "proxy",
        "timeout",
        "user_config",
    }
)
_REMOVED_PREFIXES: Final = ("aws_", "azure_", "litellm_", "vertex_")

# Parameters that decide about money: a server that ignores case must not read them under a
# spelling that is not checked here.
_METERED: Final = frozenset(
    {
        "best_of",
        "input",
        "max_completion_tokens",
        "max_tokens",
        "messages",
        "modalities",
        "model",
        "n",
        "prompt",
        "service_tier",
        "stream",
        "stream_options",
        "tools",
    }
)
# What most requests hold and nothing more: of these nothing is removed or refused by its name.
_PLAIN: Final = _METERED | {
    "frequency_penalty",
    "presence_penalty",
    "response_format",
    "seed",
    "stop",
    "temperature",
    "tool_choice",
    "top_p",
    "user",
}


class ParsedRequest(NamedTuple):
    """A request of which everything that concerns money is known."""

    endpoint: Endpoint
    model: str
    is_stream: bool
    include_usage: bool  # the client wants the usage event of a stream
    choices: int  # answers the model will write: prompts × max(n, best_of)
    output_tokens_asked: int | None  # the client's own maximum per choice
    output_parameter: str | None  # by which of the two names it was given
    has_images: bool
    has_audio: bool
    body: dict[str, Any]  # without the fields that would choose the upstream


def parse_request(endpoint: Endpoint, body: dict[str, Any]) -> ParsedRequest:
    """Return what a request asks for.

    Raises GatewayError E13 and E14 with the parameter at fault.
    """
    kept = body if body.keys() <= _PLAIN else _keep(body)
    model = _model(kept)
    is_stream = _boolean(kept, "stream")
    service_tier = kept.get("service_tier")
    if service_tier is not None and not _is_one_of(service_tier, _SERVICE_TIERS):
        raise _unsupported("service_tier")
    output_parameter, output_tokens_asked = _output_maximum(kept)
    has_images = has_audio = False
    if endpoint == "chat/completions":
        has_images, has_audio = _check_messages(kept)
        _check_tools(kept)
        _check_modalities(kept)
        choices = _integer(kept, "n", CHOICES_MAX) or 1
    elif endpoint == "completions":
        answers = _integer(kept, "n", CHOICES_MAX) or 1
        candidates = _integer(kept, "best_of", CHOICES_MAX) or 1
        choices = _count_inputs(kept, "prompt") * max(answers, candidates)
        if choices > CHOICES_MAX:
            raise _above("n", CHOICES_MAX)
    else:
        if is_stream:
            raise _unsupported("stream")
        _count_inputs(kept, "input")
        choices = 1
    return ParsedRequest(
        endpoint=endpoint,
        model=model,
        is_stream=is_stream,
        include_usage=is_stream and _asks_for_usage(kept.get("stream_options")),
        choices=choices,
        output_tokens_asked=output_tokens_asked,
        output_parameter=output_parameter,
        has_images=has_images,
        has_audio=has_audio,
        body=kept,
    )


def _keep(body: dict[str, Any]) -> dict[str, Any]:
    """Return the body without what is removed. Raises E14 for what is not supported."""
    kept = {key: value for key, value in body.items() if not _is_removed(key)}
    for key, value in kept.items():
        folded = key.casefold()
        if folded != key and (folded in _METERED or folded in _UNSUPPORTED):
            raise _unsupported(key)
        if key in _UNSUPPORTED and value is not None and value is not False:
            raise _unsupported(key)
    return kept


def _is_removed(key: str) -> bool:
    folded = key.casefold()
    return folded in _REMOVED or folded.startswith(_REMOVED_PREFIXES)


def _is_one_of(value: object, names: frozenset[str]) -> bool:
    # An array or object could not even be looked up.
    return isinstance(value, str) and value in names


def _asks_for_usage(stream_options: object) -> bool:
    # Junk counts as no: the gateway meters by its own options in any case (I-31).
    return isinstance(stream_options, Mapping) and stream_options.get("include_usage") is True


def _missing(param: str) -> GatewayError:
    return GatewayError(
        "E13",
        code="missing_required_parameter",
        param=param,
        message=f"Missing required parameter: '{param}'.",
    )


def _wrong_type(param: str, expected: str) -> GatewayError:
    return GatewayError(
        "E13",
        code="invalid_type",
        param=param,
        message=f"Invalid type for '{param}': expected {expected}.",
    )


def _wrong_value(param: str, expected: str) -> GatewayError:
    return GatewayError(
        "E13",
        code="invalid_value",
        param=param,
        message=f"Invalid value for '{param}': expected {expected}.",
    )


def _above(param: str, maximum: int) -> GatewayError:
    return GatewayError(
        "E13",
        code="integer_above_max_value",
        param=param,
        message=f"Invalid '{param}': expected a value of at most {maximum}.",
    )


def _unsupported(param: str) -> GatewayError:
    return GatewayError(
        "E14", param=param, message=f"The parameter '{param}' is not supported by this gateway."
    )


def _model(body: Mapping[str, Any]) -> str:
    model = body.get("model")
    if model is None:
        raise _missing("model")
    if not isinstance(model, str):
        raise _wrong_type("model", "a string")
    if not model or len(model) > MODEL_NAME_LENGTH_MAX or not model.isprintable():
        raise _wrong_value("model", "the name of a model")
    return model


def _boolean(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise _wrong_type(name, "a boolean")
    return value


def _integer(body: Mapping[str, Any], name: str, maximum: int) -> int | None:
    """Return a whole number from 1 to `maximum`, None if it is absent or null."""
    value = body.get(name)
    if value is None:
        return None
    # type() and not isinstance(): true is an int.
    if type(value) is not int:
        raise _wrong_type(name, "an integer")
    if value < 1:
        raise GatewayError(
            "E13",
            code="integer_below_min_value",
            param=name,
            message=f"Invalid '{name}': expected a value of at least 1.",
        )
    if value > maximum:
        raise _above(name, maximum)
    return value


def _output_maximum(body: Mapping[str, Any]) -> tuple[str | None, int | None]:
    asked = [(_integer(body, name, INTEGER_MAX), name) for name in OUTPUT_PARAMETERS]
    given = [(value, name) for value, name in asked if value is not None]
    if not given:
        return None, None
    # An upstream may go by either of the two, so the larger one is what the call can cost.
    value, name = max(given, key=lambda pair: pair[0])
    return name, value


def _check_messages(body: Mapping[str, Any]) -> tuple[bool, bool]:
    """Return whether the messages hold images, and audio."""
    messages = body.get("messages")
    if messages is None:
        raise _missing("messages")
    if not isinstance(messages, list):
        raise _wrong_type("messages", "an array of objects")
    if not messages:
        raise _wrong_value("messages", "at least one message")
    has_images = has_audio = False
    for index, message in enumerate(messages):
        if not isinstance(message, dict):
            raise _wrong_type(f"messages[{index}]", "an object")
        role = message.get("role")
        if role is None:
            raise _missing(f"messages[{index}].role")
        if not isinstance(role, str):
            raise _wrong_type(f"messages[{index}].role", "a string")
        if role not in _ROLES:
            raise _wrong_value(f"messages[{index}].role", f"one of {', '.join(sorted(_ROLES))}")
        content = message.get("content")
        if content is None or isinstance(content, str):
            continue
        if not isinstance(content, list):
            raise _wrong_type(f"messages[{index}].content", "a string or an array of objects")
        for position, part in enumerate(content):
            if not isinstance(part, dict):
                raise _wrong_type(f"messages[{index}].content[{position}]", "an object")
            kind = part.get("type")
            has_images = has_images or kind not in ("text", "refusal", "input_audio")
            has_audio = has_audio or kind not in ("text", "refusal", "image_url")
    return has_images, has_audio


def _check_tools(body: Mapping[str, Any]) -> None:
    tools = body.get("tools")
    if tools is None:
        return
    if not isinstance(tools, list):
        raise _wrong_type("tools", "an array of objects")
    for index, tool in enumerate(tools):
        if not isinstance(tool, dict):
            raise _wrong_type(f"tools[{index}]", "an object")
        kind = tool.get("type")
        if kind is None:
            raise _missing(f"tools[{index}].type")
        if not _is_one_of(kind, _TOOL_TYPES):
            # Tools that the provider runs by itself are billed by the call.
            raise _unsupported(f"tools[{index}].type")


def _check_modalities(body: Mapping[str, Any]) -> None:
    modalities = body.get("modalities")
    if modalities is None:
        return
    if not isinstance(modalities, list):
        raise _wrong_type("modalities", "an array of strings")
    if any(modality != "text" for modality in modalities):
        raise _unsupported("modalities")


def _count_inputs(body: Mapping[str, Any], name: str) -> int:
    """Return the number of prompts: a string or token ids are one, arrays of them are many."""
    value = body.get(name)
    if value is None:
        raise _missing(name)
    if isinstance(value, str):
        return 1
    if not isinstance(value, list):
        raise _wrong_type(name, "a string or an array")
    if not value:
        raise _wrong_value(name, "at least one element")
    if all(type(item) is int for item in value):
        return 1
    is_strings = all(isinstance(item, str) for item in value)
    is_tokens = all(
        isinstance(item, list) and all(type(token) is int for token in item) for item in value
    )
    if not is_strings and not is_tokens:
        raise _wrong_type(name, "a string, an array of strings or an array of token arrays")
    if len(value) > INPUTS_MAX:
        raise _wrong_value(name, f"at most {INPUTS_MAX} elements")
    return len(value)
