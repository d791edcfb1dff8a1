"""Which dialects there are, and what converts each from and into the neutral form.

A dialect is added here once, and works with every other.
"""

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple, Protocol

from apps.core.errors import GatewayError, in_band_event, openai_body
from apps.proxy.dialects import (
    anthropic_answer,
    anthropic_request_reader,
    anthropic_request_writer,
    gemini_answer,
    gemini_contents,
    gemini_request_reader,
    gemini_request_writer,
    openai_chat_answer,
    openai_chat_request_reader,
    openai_chat_request_writer,
    responses_answer,
    responses_request_reader,
    responses_request_writer,
)
from apps.proxy.dialects.anthropic_errors import (
    anthropic_body,
    anthropic_in_band_event,
    anthropic_status,
)
from apps.proxy.dialects.anthropic_stream_reader import AnthropicStreamReader
from apps.proxy.dialects.anthropic_stream_writer import AnthropicStreamWriter
from apps.proxy.dialects.gemini_errors import (
    gemini_body,
    gemini_in_band_event,
    gemini_status,
)
from apps.proxy.dialects.gemini_stream_reader import GeminiStreamReader
from apps.proxy.dialects.gemini_stream_writer import GeminiStreamWriter
from apps.proxy.dialects.neutral import Answer, Delta, Request, Target
from apps.proxy.dialects.openai_chat_stream_reader import OpenAIStreamReader
from apps.proxy.dialects.openai_chat_stream_writer import OpenAIStreamWriter
from apps.proxy.dialects.openai_refusals import wrong_value
from apps.proxy.dialects.responses_errors import responses_in_band_events
from apps.proxy.dialects.responses_stream_reader import ResponsesStreamReader
from apps.proxy.dialects.responses_stream_writer import ResponsesStreamWriter

# Turns, parts, tools and whatever else stands in an array of objects, of one request. Each takes
# ten to thirty microseconds: so many half a second. Nothing grows faster than their number.
PIECES_MAX: Final = 20_000
_COMMENT: Final = b": ping\n\n"


class StreamReader(Protocol):
    """Follows the stream of a provider."""

    def read(self, block: bytes, /) -> list[Delta]:
        """Return what a block of complete events says."""

    def end(self) -> list[Delta]:
        """Return what the end of the body says, where a dialect has no last event."""


class StreamWriter(Protocol):
    """Writes the stream of a client."""

    def write(self, deltas: Iterable[Delta], /) -> bytes:
        """Return the events that tell these deltas."""


class Reply(NamedTuple):
    """What the answer to a client tells beside what the model says."""

    request_id: str
    created: int  # seconds since 1970
    include_usage: bool = True  # in a stream, where the dialect leaves it to the client
    asked: Mapping[str, Any] = MappingProxyType({})  # the client's request, if answers repeat it
    is_array: bool = False  # a stream of Gemini's is one JSON array, as it is without `alt=sse`


class DialectConverter(NamedTuple):
    """What converts one dialect. Readers of requests raise E13 and E14, of answers E49."""

    title: str
    read_request: Callable[[Mapping[str, Any]], Request]
    write_request: Callable[[Request, Target], dict[str, Any]]
    read_answer: Callable[[Mapping[str, Any]], Answer]
    write_answer: Callable[[Answer, Reply], dict[str, Any]]
    stream_reader: Callable[[], StreamReader]
    stream_writer: Callable[[Reply], StreamWriter]
    error_status: Callable[[GatewayError], int]
    error_body: Callable[[GatewayError, Reply], bytes]
    error_event: Callable[[GatewayError, Reply], bytes]
    ping: bytes  # says nothing in a stream, and keeps its connection open
    counted: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda body: body  # by its pieces


DIALECTS: Final[dict[str, DialectConverter]] = {
    "openai": DialectConverter(
        title="OpenAI Chat Completions",
        read_request=openai_chat_request_reader.read_request,
        write_request=openai_chat_request_writer.write_request,
        read_answer=openai_chat_answer.read_answer,
        write_answer=lambda answer, reply: openai_chat_answer.write_answer(
            answer, created=reply.created
        ),
        stream_reader=OpenAIStreamReader,
        stream_writer=lambda reply: OpenAIStreamWriter(
            created=reply.created, include_usage=reply.include_usage
        ),
        error_status=lambda error: error.status,
        error_body=lambda error, reply: openai_body(error),
        error_event=lambda error, reply: in_band_event(error),
        ping=_COMMENT,
    ),
    "anthropic": DialectConverter(
        title="Anthropic Messages",
        read_request=anthropic_request_reader.read_request,
        write_request=anthropic_request_writer.write_request,
        read_answer=anthropic_answer.read_answer,
        write_answer=lambda answer, reply: anthropic_answer.write_answer(answer),
        stream_reader=AnthropicStreamReader,
        stream_writer=lambda reply: AnthropicStreamWriter(request_id=reply.request_id),
        error_status=anthropic_status,
        error_body=lambda error, reply: anthropic_body(error, reply.request_id),
        error_event=lambda error, reply: anthropic_in_band_event(error, reply.request_id),
        ping=b'event: ping\ndata: {"type":"ping"}\n\n',
    ),
    "openai-responses": DialectConverter(
        title="OpenAI Responses",
        read_request=responses_request_reader.read_request,
        write_request=responses_request_writer.write_request,
        read_answer=responses_answer.read_answer,
        write_answer=lambda answer, reply: responses_answer.write_answer(
            answer, created=reply.created, asked=reply.asked
        ),
        stream_reader=ResponsesStreamReader,
        stream_writer=lambda reply: ResponsesStreamWriter(
            request_id=reply.request_id, created=reply.created, asked=reply.asked
        ),
        error_status=lambda error: error.status,
        error_body=lambda error, reply: openai_body(error),
        error_event=lambda error, reply: responses_in_band_events(
            error, request_id=reply.request_id, created=reply.created, asked=reply.asked
        ),
        ping=_COMMENT,
    ),
    "gemini": DialectConverter(
        title="Gemini generateContent",
        read_request=gemini_request_reader.read_request,
        write_request=gemini_request_writer.write_request,
        read_answer=gemini_answer.read_answer,
        write_answer=lambda answer, reply: gemini_answer.write_answer(answer),
        stream_reader=GeminiStreamReader,
        stream_writer=lambda reply: GeminiStreamWriter(
            request_id=reply.request_id, is_array=reply.is_array
        ),
        error_status=gemini_status,
        error_body=lambda error, reply: gemini_body(error, reply.request_id),
        error_event=lambda error, reply: gemini_in_band_event(error, reply.request_id),
        # Google's SDKs take a comment for JSON. An array may have blanks between its elements.
        ping=b"\n\n",
        counted=gemini_contents.with_streams_joined,
    ),
}


def read_bounded(dialect: str, body: Mapping[str, Any]) -> Request:
    """Return what a request says, if it says it in at most PIECES_MAX pieces.

    Raises E13 and E14 with the parameter at fault.
    """
    left = PIECES_MAX
    for name, value in DIALECTS[dialect].counted(body).items():
        left -= _count_pieces(value, left)
        if left < 0:
            raise wrong_value(name, f"at most {PIECES_MAX} turns, parts and tools in one request")
    return DIALECTS[dialect].read_request(body)


def _count_pieces(value: object, enough: int) -> int:
    """Return how many objects stand in arrays of a value, at whatever depth; as soon as there are
    more than `enough`, no more are looked for.
    """
    found = 0
    open_values = [value]
    while open_values and found <= enough:
        value = open_values.pop()
        if isinstance(value, dict):
            open_values += [inner for inner in value.values() if type(inner) in (dict, list)]
        elif isinstance(value, list):
            inner_values = [inner for inner in value if type(inner) in (dict, list)]
            found += len(inner_values)
            open_values += inner_values
    return found
