"""What a dialect does: it reads a request, and writes an answer, its usage and its errors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import orjson

from apps.providers.demo.answers import ID_MARK, Answer, Endpoint, Event, Usage
from apps.providers.demo.errors import ProviderError
from apps.providers.demo.options import Options
from apps.providers.demo.stored import StoredAnswers
from apps.providers.demo.wire import TYPE_EVENTS, Request

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Incoming:
    """A request whose endpoint and model are known."""

    request: Request
    endpoint: Endpoint
    model: str
    options: Options
    body: Any
    stored: StoredAnswers


class DemoDialect(ABC):
    """One way to speak to a provider. It has no state: one instance serves all calls."""

    stream_type: ClassVar[str] = TYPE_EVENTS
    head: ClassVar[Headers] = (("x-request-id", f"req_{ID_MARK.decode()}"),)
    # Before the count of the output in a usage; a cut inside the usage comes here.
    usage_mark: ClassVar[bytes]
    # JSON that a client takes for no answer, and documents of events that are none.
    wrong_body: ClassVar[bytes]
    wrong_documents: ClassVar[Sequence[bytes]]

    # Requests

    def find_key(self, request: Request) -> str:
        """Return the key as received, empty if there is none."""
        return find_bearer(request)

    @abstractmethod
    def get_endpoint(self, request: Request) -> Endpoint:
        """Return what the request calls. Raises ProviderError."""

    def get_model(self, endpoint: Endpoint, request: Request, body: Any) -> str:
        """Return the model asked for; empty for the list of models. Raises ProviderError."""
        if not isinstance(body, dict):
            raise ProviderError(400, "We could not parse the JSON body of your request.")
        model = body.get("model")
        if not isinstance(model, str) or not model:
            raise ProviderError(400, "you must provide a model parameter", param="model")
        return model

    @abstractmethod
    def answer(self, incoming: Incoming) -> Answer:
        """Return the answer to a call. Raises ProviderError for what the original refuses."""

    def list_input(self, body: Any) -> list[dict[str, Any]]:
        """Return the items of a request whose answer is stored; none where nothing is."""
        return []

    # Answers

    @abstractmethod
    def render_body(self, answer: Answer) -> bytes:
        """Return the answer as one JSON document."""

    @abstractmethod
    def render_events(self, answer: Answer) -> list[Event]:
        """Return the answer as the events of a stream, up to its end."""

    @abstractmethod
    def render_piece(self, answer: Answer, text: str, *, is_first: bool) -> Event:
        """Return one more event of text, for a fault to send."""

    @abstractmethod
    def render_usage_event(self, answer: Answer, usage: Usage, *, is_late: bool) -> Event:
        """Return an event that tells usage and nothing else, for a fault to send."""

    @abstractmethod
    def tell_usage(self, answer: Answer, usage: Usage) -> dict[str, Any]:
        """Return a usage in the dialect's words."""

    def render_usage(self, answer: Answer, usage: Usage) -> bytes:
        """Return a usage as JSON, spoiled if it is to be."""
        return spoil(self.tell_usage(answer, usage), usage)

    def wrap(self, document: bytes, *, is_first: bool) -> Event:
        """Return a document as an event of a stream."""
        return Event(b"data: " + document + b"\n\n")

    def render_wrong_events(self) -> list[Event]:
        """Return events that are well-formed and no answer."""
        return [
            self.wrap(document, is_first=number == 0)
            for number, document in enumerate(self.wrong_documents)
        ]

    # Errors

    @abstractmethod
    def refuse_key(self, received: str) -> ProviderError:
        """Return the refusal of a wrong or missing key."""

    @abstractmethod
    def render_error(self, error: ProviderError) -> bytes:
        """Return the JSON body of a refusal."""

    def list_error_headers(self, error: ProviderError) -> Headers:
        """Return what stands in the head of a refusal beside the usual."""
        if error.retry_after is None:
            return ()
        return (("retry-after", str(error.retry_after)),)

    @abstractmethod
    def render_overload(self) -> bytes:
        """Return the document by which an answer that has begun says that it failed."""

    def render_error_event(self, answer: Answer, *, is_first: bool) -> Event:
        """Return the event by which a stream that has begun says that it failed."""
        return self.wrap(self.render_overload(), is_first=is_first)


def find_bearer(request: Request) -> str:
    """Return the bearer token, empty if there is none."""
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def named_event(name: str, document: bytes, **flags: Any) -> Event:
    """Return a document as an event that has its name on a line of its own."""
    return Event(b"event: %b\ndata: %b\n\n" % (name.encode(), document), **flags)


def wrap_by_type(document: bytes, usual: str) -> Event:
    """Return a document as an event of the type that it names, or of the usual one."""
    parsed = orjson.loads(document)
    name = parsed.get("type") if isinstance(parsed, dict) else None
    return named_event(str(name or usual), document)


def spoil(counts: dict[str, Any], usage: Usage) -> bytes:
    """Return the counts of a usage as JSON, spoiled if it is to be."""
    return orjson.dumps(counts if usage.spoiled is None else usage.spoiled.apply(counts))
