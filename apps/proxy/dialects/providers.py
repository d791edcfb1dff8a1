"""The dialects that providers speak: how a request is sent, and how its answer is metered.

A dialect is added here once, beside its converters in `conversion`. Where a cloud serves it in its
own way, `hosting` says how.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, NamedTuple

from apps.providers.hosting import HOSTINGS, Hosting
from apps.proxy.dialects import (
    anthropic_metering,
    anthropic_request_writer,
    gemini_embedding,
    gemini_metering,
    openai_answer,
    responses_metering,
)
from apps.proxy.dialects.amazon_events import CONTENT_TYPE as FRAMES
from apps.proxy.dialects.anthropic_stream import AnthropicStreamMeter
from apps.proxy.dialects.foreign_thoughts import (
    without_in_chat,
    without_in_contents,
    without_in_input,
    without_in_messages,
)
from apps.proxy.dialects.gemini_paths import upstream_path
from apps.proxy.dialects.gemini_request import capped
from apps.proxy.dialects.gemini_request_writer import without_path
from apps.proxy.dialects.gemini_stream import GeminiStreamMeter
from apps.proxy.dialects.metered_answer import MeteredAnswer
from apps.proxy.dialects.neutral import ReasoningForm
from apps.proxy.dialects.openai_stream import OpenAIStreamMeter
from apps.proxy.dialects.openai_upstream import upstream_body
from apps.proxy.dialects.parsed_request import EMBEDDING_ENDPOINTS, Endpoint, ParsedRequest
from apps.proxy.dialects.responses_request import OUTPUT_PARAMETER
from apps.proxy.dialects.responses_stream import ResponsesStreamMeter
from apps.proxy.dialects.stream_meter import StreamMeter
from apps.proxy.json_body import serialise

# Of whose models each thought is signed: others that speak their dialect need not do so.
_CLAUDE: Final = "claude"


class Sending(NamedTuple):
    """What a body says in the end, whatever the client wrote."""

    upstream_model: str
    is_stream: bool
    output_cap: int | None  # None unless the maximum had to be lowered
    cap_parameter: str
    headers: tuple[tuple[str, str | None], ...] = ()  # that go on, where the body holds some
    reasoning: ReasoningForm = "effort"  # of its model


class ProviderDialect(NamedTuple):
    """What the data plane needs of one dialect to have a provider of it answer."""

    endpoints: frozenset[Endpoint]  # whose requests and answers pass as they are
    converted: Endpoint  # where conversations of other dialects go
    path: Callable[[Endpoint, Sending], str]  # below the base URL
    body: Callable[[Mapping[str, Any], Sending], bytes]
    meter: Callable[[ParsedRequest, bool], StreamMeter]  # whether its events are converted
    read_answer: Callable[[Endpoint, bytes], MeteredAnswer]  # raises E49
    needs_maximum: bool = False  # a request has to say how much may be written
    takes_headers: bool = True  # the client's own go on as headers
    stream_type: str = "text/event-stream"
    is_framed: bool = False  # streams come in Amazon's frames
    tells_searches: bool = True  # an answer says how often was searched
    embedding: Endpoint = "embeddings"  # where what other dialects want embedded goes

    def endpoint_for(self, asked: Endpoint) -> Endpoint:
        """Return where a request of another dialect goes."""
        return self.embedding if asked in EMBEDDING_ENDPOINTS else self.converted


def _openai_body(body: Mapping[str, Any], sending: Sending) -> bytes:
    return upstream_body(
        without_in_chat(body),
        upstream_model=sending.upstream_model,
        stream=sending.is_stream,
        output_cap=sending.output_cap,
        cap_parameter=sending.cap_parameter,
    )


def _openai_meter(request: ParsedRequest, is_converted: bool) -> StreamMeter:
    return OpenAIStreamMeter(
        strip_usage=not (is_converted or request.include_usage),
        is_completion=request.endpoint == "completions",
        is_spoken=bool(request.audio_parameter),
    )


def _anthropic_body(body: Mapping[str, Any], sending: Sending) -> bytes:
    is_claude = _CLAUDE in sending.upstream_model.lower()
    own = without_in_messages(body, is_always_signed=is_claude)
    sent = _capped_for_anthropic(own, sending)
    return serialise({**sent, "model": sending.upstream_model})


def _capped_for_anthropic(body: Mapping[str, Any], sending: Sending) -> Mapping[str, Any]:
    cap = sending.output_cap
    return body if cap is None else anthropic_request_writer.capped(body, cap)


def _gemini_body(body: Mapping[str, Any], sending: Sending) -> bytes:
    if "contents" not in body:
        return serialise(gemini_embedding.sent_body(body, sending.upstream_model))
    own = without_in_contents(body, is_call_signed=sending.reasoning == "effort")
    sent = own if sending.output_cap is None else capped(own, sending.output_cap)
    return serialise(without_path(sent))


def _responses_body(body: Mapping[str, Any], sending: Sending) -> bytes:
    sent = {**without_in_input(body), "model": sending.upstream_model}
    if sending.output_cap is not None:
        sent[OUTPUT_PARAMETER] = sending.output_cap
    return serialise(sent)


PROVIDERS: Final[dict[str, ProviderDialect]] = {
    "openai": ProviderDialect(
        endpoints=frozenset(
            {"chat/completions", "completions", "embeddings", "moderations", "rerank"}
        ),
        converted="chat/completions",
        path=lambda endpoint, sending: endpoint,
        body=_openai_body,
        meter=_openai_meter,
        read_answer=openai_answer.read_answer,
        tells_searches=False,
    ),
    "anthropic": ProviderDialect(
        endpoints=frozenset({"messages"}),
        converted="messages",
        path=lambda endpoint, sending: endpoint,
        body=_anthropic_body,
        meter=lambda request, is_converted: AnthropicStreamMeter(),
        read_answer=anthropic_metering.read_metered_answer,
        needs_maximum=True,
    ),
    "gemini": ProviderDialect(
        endpoints=gemini_embedding.ENDPOINTS | {"generateContent"},
        converted="generateContent",
        path=lambda endpoint, sending: upstream_path(
            sending.upstream_model, endpoint, is_stream=sending.is_stream
        ),
        body=_gemini_body,
        meter=lambda request, is_converted: GeminiStreamMeter(may_search=request.has_web_search),
        read_answer=gemini_metering.read_metered_answer,
        embedding="batchEmbedContents",
    ),
    "openai-responses": ProviderDialect(
        endpoints=frozenset({"responses"}),
        converted="responses",
        path=lambda endpoint, sending: endpoint,
        body=_responses_body,
        meter=lambda request, is_converted: ResponsesStreamMeter(),
        read_answer=responses_metering.read_metered_answer,
    ),
}


_HEADER_OF_BETAS: Final = "anthropic-beta"
# What a cloud is told otherwise, or not at all.
_NOT_HOSTED: Final = frozenset({"anthropic_beta", "anthropic_version", "model", "stream"})


def _hosted_anthropic_body(hosting: Hosting, body: Mapping[str, Any], sending: Sending) -> bytes:
    own = without_in_messages(body, is_always_signed=True)
    told = _capped_for_anthropic(own, sending)
    sent = {name: value for name, value in told.items() if name not in _NOT_HOSTED}
    sent["anthropic_version"] = hosting.version
    if hosting.names_stream and sending.is_stream:
        sent["stream"] = True
    if hosting.has_betas_in_body:
        betas = dict(sending.headers).get(_HEADER_OF_BETAS) or ""
        if listed := [beta for part in betas.split(",") if (beta := part.strip())]:
            sent["anthropic_beta"] = listed
    return serialise(sent)


def _hosted(hosting: Hosting) -> ProviderDialect:
    return PROVIDERS[hosting.dialect]._replace(
        path=lambda endpoint, sending: hosting.path(
            sending.upstream_model, is_stream=sending.is_stream
        ),
        body=partial(_hosted_anthropic_body, hosting),
        takes_headers=not hosting.has_betas_in_body,
        stream_type=FRAMES if hosting.is_framed else "text/event-stream",
        is_framed=hosting.is_framed,
    )


_HOSTED: Final = {hosting.name: _hosted(hosting) for hosting in HOSTINGS}


def find_provider_dialect(dialect: str, hosting: Hosting | None) -> ProviderDialect:
    """Return what the data plane needs of a provider that speaks the dialect, hosted or not."""
    return PROVIDERS[dialect] if hosting is None else _HOSTED[hosting.name]
