"""The texts of a request that a model may read, in every dialect, for rules about contents. Pure.

Everything that is text is taken, wherever it stands: what a provider understands that is not known
here cannot hide anything. Left out is a closed list: names that the formats give to things (roles,
types, media types), identifiers, tags that no model reads, URLs, and bytes in base64, which are not
decoded. Inside what has a form of the client's own (arguments and results of tools, schemas) the
names of members are texts as well, and nothing is left out but the words of JSON Schema.

Not `prompts`: it renders a request as its model's vendor does, to count it, and may leave out what
costs nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from apps.proxy.dialects.parsed_request import ParsedRequest
from apps.risk.folding import without_escapes

LINE: Final = "\n"
# At the top of a request: nothing of it gets to a model.
_UNREAD: Final = frozenset(
    {
        "alt", "client_metadata", "include", "labels", "metadata", "model", "prompt_cache_key",
        "prompt_cache_retention", "safetySettings", "safety_identifier", "safety_settings",
        "service_tier", "serviceTier", "user",
    }
)  # fmt: skip
_IDENTIFIERS: Final = frozenset(
    {
        "call_id", "file_id", "fileId", "id", "item_id", "previous_response_id", "response_id",
        "tool_call_id", "tool_use_id",
    }
)  # fmt: skip
_MEDIA_TYPES: Final = frozenset({"format", "media_type", "mimeType", "mime_type"})
_URLS: Final = frozenset(
    {"file_data", "fileUri", "file_uri", "file_url", "image_url", "uri", "url"}
)
_SEALED: Final = frozenset(
    {"data", "encrypted_content", "signature", "thoughtSignature", "thought_signature"}
)
# Of the client's own form, but at the top, where `input` is what is said.
_OWN: Final = frozenset(
    {
        "args", "arguments", "documents", "env", "input", "input_examples", "input_schema",
        "parameters", "parametersJsonSchema", "parameters_json_schema", "response",
        "responseJsonSchema", "responseSchema", "response_json_schema", "response_schema", "schema",
        "variables",
    }
)  # fmt: skip
_OWN_AT_TOP: Final = frozenset(
    {
        "chat_template_kwargs", "documents", "format", "guided_json", "json_schema",
        "structured_outputs",
    }
)  # fmt: skip
# Lists whose elements are read as one: each name with what may stand above it.
_PARTS: Final = frozenset({"content", "output", "parts", "summary", "system"})
_ARGUMENTS: Final = "arguments"
# Members whose value is one of the format's own words.
_FORMAL: Final = frozenset(
    {
        "detail", "effort", "mode", "modalities", "phase", "reasoning_effort", "responseModalities",
        "response_modalities", "role", "status", "summary", "tool_choice", "ttl", "truncation",
        "type", "verbosity",
    }
)  # fmt: skip
# What the formats themselves say.
_WORDS: Final = frozenset(
    {
        # roles
        "assistant", "developer", "function", "model", "system", "tool", "user",
        # kinds of parts, items, tools and sources
        "base64", "computer", "custom", "custom_tool_call", "custom_tool_call_output", "document",
        "ephemeral", "file", "function_call", "function_call_output", "image", "image_url",
        "input_audio", "input_file", "input_image", "input_text", "json_object", "json_schema",
        "message", "namespace", "output_text", "reasoning", "redacted_thinking", "refusal",
        "search_result", "summary_text", "text", "thinking", "tool_result", "tool_use", "url",
        # how the answer is wanted
        "any", "auto", "completed", "concise", "detailed", "disabled", "enabled", "high", "low",
        "medium", "minimal", "none", "required",
        # JSON Schema
        "$defs", "$ref", "$schema", "additionalProperties", "allOf", "anyOf", "array", "boolean",
        "const", "default", "definitions", "description", "enum", "examples", "exclusiveMaximum",
        "exclusiveMinimum", "format", "integer", "items", "maxItems", "maxLength", "maximum",
        "minItems", "minLength", "minimum", "not", "null", "number", "object", "oneOf", "pattern",
        "properties", "strict", "string", "title", "type",
        "ARRAY", "BOOLEAN", "INTEGER", "NUMBER", "OBJECT", "STRING",
    }
)  # fmt: skip
_WORD_LENGTH_MAX: Final = max(map(len, _WORDS))
_BASE64: Final = re.compile(r"[A-Za-z0-9+/_=\r\n-]*", re.ASCII)
# Looked at in one go, without letting other threads on.
_BASE64_CHARACTERS: Final = 64 << 10
_DATA_URL: Final = re.compile(r"data:[\w.+/;=-]{0,200};base64,", re.ASCII | re.IGNORECASE)
_URL: Final = re.compile(r"(?:https?|gs)://[\x21-\x7e]+", re.ASCII | re.IGNORECASE)
_URL_LENGTH_MAX: Final = 8_192


def list_texts(request: ParsedRequest) -> list[str]:
    """Return what is read one after the other: texts, and the line breaks between them.

    What stands in several parts of one message comes once more, without anything between them.
    """
    found = _Texts()
    for name, value in request.body.items():
        if name in _UNREAD:
            continue
        if name in _OWN_AT_TOP:
            found.take_own(value)
        elif name == "input" and request.endpoint == "moderations":
            found.take_parts(value)
        else:
            found.take_member(name, value, is_top=True)
    return found.texts


def has_token_ids(request: ParsedRequest) -> bool:
    """Return whether a prompt that is to be continued is told in tokens, which nobody can read
    here.
    """
    if request.endpoint != "completions":
        return False
    prompt = request.body.get("prompt")
    return isinstance(prompt, list) and not all(isinstance(item, str) for item in prompt)


class _Texts:
    """What was found so far."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._is_in_parts = False

    def take_member(self, name: str, value: Any, *, is_top: bool = False) -> None:
        """Take what a member of the format's own has to say."""
        if isinstance(value, str):
            if not _is_left_out(name, value):
                self._add(value)
                if name == _ARGUMENTS and "\\" in value:
                    self._add_pieces(without_escapes(value))
        elif name in _OWN and not is_top:
            self.take_own(value)
        elif name in _PARTS and not self._is_in_parts:
            self.take_parts(value)
        elif isinstance(value, dict):
            self._take_members(value)
        elif isinstance(value, list):
            for item in value:
                self.take_member(name, item, is_top=is_top)

    def take_parts(self, value: Any) -> None:
        """Take parts that are read as one."""
        self._is_in_parts = True
        begun = len(self.texts)
        for item in value if isinstance(value, list) else [value]:
            self.take_member("", item)
        self._is_in_parts = False
        said = [text for text in self.texts[begun:] if text != LINE]
        if len(said) > 1:
            self._add_pieces(iter(said))

    def take_own(self, value: Any) -> None:
        """Take all that there is in what has a form of the client's own."""
        if isinstance(value, str):
            if not _is_word(value):
                self._add(value)
        elif isinstance(value, dict):
            for name, inner in value.items():
                if not _is_word(name):
                    self._add(name)
                self.take_own(inner)
        elif isinstance(value, list):
            for item in value:
                self.take_own(item)

    def _take_members(self, members: Mapping[str, Any]) -> None:
        for name, value in members.items():
            if name == "data" and members.get("type") == "text":
                self.take_own(value)  # A document of Anthropic's that is plain text.
            else:
                self.take_member(name, value)

    def _add(self, text: str) -> None:
        self.texts.append(text)
        self.texts.append(LINE)

    def _add_pieces(self, pieces: Iterator[str]) -> None:
        self.texts.extend(pieces)
        self.texts.append(LINE)


def _is_left_out(name: str, text: str) -> bool:
    if name in _FORMAL:
        return _is_word(text)
    if name in _IDENTIFIERS or name in _MEDIA_TYPES:
        return True
    if name in _SEALED:
        return _is_base64(text, 0)
    if name in _URLS:
        head = _DATA_URL.match(text)
        if head is not None:
            return _is_base64(text, head.end())
        return len(text) <= _URL_LENGTH_MAX and _URL.fullmatch(text) is not None
    return False


def _is_word(text: str) -> bool:
    # By its length first: to look a text up takes time by it.
    return len(text) <= _WORD_LENGTH_MAX and text in _WORDS


def _is_base64(text: str, start: int) -> bool:
    return all(
        _BASE64.fullmatch(text, place, place + _BASE64_CHARACTERS)
        for place in range(start, len(text), _BASE64_CHARACTERS)
    )
