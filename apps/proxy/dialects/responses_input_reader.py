"""Reads the input of OpenAI's Responses: a text, or items, into what the system says and turns.

Items of the model that follow each other are one turn: a thought, a text and the calls of tools
are items of their own here. Ids of items name what lies with OpenAI, so none of them is passed on,
and what is told by nothing but its id is refused. So are items that tell of tools that OpenAI runs.

Source: https://platform.openai.com/docs/api-reference/responses/create
"""

from collections.abc import Callable
from typing import Final

from apps.proxy.dialects.media_sources import find_data_url, is_data_url
from apps.proxy.dialects.neutral import (
    Audio,
    Document,
    Image,
    Part,
    Refusal,
    Text,
    Thinking,
    ToolResult,
    ToolUse,
    Turn,
)
from apps.proxy.dialects.openai_refusals import missing, wrong_type, wrong_value
from apps.proxy.dialects.parameters import Parameters
from apps.proxy.dialects.responses_tools import called_name, custom_arguments
from apps.proxy.dialects.sealed_thoughts import read_thought
from apps.proxy.dialects.tool_arguments import NO_ARGUMENTS

_ROLES: Final = ("assistant", "developer", "system", "user")
_SYSTEM_ROLES: Final = ("developer", "system")
# What OpenAI adds to items that it gives, and no other provider has a use for.
_NOTES: Final = ("id", "status")
_ANY_DETAIL: Final = "auto"
# Between the paragraphs of a thought.
PARAGRAPH: Final = "\n\n"

Conversation = tuple[tuple[Text, ...], tuple[Turn, ...]]


def read_input(given: Parameters) -> Conversation:
    """Return what the system says first, and the turns."""
    reader = _InputReader(given.text("instructions"))
    value = given.take("input")
    if value is None:
        raise missing("input")
    if isinstance(value, str):
        reader.turns.append(Turn("user", (Text(value, at="input"),), "input"))
    elif isinstance(value, list):
        for item in Parameters({"input": value}).objects("input"):
            reader.read(item)
            item.ignore(*_NOTES)
            item.finish()
        reader.end_turn()
    else:
        raise wrong_type("input", "a string or an array of objects")
    return tuple(reader.system), tuple(reader.turns)


class _InputReader:
    """Gathers items into turns."""

    __slots__ = ("_at", "_said", "system", "turns")

    def __init__(self, instructions: str | None) -> None:
        self.system = [] if not instructions else [Text(instructions, at="instructions")]
        self.turns: list[Turn] = []
        self._said: list[Part] = []  # by the model, in its turn
        self._at = ""

    def read(self, item: Parameters) -> None:
        """Read one item."""
        kind = item.text("type")
        if kind is None and "role" not in item and "id" in item:
            # A reference to an item, which lies with OpenAI.
            raise item.refuse("id")
        if kind is None or kind == "message":
            self._read_message(item)
        elif kind == "reasoning":
            self._say(item, (_read_thought(item),))
        elif kind == "function_call" or kind == "custom_tool_call":
            self._say(item, (_read_call(item, is_custom=kind == "custom_tool_call"),))
        elif kind == "function_call_output" or kind == "custom_tool_call_output":
            self._add(Turn("user", (_read_result(item),), item.at))
        else:
            raise item.refuse("type")

    def _read_message(self, item: Parameters) -> None:
        role = item.one_of("role", _ROLES)
        if role is None:
            raise missing(item.name("role"))
        parts = _read_content(item, "content")
        # What the model meant a text for: only OpenAI's ask for it.
        item.ignore("phase")
        if role == "assistant":
            self._say(item, parts)
        elif role == "user":
            self._add(Turn("user", parts, item.at))
        else:
            self._hear(item, parts)

    def _hear(self, item: Parameters, parts: tuple[Part, ...]) -> None:
        texts = tuple(part for part in parts if isinstance(part, Text))
        if len(texts) != len(parts):
            raise item.refuse("content")
        if self.turns or self._said:
            self._add(Turn("system", texts, item.at))
        else:
            self.system += texts

    def _say(self, item: Parameters, parts: tuple[Part, ...]) -> None:
        if not self._said:
            self._at = item.at
        self._said += parts

    def _add(self, turn: Turn) -> None:
        self.end_turn()
        self.turns.append(turn)

    def end_turn(self) -> None:
        """End the turn of the model, if it has one."""
        if self._said:
            self.turns.append(Turn("assistant", tuple(self._said), self._at))
            self._said = []


def _read_thought(item: Parameters) -> Thinking:
    """Return what the model thought: a summary for whoever reads it, or all of it."""
    texts: list[str] = []
    for name, kind in (("content", "reasoning_text"), ("summary", "summary_text")):
        for part in item.objects(name):
            if part.require_text("type") != kind:
                raise part.refuse("type")
            texts.append(part.require_text("text"))
            part.finish()
    return read_thought(PARAGRAPH.join(texts), item.text("encrypted_content") or "", item.at)


def _read_call(item: Parameters, *, is_custom: bool) -> ToolUse:
    _check_caller(item)
    item.ignore("async", unless=(False,))
    if is_custom:
        arguments = custom_arguments(item.require_text("input"))
    else:
        arguments = item.text("arguments") or NO_ARGUMENTS
        # By an SDK, which read the same text.
        item.ignore("parsed_arguments")
    name = called_name(item.require_text("name"), item.text("namespace"))
    return ToolUse(item.require_text("call_id"), name, arguments, at=item.at)


def _read_result(item: Parameters) -> ToolResult:
    _check_caller(item)
    # The call of the same id tells it, too.
    item.ignore("name", "namespace")
    if "output" not in item:
        raise missing(item.name("output"))
    parts: list[Text | Image | Document] = []
    for part in _read_content(item, "output"):
        if not isinstance(part, Text | Image | Document):
            raise item.refuse("output")
        parts.append(part)
    return ToolResult(item.require_text("call_id"), tuple(parts), at=item.at)


def _check_caller(item: Parameters) -> None:
    # Programs may call tools; only what the model itself called has an equal.
    caller = item.member("caller")
    if caller is not None:
        if caller.text("type") != "direct":
            raise item.refuse("caller")
        caller.finish()


def _read_content(holder: Parameters, name: str) -> tuple[Part, ...]:
    content = holder.take(name)
    if content is None:
        return ()
    if isinstance(content, str):
        return (Text(content, at=holder.name(name)),)
    if not isinstance(content, list):
        raise wrong_type(holder.name(name), "a string or an array of objects")
    found: list[Part] = []
    for part in Parameters({name: content}, holder.at).objects(name):
        read = _PARTS.get(part.require_text("type"))
        if read is None:
            raise part.refuse("type")
        found.append(read(part))
        part.finish()
    return tuple(found)


def _read_text(part: Parameters) -> Text:
    # Notes about sources, what it was said instead of, and what an SDK read in it.
    part.ignore("annotations", "logprobs", "parsed")
    return Text(part.require_text("text"), at=part.at)


def _read_refusal(part: Parameters) -> Refusal:
    return Refusal(part.require_text("refusal"), at=part.at)


def _read_image(part: Parameters) -> Image:
    if "file_id" in part:
        # It lies with OpenAI.
        raise part.refuse("file_id")
    url, detail = part.require_text("image_url"), part.text("detail") or ""
    # It has to be there, even if it tells nothing.
    detail = "" if detail == _ANY_DETAIL else detail
    held = find_data_url(url)
    if held is not None:
        return Image("", held.media_type, held.data, detail, at=part.at)
    if is_data_url(url) or not url:
        raise wrong_value(part.name("image_url"), "a URL, or a data URL in base64")
    return Image(url, detail=detail, at=part.at)


def _read_file(part: Parameters) -> Document:
    if "file_id" in part:
        raise part.refuse("file_id")
    part.ignore("detail", unless=(_ANY_DETAIL,))
    title = part.text("filename") or ""
    url = part.text("file_url")
    if url:
        return Document(url=url, title=title, at=part.at)
    held = find_data_url(part.require_text("file_data"))
    if held is None:
        raise wrong_value(part.name("file_data"), "a data URL in base64")
    return Document(media_type=held.media_type, data=held.data, title=title, at=part.at)


def _read_audio(part: Parameters) -> Audio:
    audio = part.require_object("input_audio")
    sound = Audio(audio.require_text("data"), audio.require_text("format"), at=audio.at)
    audio.finish()
    return sound


_PARTS: Final[dict[str, Callable[[Parameters], Part]]] = {
    "input_text": _read_text,
    "output_text": _read_text,
    "refusal": _read_refusal,
    "input_image": _read_image,
    "input_file": _read_file,
    "input_audio": _read_audio,
}
