"""The neutral form: what a call says, in no dialect's words.

Each dialect has a reader into these types and a writer out of them, so that any client can be
served by any provider with two converters a dialect. Texts are as they were sent, sizes are in
tokens. `at` is where something stands in the client's own request (`messages[3].content[0]`):
what the other side cannot express is refused by that name (E14), never dropped silently.

Sources: https://platform.claude.com/docs/en/api/messages and
https://platform.openai.com/docs/api-reference/chat/create
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple, get_args

from apps.core.errors import GatewayError
from apps.core.usage import Usage
from apps.proxy.dialects.openai_refusals import inexpressible

Effort = Literal["minimal", "low", "medium", "high", "xhigh", "max"]
StopReason = Literal[
    "end", "stop_sequence", "length", "context_length", "tool_use", "refusal", "pause"
]
# How a model is told to think: not at all, by how hard, or by how many tokens.
ReasoningForm = Literal["none", "effort", "budget"]
# Which sampling a model takes: none, any while it does not think, temperature or top_p, or any.
SamplingForm = Literal["none", "resting", "one", "any"]
# How much is to be said, where it is not the usual.
Verbosity = Literal["low", "high"]


class CacheMark(NamedTuple):
    """The prompt is to be cached up to here.

    Source: https://platform.claude.com/docs/en/build-with-claude/prompt-caching
    """

    lifetime: Literal["5m", "1h"] = "5m"


class Text(NamedTuple):
    """A text of whoever speaks."""

    text: str
    at: str = ""
    cache: CacheMark | None = None


class Refusal(NamedTuple):
    """The words in which a model declined to answer."""

    text: str
    at: str = ""


class Image(NamedTuple):
    """An image: either `url`, or `data` in base64 with its media type."""

    url: str = ""
    media_type: str = ""  # such as image/png
    data: str = ""
    detail: str = ""  # how closely it is to be looked at, in OpenAI's words
    at: str = ""
    cache: CacheMark | None = None


class Document(NamedTuple):
    """A document: `url`, `data` in base64 with its media type, or plain `text`."""

    url: str = ""
    media_type: str = ""  # such as application/pdf
    data: str = ""
    text: str = ""
    title: str = ""
    context: str = ""  # about the document, for the model
    at: str = ""
    cache: CacheMark | None = None


class Audio(NamedTuple):
    """A sound that the model is to hear."""

    data: str  # base64
    format: str  # such as wav
    at: str = ""


class Thinking(NamedTuple):
    """What a model thought before it spoke, signed by its provider where that can be given back.

    A provider that hides the thought gives `redacted` instead, which means nothing to others.
    """

    text: str = ""
    signature: str = ""
    redacted: str = ""
    at: str = ""


class ToolUse(NamedTuple):
    """A call of one of the client's tools by the model.

    `arguments` is JSON text as the model wrote it: it may be invalid, and is never empty.
    """

    id: str
    name: str
    arguments: str
    at: str = ""
    cache: CacheMark | None = None


class ToolResult(NamedTuple):
    """What a tool answered to the call of this id."""

    id: str
    parts: tuple["Text | Image | Document", ...]
    is_error: bool = False
    at: str = ""
    cache: CacheMark | None = None


Part = Text | Refusal | Image | Document | Audio | Thinking | ToolUse | ToolResult


class Turn(NamedTuple):
    """What one side says at a time; the system's where it speaks up between the two."""

    role: Literal["system", "user", "assistant"]
    parts: tuple[Part, ...]
    at: str = ""


class Tool(NamedTuple):
    """A tool of the client that the model may call."""

    name: str
    description: str | None
    schema: Mapping[str, Any] | None  # JSON schema of the arguments; None: it takes none
    is_strict: bool | None = None  # arguments have to match the schema
    at: str = ""
    schema_at: str = ""
    cache: CacheMark | None = None


class WebSearch(NamedTuple):
    """The provider may search the web by itself, which is billed by the search."""

    at: str
    searches_max: int | None = None  # None: as often as the model likes
    allowed_domains: tuple[str, ...] = ()  # no others, where there are any
    blocked_domains: tuple[str, ...] = ()
    location: Mapping[str, str] | None = None  # of the client's user: city, country, …
    context_size: str = ""  # how much of what is found is read, where it is not the usual
    names: Mapping[str, str] = MappingProxyType({})  # field → the client's parameter

    def refuse(self, field: str) -> GatewayError:
        """Return the refusal of what this field holds, by the client's name for it."""
        return inexpressible(self.names.get(field, self.at))


class ToolChoice(NamedTuple):
    """Whether the model calls tools: if it likes, never, at least one, or the one of this name."""

    mode: Literal["auto", "none", "any", "tool"] = "auto"
    name: str = ""


class Reasoning(NamedTuple):
    """How much the model is to think; None: as it does by itself."""

    is_on: bool | None = None
    effort: Effort | None = None
    budget_tokens: int | None = None
    is_hidden: bool = False  # the client does not want to see the thoughts
    is_optional: bool = False  # the model may as well not think

    @property
    def is_required(self) -> bool:
        """Whether a model that cannot think does not do what is asked."""
        return self.is_on is True and not self.is_optional


class OutputFormat(NamedTuple):
    """The answer is JSON, of this schema where one is given."""

    schema: Mapping[str, Any] | None
    name: str = ""
    description: str = ""
    is_strict: bool = True
    at: str = ""


class Request(NamedTuple):
    """A request for one answer or, where `choices` says so, for several."""

    model: str
    turns: tuple[Turn, ...]
    system: tuple[Text, ...] = ()  # before the first turn
    tools: tuple[Tool, ...] = ()
    web_search: WebSearch | None = None
    tool_choice: ToolChoice | None = None
    is_parallel: bool | None = None  # whether several tools may be called at once
    reasoning: Reasoning | None = None
    format: OutputFormat | None = None
    verbosity: Verbosity | None = None
    output_limit: int | None = None  # tokens, thinking included
    temperature: float | None = None  # from 0, usually 1, up to 2
    top_p: float | None = None
    top_k: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    stop: tuple[str, ...] = ()
    choices: int = 1
    seed: int | None = None
    user: str = ""  # the client's name for its own user
    metadata: Mapping[str, Any] | None = None  # tags that are stored with the call
    is_standard_tier: bool | None = None  # True: never the provider's faster, dearer one
    cache: CacheMark | None = None  # up to the end of the request, wherever that is
    is_stream: bool = False
    is_continued: bool = False  # the last turn is the beginning of the answer
    names: Mapping[str, str] = MappingProxyType(
        {}
    )  # field of this form → the client's parameter, where given

    def refuse(self, field: str) -> GatewayError:
        """Return the refusal of what this field holds, by the client's name for it."""
        return inexpressible(self.names.get(field, field))


class ThoughtsBeside(NamedTuple):
    """That a provider does not count thoughts to the maximum of a request."""

    caps: frozenset[str]  # the names of such a maximum
    budget: str = ""  # the parameter that bounds them; "": none does


class Target(NamedTuple):
    """What a writer of requests has to know about the model and its provider."""

    model: str  # the provider's name for it
    output_cap: int | None = None  # the most tokens the call may write; None: as the client asked
    cap_parameter: str = "max_completion_tokens"  # of the names in OpenAI's dialect
    reasoning: ReasoningForm = "effort"
    efforts: tuple[str, ...] = ("none", *get_args(Effort))  # that the model knows
    sampling: SamplingForm = "any"
    thinking_off: str = "disabled"  # Anthropic's word for it; "": the model always thinks
    has_forced_tools: bool = True  # a tool can have to be called
    extensions: frozenset[str] = frozenset()  # of EXTENSIONS, that the provider takes
    thoughts_beside: ThoughtsBeside | None = None
    always_searches: bool = False  # whatever a request says


USUAL_TARGET: Final = Target("")
# What some providers of a dialect take and others refuse.
EXTENSIONS: Final = {
    "cache_control": "OpenRouter: https://openrouter.ai/docs/features/prompt-caching",
    "media_results": "Gemini from 3 on: "
    "https://ai.google.dev/gemini-api/docs/function-calling#multimodal",
    "reasoning_content": "DeepSeek: https://api-docs.deepseek.com/guides/thinking_mode",
    "top_k": "vLLM: https://docs.vllm.ai/en/stable/serving/openai_compatible_server.html",
    "system_turns": "Claude from Opus 4.8 on: "
    "https://platform.claude.com/docs/en/build-with-claude/mid-conversation-system-messages",
    "web_search": "Gemini up to 2.5, which counts one search a prompt, and OpenAI's search models:"
    " https://ai.google.dev/gemini-api/docs/pricing,"
    " https://platform.openai.com/docs/guides/tools-web-search",
}


class Answer(NamedTuple):
    """A whole answer."""

    id: str
    model: str
    parts: tuple[Part, ...]
    stop: StopReason
    usage: Usage
    stop_sequence: str | None = None  # which one ended it, where the provider says so


class Start(NamedTuple):
    """A stream begins; the usage is known so far, if at all."""

    id: str
    model: str
    usage: Usage | None = None


class TextPiece(NamedTuple):
    """More text; the first piece begins a part."""

    text: str


class RefusalPiece(NamedTuple):
    """More of the words in which the model declines; the first piece begins a part."""

    text: str


class ThinkingPiece(NamedTuple):
    """More of a thought; the first piece begins a part. Its signature comes last."""

    text: str = ""
    signature: str = ""


class RedactedThinking(NamedTuple):
    """A whole thought that the provider hides."""

    data: str


class ToolStart(NamedTuple):
    """The model begins to call a tool."""

    id: str
    name: str


class ArgumentsPiece(NamedTuple):
    """More of the JSON text of the arguments of the tool that was begun last."""

    text: str


class PartEnd(NamedTuple):
    """The part that was begun last is complete. Parts follow each other, none within another."""


class UsageReport(NamedTuple):
    """The usage so far: it replaces what was reported before."""

    usage: Usage


class Stop(NamedTuple):
    """The model is done; usage may still follow."""

    reason: StopReason
    sequence: str | None = None


class Done(NamedTuple):
    """The stream is complete. Without it, it was cut off."""


class Failure(NamedTuple):
    """The stream failed; nothing follows."""

    error: GatewayError


Delta = (
    Start
    | TextPiece
    | RefusalPiece
    | ThinkingPiece
    | RedactedThinking
    | ToolStart
    | ArgumentsPiece
    | PartEnd
    | UsageReport
    | Stop
    | Done
    | Failure
)
