"""Requests in OpenAI's dialect: what the gateway must know of them before it lets them through.

Everything that decides what a call can cost is checked here (E13) or refused because it cannot be
metered (E14). What only the model understands passes untouched. Fields by which a client could
choose the upstream or its key are removed. Their names are in `apps.core.parameter_names`.
"""

from collections.abc import Mapping
from typing import Any, Final

from apps.core.parameter_names import METERED
from apps.core.price_terms import tier_name
from apps.proxy.dialects.media_sources import check_addresses
from apps.proxy.dialects.openai_inputs import (
    MODERATION_MODEL,
    check_moderation,
    check_rerank,
    count_inputs,
)
from apps.proxy.dialects.openai_refusals import (
    above,
    missing,
    unsupported,
    wrong_type,
    wrong_value,
)
from apps.proxy.dialects.parsed_request import Endpoint, ParsedRequest
from apps.proxy.dialects.request_fields import (
    INTEGER_MAX,
    check_spelling,
    keep_allowed,
    read_boolean,
    read_integer,
    read_messages,
    read_model,
)
from apps.proxy.json_body import serialise

CHOICES_MAX: Final = 128

_ROLES: Final = frozenset({"assistant", "developer", "function", "system", "tool", "user"})
_TIER_LENGTH_MAX: Final = 32
_TOOL_TYPES: Final = frozenset({"custom", "function"})
OUTPUT_PARAMETERS: Final = ("max_completion_tokens", "max_tokens")

# What most requests hold and nothing more: of these nothing is removed or refused by its name.
_PLAIN: Final = METERED | {
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


# The same further inside: what a message, a part of it and a tool usually hold.
_MESSAGE_KEYS: Final = frozenset(
    {
        "audio",
        "content",
        "function_call",
        "name",
        "reasoning_content",
        "refusal",
        "role",
        "tool_call_id",
        "tool_calls",
    }
)
_PART_KEYS: Final = frozenset({"image_url", "input_audio", "text", "type"})
_TOOL_KEYS: Final = frozenset({"custom", "function", "type"})
# What clients add to a tool, or write flat. Anything else may name a tool that the provider runs by
# itself and bills by the call, whatever the type says.
_TOOL_EXTRAS: Final = frozenset(
    {
        "annotations",
        "cache_control",
        "defer_loading",
        "description",
        "id",
        "input_examples",
        "metadata",
        "name",
        "parameters",
        "strict",
        "title",
    }
)


def parse_request(endpoint: Endpoint, body: dict[str, Any]) -> ParsedRequest:
    """Return what a request asks for.

    Raises GatewayError E13 and E14 with the parameter at fault.
    """
    kept = body if body.keys() <= _PLAIN else keep_allowed(body, _PLAIN)
    if endpoint == "moderations" and kept.get("model") is None:
        kept = {**kept, "model": MODERATION_MODEL}
    model = read_model(kept)
    is_stream = read_boolean(kept, "stream")
    service_tier = read_service_tier(kept)
    output_parameter, output_tokens_asked = _output_maximum(kept)
    has_images = has_audio = False
    audio_parameter = ""
    if "audio" in kept or "modalities" in kept:
        audio_parameter = _read_audio_parameter(endpoint, kept)
    if endpoint == "chat/completions":
        has_images, has_audio = _check_messages(kept)
        _check_tools(kept)
        choices = read_integer(kept, "n", CHOICES_MAX) or 1
        if "best_of" in kept:
            # Some servers write so many answers to a chat, too.
            choices = max(choices, read_integer(kept, "best_of", CHOICES_MAX) or 1)
    elif endpoint == "completions":
        answers = read_integer(kept, "n", CHOICES_MAX) or 1
        candidates = read_integer(kept, "best_of", CHOICES_MAX) or 1
        choices = count_inputs(kept, "prompt") * max(answers, candidates)
        if choices > CHOICES_MAX:
            raise above("n", CHOICES_MAX)
    else:
        if is_stream:
            raise unsupported("stream")
        has_images = _check_inputs(endpoint, kept)
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
        service_tier=service_tier,
        search_parameter=_search_parameter(endpoint, kept) if "web_search_options" in kept else "",
        beside_bound=_prediction_bound(endpoint, kept) if "prediction" in kept else 0,
        audio_parameter=audio_parameter,
    )


def _check_inputs(endpoint: Endpoint, body: dict[str, Any]) -> bool:
    """Check what is to be read, and return whether images are among it."""
    if endpoint == "moderations":
        return check_moderation(body)
    if endpoint == "rerank":
        check_rerank(body)
        read_integer(body, "top_n", INTEGER_MAX)
    else:
        count_inputs(body, "input")
    return False


def read_service_tier(body: Mapping[str, Any]) -> str:
    """Return the tier by its own name, "" for the usual one. Raises E14."""
    value = body.get("service_tier")
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > _TIER_LENGTH_MAX:
        raise unsupported("service_tier")
    return tier_name(value)


def _search_parameter(endpoint: Endpoint, body: Mapping[str, Any]) -> str:
    """Return by what the provider may search. Raises E14 where it could not be metered."""
    options = body["web_search_options"]
    if options is None or options is False:
        return ""
    if endpoint != "chat/completions" or not isinstance(options, dict):
        raise unsupported("web_search_options")
    return "web_search_options"


def _prediction_bound(endpoint: Endpoint, body: Mapping[str, Any]) -> int:
    """Return the most tokens of a predicted output that can be billed though they are rejected.

    Providers bill these as output, beside what the model writes. A token is at least one byte.
    Source: https://platform.openai.com/docs/guides/predicted-outputs
    """
    prediction = body["prediction"]
    if prediction is None or prediction is False:
        return 0
    if endpoint != "chat/completions" or not isinstance(prediction, dict):
        raise unsupported("prediction")
    content = prediction.get("content")
    parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
    for part in parts:
        is_text = isinstance(part, dict) and part.get("type") == "text"
        if not is_text or not isinstance(part.get("text"), str):
            # What is predicted elsewhere has a length that nobody here knows.
            raise unsupported("prediction")
    if prediction.get("type") != "content":
        raise unsupported("prediction")
    return len(serialise(prediction))


def _is_one_of(value: object, names: frozenset[str]) -> bool:
    # An array or object could not even be looked up.
    return isinstance(value, str) and value in names


def _asks_for_usage(stream_options: object) -> bool:
    # Junk counts as no: the gateway meters by its own options in any case (I-31).
    return isinstance(stream_options, Mapping) and stream_options.get("include_usage") is True


def _output_maximum(body: Mapping[str, Any]) -> tuple[str | None, int | None]:
    asked = [(read_integer(body, name, INTEGER_MAX), name) for name in OUTPUT_PARAMETERS]
    given = [(value, name) for value, name in asked if value is not None]
    if not given:
        return None, None
    # An upstream may go by either of the two, so the larger one is what the call can cost.
    value, name = max(given, key=lambda pair: pair[0])
    return name, value


def _check_messages(body: Mapping[str, Any]) -> tuple[bool, bool]:
    """Return whether the messages hold images, and audio."""
    has_images = has_audio = False
    for index, message in enumerate(read_messages(body)):
        if not message.keys() <= _MESSAGE_KEYS:
            check_spelling(message, _MESSAGE_KEYS, f"messages[{index}]")
        role = message.get("role")
        if role is None:
            raise missing(f"messages[{index}].role")
        if not isinstance(role, str):
            raise wrong_type(f"messages[{index}].role", "a string")
        if role not in _ROLES:
            raise wrong_value(f"messages[{index}].role", f"one of {', '.join(sorted(_ROLES))}")
        if "audio" in message:
            # An earlier spoken answer.
            has_audio = has_audio or message["audio"] is not None
        content = message.get("content")
        if content is None or isinstance(content, str):
            continue
        if not isinstance(content, list):
            raise wrong_type(f"messages[{index}].content", "a string or an array of objects")
        for position, part in enumerate(content):
            if not isinstance(part, dict):
                raise wrong_type(f"messages[{index}].content[{position}]", "an object")
            if not part.keys() <= _PART_KEYS:
                check_spelling(part, _PART_KEYS, f"messages[{index}].content[{position}]")
            kind = part.get("type")
            check_addresses(part, f"messages[{index}].content[{position}]")
            has_images = has_images or kind not in ("text", "refusal", "input_audio")
            has_audio = has_audio or kind not in ("text", "refusal", "image_url")
    return has_images, has_audio


def _check_tools(body: Mapping[str, Any]) -> None:
    tools = body.get("tools")
    if tools is None:
        return
    if not isinstance(tools, list):
        raise wrong_type("tools", "an array of objects")
    for index, tool in enumerate(tools):
        if not isinstance(tool, dict):
            raise wrong_type(f"tools[{index}]", "an object")
        if not tool.keys() <= _TOOL_KEYS:
            check_spelling(tool, _TOOL_KEYS, f"tools[{index}]")
        kind = tool.get("type")
        if kind is None:
            raise missing(f"tools[{index}].type")
        if not _is_one_of(kind, _TOOL_TYPES):
            # Tools that the provider runs by itself are billed by the call.
            raise unsupported(f"tools[{index}].type")
        if not tool.keys() <= _TOOL_KEYS:
            for key, value in tool.items():
                is_known = key in _TOOL_KEYS or key in _TOOL_EXTRAS
                if not is_known and value is not None and value is not False:
                    raise unsupported(f"tools[{index}].{key}")


def _read_audio_parameter(endpoint: Endpoint, body: Mapping[str, Any]) -> str:
    """Return the parameter by which the answer is to be spoken, "" where it is not.

    Either of the two is enough for some server. Raises E13 and E14.
    """
    audio, modalities = body.get("audio"), body.get("modalities")
    has_audio = audio is not None and audio is not False
    if endpoint != "chat/completions":
        if has_audio:
            raise unsupported("audio")
        return ""
    if modalities is not None and not isinstance(modalities, list):
        raise wrong_type("modalities", "an array of strings")
    if not all(modality in ("text", "audio") for modality in modalities or ()):
        raise unsupported("modalities")
    if has_audio and not isinstance(audio, dict):
        raise wrong_type("audio", "an object")
    if modalities is not None and "audio" in modalities:
        return "modalities"
    return "audio" if has_audio else ""
