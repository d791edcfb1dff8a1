"""Reads requests of OpenAI's Chat Completions into the neutral form.

Source: https://platform.openai.com/docs/api-reference/chat/create. Members that other servers of
this dialect have added and clients use are read as well: `cache_control`, `reasoning_content`,
`thinking`, `thinking_blocks` (LiteLLM: https://docs.litellm.ai/docs/reasoning_content), `top_k`.
"""

from collections.abc import Mapping
from typing import Any, Final

from apps.proxy.dialects.cache_marks import read_cache_mark
from apps.proxy.dialects.media_sources import find_data_url, is_data_url
from apps.proxy.dialects.neutral import (
    Audio,
    Document,
    Image,
    OutputFormat,
    Part,
    Reasoning,
    Refusal,
    Request,
    Text,
    Thinking,
    Tool,
    ToolChoice,
    ToolResult,
    ToolUse,
    Turn,
)
from apps.proxy.dialects.openai_parameters import (
    CACHE_HINTS,
    is_standard_tier,
    read_choice_mode,
    read_user,
    read_verbosity,
)
from apps.proxy.dialects.openai_refusals import below_one, missing, wrong_type, wrong_value
from apps.proxy.dialects.openai_request import OUTPUT_PARAMETERS
from apps.proxy.dialects.parameters import Parameters
from apps.proxy.dialects.reasoning import read_effort, read_thinking
from apps.proxy.dialects.tool_arguments import NO_ARGUMENTS
from apps.proxy.dialects.web_search import read_chat_search

_ROLES: Final = ("assistant", "developer", "system", "tool", "user")
_SYSTEM_ROLES: Final = ("developer", "system")
_SCHEMA_NAME: Final = "answer"


def read_request(body: Mapping[str, Any]) -> Request:
    """Return what a request says; raises E13 and E14 with the parameter at fault."""
    given = Parameters(body)
    system, turns = _read_messages(given)
    output_limit, limit_name = _output_limit(given)
    user, user_name = read_user(given)
    request = Request(
        model=given.require_text("model"),
        system=system,
        turns=turns,
        tools=tuple(_read_tool(tool) for tool in given.objects("tools")),
        web_search=read_chat_search(given),
        tool_choice=_tool_choice(given),
        is_parallel=given.flag("parallel_tool_calls"),
        reasoning=_reasoning(given),
        format=_format(given),
        verbosity=read_verbosity(given),
        output_limit=output_limit,
        temperature=given.number("temperature", 0, 2),
        top_p=given.number("top_p", 0, 1),
        top_k=given.integer("top_k"),
        frequency_penalty=given.number("frequency_penalty", -2, 2),
        presence_penalty=given.number("presence_penalty", -2, 2),
        stop=_stop(given),
        choices=_choices(given),
        seed=given.integer("seed"),
        user=user,
        metadata=given.mapping("metadata") or None,
        is_standard_tier=is_standard_tier(given),
        is_stream=given.flag("stream") or False,
        names={
            "output_limit": limit_name,
            "user": user_name,
            "choices": "n",
            "format": "response_format",
            "is_standard_tier": "service_tier",
            "reasoning": "thinking" if "thinking" in given else "reasoning_effort",
            "turns": "messages",
        },
    )
    given.ignore(*CACHE_HINTS)
    options = given.member("stream_options")
    if options is not None:
        # Of these the answer's writer knows.
        options.ignore("include_usage", "include_obfuscation")
        options.finish()
    given.ignore("store", "logprobs", unless=(False,))
    given.ignore("top_logprobs", unless=(0,))
    given.ignore("best_of", unless=(1,))
    given.ignore("modalities", unless=(["text"],))
    given.finish()
    return request


def _output_limit(given: Parameters) -> tuple[int | None, str]:
    limits = [(given.integer(name), name) for name in OUTPUT_PARAMETERS]
    asked = [(limit, name) for limit, name in limits if limit is not None]
    for limit, name in asked:
        if limit < 1:
            raise below_one(name)
    return max(asked) if asked else (None, OUTPUT_PARAMETERS[0])


def _choices(given: Parameters) -> int:
    choices = given.integer("n")
    if choices is not None and choices < 1:
        raise below_one("n")
    return choices or 1


def _stop(given: Parameters) -> tuple[str, ...]:
    value = given.take("stop")
    if isinstance(value, str):
        return (value,)
    return Parameters({"stop": value}).texts("stop")


def _reasoning(given: Parameters) -> Reasoning | None:
    thinking = given.member("thinking")
    asked = read_thinking(thinking) if thinking is not None else None
    effort = read_effort(given, "reasoning_effort")
    if effort is None or asked is None:
        return effort or asked
    return (
        effort
        if not effort.is_on
        else asked._replace(is_on=asked.is_on is not False, effort=effort.effort, is_optional=False)
    )


def _format(given: Parameters) -> OutputFormat | None:
    asked = given.member("response_format")
    if asked is None:
        return None
    kind = asked.require_text("type")
    found: OutputFormat | None = None
    if kind == "json_object":
        found = OutputFormat(None, at=asked.name("type"))
    elif kind == "json_schema":
        described = asked.require_object("json_schema")
        found = OutputFormat(
            described.mapping("schema") or {},
            name=described.text("name") or _SCHEMA_NAME,
            description=described.text("description") or "",
            is_strict=described.flag("strict") or False,
            at=described.name("schema"),
        )
        described.finish()
    elif kind != "text":
        raise asked.refuse("type")
    asked.finish()
    return found


def _tool_choice(given: Parameters) -> ToolChoice | None:
    value = given.take("tool_choice")
    if value is None:
        return None
    if isinstance(value, str):
        return read_choice_mode(value)
    chosen = Parameters(value, "tool_choice")
    if chosen.require_text("type") != "function":
        raise chosen.refuse("type")
    function = chosen.require_object("function")
    found = ToolChoice("tool", function.require_text("name"))
    function.finish()
    chosen.finish()
    return found


def _read_tool(tool: Parameters) -> Tool:
    if tool.require_text("type") != "function":
        raise tool.refuse("type")
    function = tool.require_object("function")
    found = Tool(
        name=function.require_text("name"),
        description=function.text("description"),
        schema=function.mapping("parameters"),
        is_strict=function.flag("strict"),
        at=function.at,
        schema_at=function.name("parameters"),
        cache=read_cache_mark(tool),
    )
    function.finish()
    tool.finish()
    return found


def _read_messages(given: Parameters) -> tuple[tuple[Text, ...], tuple[Turn, ...]]:
    """Return what the system says first, and the turns."""
    messages = given.objects("messages")
    if not messages:
        raise missing("messages")
    system: list[Text] = []
    turns: list[Turn] = []
    for message in messages:
        role = message.one_of("role", _ROLES)
        if role is None:
            raise missing(message.name("role"))
        if role in _SYSTEM_ROLES:
            said = _texts(message)
            if turns:
                turns.append(Turn("system", said, message.at))
            else:
                system += said
        elif role == "tool":
            # The call of the same id tells it, too.
            message.ignore("name")
            result = ToolResult(
                id=message.require_text("tool_call_id"),
                parts=_texts(message),
                at=message.at,
                cache=read_cache_mark(message),
            )
            turns.append(Turn("user", (result,), message.at))
        elif role == "user":
            turns.append(Turn("user", _parts(message), message.at))
        else:
            turns.append(Turn("assistant", _assistant_parts(message), message.at))
        message.finish()
    return tuple(system), tuple(turns)


def _assistant_parts(message: Parameters) -> tuple[Part, ...]:
    parts: list[Part] = [*read_thoughts(message), *_parts(message)]
    # OpenAI's SDK gives back what it read in an answer, here and in the arguments of its calls.
    message.ignore("parsed")
    refusal = message.text("refusal")
    if refusal:
        parts.append(Refusal(refusal, at=message.name("refusal")))
    for call in message.objects("tool_calls"):
        if call.require_text("type") != "function":
            raise call.refuse("type")
        function = call.require_object("function")
        parts.append(
            ToolUse(
                id=call.require_text("id"),
                name=function.require_text("name"),
                arguments=function.text("arguments") or NO_ARGUMENTS,
                at=call.at,
            )
        )
        function.ignore("parsed_arguments")
        function.finish()
        # What accumulates a stream leaves the position in.
        call.ignore("index")
        call.finish()
    return tuple(parts)


def read_thoughts(message: Parameters) -> list[Thinking]:
    """Return what the model thought: with signatures where the client kept them."""
    thoughts: list[Thinking] = []
    for block in message.objects("thinking_blocks"):
        kind = block.require_text("type")
        if kind == "thinking":
            text, signature = block.text("thinking") or "", block.text("signature") or ""
            thoughts.append(Thinking(text, signature, at=block.at))
        elif kind == "redacted_thinking":
            thoughts.append(Thinking(redacted=block.require_text("data"), at=block.at))
        else:
            raise block.refuse("type")
        # What accumulates a stream leaves the position in.
        block.ignore("index")
        block.finish()
    # The same without signatures; some servers send it under both names.
    told = message.text("reasoning_content") or message.text("reasoning")
    message.ignore("reasoning")
    if told and not thoughts:
        thoughts.append(Thinking(told, at=message.name("reasoning_content")))
    return thoughts


def _texts(message: Parameters) -> tuple[Text, ...]:
    """Return a content that is nothing but text."""
    found: list[Text] = []
    for part in _parts(message):
        if not isinstance(part, Text):
            raise message.refuse("content")
        found.append(part)
    return tuple(found)


def _parts(message: Parameters) -> tuple[Part, ...]:
    content = message.take("content")
    if content is None:
        return ()
    if isinstance(content, str):
        return (Text(content, at=message.name("content")),)
    if not isinstance(content, list):
        raise wrong_type(message.name("content"), "a string or an array of objects")
    found: list[Part] = []
    for part in Parameters({"content": content}, message.at).objects("content"):
        found.append(_read_part(part))
        part.finish()
    return tuple(found)


def _read_part(part: Parameters) -> Part:
    kind = part.require_text("type")
    if kind == "text":
        return Text(part.require_text("text"), at=part.at, cache=read_cache_mark(part))
    if kind == "refusal":
        return Refusal(part.require_text("refusal"), at=part.at)
    if kind == "image_url":
        return _read_image(part)
    if kind == "input_audio":
        audio = part.require_object("input_audio")
        sound = Audio(audio.require_text("data"), audio.require_text("format"), at=audio.at)
        audio.finish()
        return sound
    if kind == "file":
        return _read_file(part)
    raise part.refuse("type")


def _read_image(part: Parameters) -> Image:
    image = part.require_object("image_url")
    url = image.require_text("url")
    cache = read_cache_mark(part)
    detail = image.text("detail") or ""
    image.finish()
    held = find_data_url(url)
    if held is not None:
        return Image("", held.media_type, held.data, detail, at=image.at, cache=cache)
    if is_data_url(url) or not url:
        raise wrong_value(image.name("url"), "a URL, or a data URL in base64")
    return Image(url, detail=detail, at=image.at, cache=cache)


def _read_file(part: Parameters) -> Document:
    file = part.require_object("file")
    if "file_id" in file:
        # It lies with a provider, which may not be the one that is asked.
        raise file.refuse("file_id")
    held = find_data_url(file.require_text("file_data"))
    if held is None:
        raise wrong_value(file.name("file_data"), "a data URL in base64")
    document = Document(
        media_type=held.media_type,
        data=held.data,
        title=file.text("filename") or "",
        at=file.at,
        cache=read_cache_mark(part),
    )
    file.finish()
    return document
