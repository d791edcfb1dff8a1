"""OpenAI's dialect: everything the data plane needs to speak it, without I/O."""

from apps.proxy.dialects.openai_answer import (
    Answer,
    answer_to_sse,
    read_answer,
    read_chat_answer,
    read_completion_answer,
    read_list_answer,
)
from apps.proxy.dialects.openai_refusals import unsupported
from apps.proxy.dialects.openai_request import (
    READING_ENDPOINTS,
    Endpoint,
    ParsedRequest,
    parse_request,
)
from apps.proxy.dialects.openai_stream import SPECIAL, StreamMeter
from apps.proxy.dialects.openai_upstream import input_tokens_bound, upstream_body, upstream_error
from apps.proxy.dialects.openai_usage import parse_usage

__all__ = [
    "READING_ENDPOINTS",
    "SPECIAL",
    "Answer",
    "Endpoint",
    "ParsedRequest",
    "StreamMeter",
    "answer_to_sse",
    "input_tokens_bound",
    "parse_request",
    "parse_usage",
    "read_answer",
    "read_chat_answer",
    "read_completion_answer",
    "read_list_answer",
    "unsupported",
    "upstream_body",
    "upstream_error",
]
