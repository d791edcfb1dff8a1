"""Requests of Google's generateContent: what the gateway must know before it lets them through.

Everything that decides what a call can cost is checked here (E13) or refused because it cannot be
metered (E14); what only the model understands passes untouched. Whether another dialect can say
the same is not asked here. What the path says is in the body as `model` and `stream`
(`gemini_request_reader.with_path`).

Source: https://ai.google.dev/api/generate-content
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from apps.core.parameter_names import fold_all, folded
from apps.proxy.dialects import gemini_embedding
from apps.proxy.dialects.gemini_parameters import GoogleParameters, snake_case
from apps.proxy.dialects.gemini_stream import CANDIDATES_MAX
from apps.proxy.dialects.media_sources import check_address, image_length
from apps.proxy.dialects.openai_refusals import (
    above,
    below_one,
    missing,
    unsupported,
    wrong_type,
    wrong_value,
)
from apps.proxy.dialects.parsed_request import Endpoint, ParsedRequest
from apps.proxy.dialects.request_fields import (
    INTEGER_MAX,
    check_spelling,
    is_unsupported,
    keep_allowed,
    read_boolean,
    read_model,
)


def _both(*names: str) -> frozenset[str]:
    """Return names in both of their spellings."""
    return frozenset(names) | frozenset(map(snake_case, names))


# What is looked at here, and what most requests hold beside it.
_PLAIN: Final = _both(
    "alt",
    "contents",
    "generationConfig",
    "labels",
    "model",
    "safetySettings",
    "serviceTier",
    "store",
    "stream",
    "systemInstruction",
    "toolConfig",
    "tools",
)
_SYSTEM: Final = ("systemInstruction", "system_instruction")
_ANSWERS: Final = ("functionResponse", "function_response")
_BLOBS: Final = ("inlineData", "inline_data", "fileData", "file_data")
# What contents, parts and their media usually hold: none is looked for in other letters.
_CONTENT_KEYS: Final = frozenset({"parts", "role"})
_PART_KEYS: Final = _both(
    "codeExecutionResult",
    "executableCode",
    "fileData",
    "functionCall",
    "functionResponse",
    "inlineData",
    "text",
    "thought",
    "thoughtSignature",
    "videoMetadata",
)
_BLOB_KEYS: Final = _both("data", "displayName", "fileUri", "mimeType")
_FILES: Final = ("fileUri", "file_uri")
# Functions that the client runs. All others are Google's: billed by the call, or they read what
# nobody bounds. Source: https://ai.google.dev/gemini-api/docs/pricing
_CLIENT_TOOLS: Final = _both("functionDeclarations")
_SEARCH_TOOLS: Final = _both("googleSearch")
# What changes where is searched, and not how often it is billed; images are searched for apart.
_SEARCH_KEYS: Final = _both("blockingConfidence", "excludeDomains", "timeRangeFilter")
# Members of a configuration that decide what is written; in other letters they are refused.
_METERED: Final = ("candidateCount", "maxOutputTokens", "responseModalities")
_METERED_NAMES: Final = _both(*_METERED)
# What is looked at here, and what most configurations hold beside it: none is looked for in other
# letters.
_CONFIG_KEYS: Final = _METERED_NAMES | _both(
    "frequencyPenalty",
    "presencePenalty",
    "responseJsonSchema",
    "responseMimeType",
    "responseSchema",
    "seed",
    "stopSequences",
    "temperature",
    "thinkingConfig",
    "topK",
    "topP",
)
# The same as most clients write it, without what needs a closer look.
_USUAL: Final = frozenset(
    {
        "alt", "contents", "generationConfig", "labels", "model", "safetySettings", "stream",
        "systemInstruction",
    }
)  # fmt: skip
_USUAL_CONFIG: Final = frozenset(
    name for name in _CONFIG_KEYS - {"responseModalities"} if name == name.replace("_", "")
)
_FOLDED_METERED: Final = fold_all(_METERED_NAMES)
_MODALITIES: Final = ("TEXT", "IMAGE", "AUDIO", "MODALITY_UNSPECIFIED")
_USUAL_TIERS: Final = ("standard", "unspecified", "service_tier_unspecified")
# The longest prompt around tools that any of its models was seen to add.
_TOOLS_PROMPT_TOKENS: Final = 2048
_TEMPLATE_TOKENS: Final = 64


class _Told(NamedTuple):
    """What a request says beside its contents that decides what it can cost."""

    candidates: int | None = None
    output_tokens: int | None = None
    service_tier: str = ""
    search_parameter: str = ""
    audio_parameter: str = ""


def parse_request(endpoint: Endpoint, body: dict[str, Any]) -> ParsedRequest:
    """Return what a request asks for. Raises E13 and E14 with the parameter at fault."""
    if endpoint in gemini_embedding.ENDPOINTS:
        return gemini_embedding.parse_request(endpoint, body)
    kept = body if body.keys() <= _PLAIN else keep_allowed(body, _PLAIN, _PLAIN)
    told = _find_usual(kept) or _read_told(kept)
    is_text_only = _check_contents(kept)
    media = set() if is_text_only else {_checked_kind_of(*found) for found in _all_media(kept)}
    return ParsedRequest(
        endpoint=endpoint,
        model=read_model(kept),
        is_stream=read_boolean(kept, "stream"),
        include_usage=True,
        choices=told.candidates or 1,
        output_tokens_asked=told.output_tokens,
        output_parameter="maxOutputTokens",
        has_images=bool(media - {"audio", "text"}),
        has_audio="audio" in media,
        body=kept,
        service_tier=told.service_tier,
        search_parameter=told.search_parameter,
        audio_parameter=told.audio_parameter,
        dialect="gemini",
        is_array=kept.get("alt") is not None,
    )


def input_tokens_bound(
    body: Mapping[str, Any], serialised: bytes, context_length: int, image_tokens_max: int
) -> int:
    """Return a number of tokens that the input of this request cannot exceed.

    A token is at least one byte of text, and no model reads more than its context. Images count as
    images and not as text; anything else that Google would have to look into (films, sounds and
    documents, of which a few bytes can be long) counts as a full context.
    """
    bound = len(serialised) + _TEMPLATE_TOKENS
    for _, blob in _all_media(body):
        kind = _kind_of(blob)
        if kind == "image":
            bound += image_tokens_max - image_length(blob)
        elif kind != "text":
            return context_length
    if body.get("tools"):
        bound += _TOOLS_PROMPT_TOKENS
    return min(bound, context_length)


def capped(body: Mapping[str, Any], cap: int) -> dict[str, Any]:
    """Return a body with a lower maximum, under the name that the client has for it."""
    given = GoogleParameters(body)
    name = given.spelling("generationConfig")
    config = GoogleParameters(body.get(name) or {})
    changed = {**(body.get(name) or {}), config.spelling("maxOutputTokens"): cap}
    return {**body, name: changed}


def _find_usual(body: Mapping[str, Any]) -> _Told | None:
    """Return what a usual request says, None for any other: nearly every request is one. This is a
    shorter way to what `_read_told` says of it.
    """
    if not body.keys() <= _USUAL:
        return None
    config = body.get("generationConfig")
    if config is None:
        return _Told()
    if type(config) is not dict or not config.keys() <= _USUAL_CONFIG:
        return None
    candidates, maximum = config.get("candidateCount"), config.get("maxOutputTokens")
    # type() and not isinstance(): true is an int.
    if candidates is not None and not (
        type(candidates) is int and 0 < candidates <= CANDIDATES_MAX
    ):
        return None
    if maximum is not None and not (type(maximum) is int and 0 < maximum <= INTEGER_MAX):
        return None
    return _Told(candidates, maximum)


def _read_told(body: Mapping[str, Any]) -> _Told:
    """Return what a request says beside its contents. Raises E12 to E14."""
    given = GoogleParameters(body)
    config = given.member("generationConfig") or GoogleParameters({}, "generationConfig")
    _check_spelling(given, config)
    return _Told(
        candidates=_read_count(config, "candidateCount", CANDIDATES_MAX),
        output_tokens=_read_count(config, "maxOutputTokens", INTEGER_MAX),
        service_tier=_service_tier(given),
        search_parameter=_check_tools(given),
        audio_parameter=_audio_parameter(config),
    )


def _check_spelling(given: GoogleParameters, config: GoogleParameters) -> None:
    """Raise E12 or E14 for a second name of what is metered, or one in other letters."""
    for name in ("contents", "tools", "serviceTier", "systemInstruction"):
        given.spelling(name)
    for name in config.names():
        if name not in _CONFIG_KEYS and (folded(name) in _FOLDED_METERED or is_unsupported(name)):
            raise unsupported(config.name(name))
    for name in _METERED:
        config.spelling(name)


def _read_count(config: GoogleParameters, name: str, maximum: int) -> int | None:
    """Return a whole number from 1 to `maximum`, None if it is absent."""
    value = config.integer(name)
    if value is None:
        return None
    if value < 1:
        raise below_one(config.name(name))
    if value > maximum:
        raise above(config.name(name), maximum)
    return value


def _check_contents(body: Mapping[str, Any]) -> bool:
    """Return whether each part is a text and nothing else."""
    contents = body.get("contents")
    if contents is None or contents == []:
        raise missing("contents")
    if not isinstance(contents, list):
        raise wrong_type("contents", "an array of objects")
    is_text_only = True
    for index, content in enumerate(contents):
        is_text_only = _check_content(content, f"contents[{index}]") and is_text_only
    for name in _SYSTEM:
        if body.get(name) is not None:
            is_text_only = _check_content(body[name], name) and is_text_only
    return is_text_only


def _check_content(content: object, where: str) -> bool:
    """Return whether each part is a text and nothing else. Raises E13 and E14."""
    if not isinstance(content, dict):
        raise wrong_type(where, "an object")
    if not content.keys() <= _CONTENT_KEYS:
        check_spelling(content, _CONTENT_KEYS, where)
    parts = content.get("parts")
    if parts is None:
        return True
    is_text_only = True
    if not isinstance(parts, list):
        raise wrong_type(f"{where}.parts", "an array of objects")
    for position, part in enumerate(parts):
        if not isinstance(part, dict):
            raise wrong_type(f"{where}.parts[{position}]", "an object")
        if len(part) == 1 and "text" in part:
            continue
        is_text_only = False
        if not part.keys() <= _PART_KEYS:
            check_spelling(part, _PART_KEYS, f"{where}.parts[{position}]")
    return is_text_only


def _all_media(body: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    """Yield where contents hold what beside text, also in answers of functions."""
    contents = body["contents"]
    system = [name for name in _SYSTEM if body.get(name) is not None]
    for index, content in enumerate((*contents, *(body[name] for name in system))):
        for position, part in enumerate(content.get("parts") or ()):
            if len(part) == 1 and "text" in part:
                continue  # Almost all parts are such.
            is_system = index >= len(contents)
            where = system[index - len(contents)] if is_system else f"contents[{index}]"
            place = f"{where}.parts[{position}]"
            yield from _media_of(part, place)
            for name in _ANSWERS:
                answer = part.get(name)
                inner = answer.get("parts") if isinstance(answer, dict) else None
                for number, media in enumerate(inner if isinstance(inner, list) else ()):
                    if isinstance(media, dict):
                        yield from _media_of(media, f"{place}.{name}.parts[{number}]")


def _media_of(part: Mapping[str, Any], where: str) -> Iterator[tuple[str, object]]:
    for name in _BLOBS:
        if part.get(name) is not None:
            yield f"{where}.{name}", part[name]


def _checked_kind_of(where: str, blob: object) -> str:
    if isinstance(blob, dict):
        check_spelling(blob, _BLOB_KEYS, where)
        for name in _FILES:
            check_address(blob.get(name), f"{where}.{name}", may_be_bytes=False)
    return _kind_of(blob)


def _kind_of(blob: object) -> str:
    """Return what a blob is: image, audio or text; "" for anything that has to be looked into."""
    if not isinstance(blob, dict) or not isinstance(blob.get("data"), str):
        return ""
    if "mimeType" in blob and "mime_type" in blob:
        return ""  # Nobody knows by which of the two a server goes.
    media_type = blob.get("mimeType", blob.get("mime_type"))
    if not isinstance(media_type, str):
        return ""
    kind = media_type.partition("/")[0].strip().lower()
    return kind if kind in ("audio", "image", "text") else ""


def _check_tools(given: GoogleParameters) -> str:
    """Return by which parameter the provider may search, "" where it may not.

    Raises E14 for other tools that Google runs, which an empty object is enough to ask for.
    """
    search = ""
    for tool in given.objects("tools"):
        for name in tool.names():
            if name in _SEARCH_TOOLS:
                search = tool.name(name)
                _check_search(tool, name)
            elif name not in _CLIENT_TOOLS:
                raise unsupported(tool.name(name))
    return search


def _check_search(tool: GoogleParameters, name: str) -> None:
    """Raise E14 for what would be billed otherwise than a search of the web."""
    options = tool.member(name)
    for key in () if options is None else options.names():
        if key not in _SEARCH_KEYS:
            raise unsupported(f"{tool.name(name)}.{key}")


def _service_tier(given: GoogleParameters) -> str:
    tier = given.text("serviceTier")
    if tier is None or tier.lower() in _USUAL_TIERS:
        return ""
    return tier.lower()


def _audio_parameter(config: GoogleParameters) -> str:
    """Return by which parameter a spoken answer is asked for, "" where it is not."""
    asked = config.take("responseModalities")
    if asked is None:
        return ""
    name = config.name("responseModalities")
    if not isinstance(asked, list) or not all(isinstance(item, str) for item in asked):
        raise wrong_type(name, "an array of strings")
    for item in asked:
        if item.upper() not in _MODALITIES:
            raise wrong_value(name, f"of {', '.join(_MODALITIES)}")
    return name if "AUDIO" in map(str.upper, asked) else ""
