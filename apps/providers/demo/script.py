"""What a call's answer does on the connection, step by step, without I/O.

A script is an iterator of steps, made lazily so that an endless answer needs no memory. The server
plays it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import Enum, auto

from apps.providers.demo.answers import ID_MARK, Answer, Event
from apps.providers.demo.dialects.dialect import DemoDialect
from apps.providers.demo.options import Options
from apps.providers.demo.rendering import render_response_head
from apps.providers.demo.wire import LAST_CHUNK, TYPE_JSON, Request, render_chunk

STALL_SECONDS_MAX = 3600.0
FILLER = b"demo " * 13_107  # just under 64 KiB
BEFORE_HEAD = -1


@dataclass(frozen=True, slots=True)
class Send:
    """Send bytes; the counts are what these bytes complete."""

    data: bytes
    events: int = 0
    tokens: int = 0
    has_usage: bool = False
    status: int | None = None


@dataclass(frozen=True, slots=True)
class Wait:
    """Do nothing for a while; a client that leaves meanwhile is noticed."""

    seconds: float


class Finish(Enum):
    """End the connection, or what the client sees of it; nothing may follow."""

    CLOSE = auto()  # FIN in both directions
    RESET = auto()  # RST
    HALF_CLOSE = auto()  # FIN from us, while we go on reading
    STALL = auto()  # nothing more, while the connection stays


Step = Send | Wait | Finish
Script = Iterator[Step]


@dataclass(frozen=True, slots=True)
class Scene:
    """What a fault may look at."""

    request: Request
    options: Options
    answer: Answer
    response_id: str
    model_calls: int  # how often this model name was called, this call included
    key: str  # as received

    @property
    def dialect(self) -> DemoDialect:
        """Return what the call speaks."""
        return self.answer.dialect

    def with_id(self, data: bytes) -> bytes:
        """Return the rendering with this call's id in it."""
        return data.replace(ID_MARK, self.response_id.encode())

    def head(
        self,
        content_type: str,
        *,
        length: int | None = None,
        status: int = 200,
        extra: tuple[tuple[str, str], ...] = (),
    ) -> Send:
        """Return the step that sends the response head."""
        data = render_response_head(
            self.dialect, content_type, length=length, status=status, extra=extra
        )
        return Send(self.with_id(data), status=status)

    def stream_head(self, extra: tuple[tuple[str, str], ...] = ()) -> Send:
        """Return the step that sends the head of a stream."""
        return self.head(self.dialect.stream_type, extra=extra)

    def events(self) -> list[Event]:
        """Return the events of the undisturbed stream."""
        return [self.owned(event) for event in self.dialect.render_events(self.answer)]

    def ends(self) -> list[Event]:
        """Return the events by which a reader knows that the stream has ended."""
        return [event for event in self.events() if event.is_end]

    def piece(self, text: str, *, is_first: bool = False) -> Event:
        """Return one more event of text; whether it is the first of its stream may show."""
        return self.owned(self.dialect.render_piece(self.answer, text, is_first=is_first))

    def owned(self, event: Event) -> Event:
        """Return the event with this call's id in it."""
        return replace(event, data=self.with_id(event.data))

    def body(self) -> bytes:
        """Return the undisturbed JSON body."""
        return self.with_id(self.dialect.render_body(self.answer))

    def send_body(self, body: bytes) -> Send:
        """Return the step that sends an answer's JSON body (its head went before)."""
        has_usage = self.answer.usage is not None
        return Send(body, tokens=self.answer.output_tokens, has_usage=has_usage)


def send_event(event: Event) -> Send:
    """Return the step that sends an event as one chunk."""
    data = render_chunk(event.data)
    return Send(data, events=1, tokens=event.tokens, has_usage=event.has_usage)


def play_events(scene: Scene, events: Iterable[Event]) -> Script:
    """Send events at the pace asked for."""
    for number, event in enumerate(events):
        if number and scene.options.pace:
            yield Wait(scene.options.pace)
        yield send_event(event)


def play_stream(
    scene: Scene, events: Iterable[Event], extra: tuple[tuple[str, str], ...] = ()
) -> Script:
    """Send a stream that ends as HTTP wants it: head, events, last chunk."""
    yield scene.stream_head(extra)
    yield from play_events(scene, events)
    yield Send(LAST_CHUNK)


def play_json(
    scene: Scene,
    body: bytes,
    *,
    status: int = 200,
    content_type: str = TYPE_JSON,
    extra: tuple[tuple[str, str], ...] = (),
) -> Script:
    """Send a body that is not the answer itself, whole."""
    yield scene.head(content_type, length=len(body), status=status, extra=extra)
    yield Send(body)


def play_answer(scene: Scene, extra: tuple[tuple[str, str], ...] = ()) -> Script:
    """Send the undisturbed answer."""
    if scene.answer.is_stream:
        yield from play_stream(scene, scene.events(), extra)
        return
    body = scene.body()
    yield scene.head(TYPE_JSON, length=len(body), extra=extra)
    yield scene.send_body(body)


def play_first(scene: Scene, count: int) -> Script:
    """Send the head and the first events; of a JSON answer half the body if count > 0."""
    if count <= BEFORE_HEAD:
        return
    if scene.answer.is_stream:
        yield scene.stream_head()
        yield from play_events(scene, scene.events()[:count])
        return
    body = scene.body()
    yield scene.head(TYPE_JSON, length=len(body))
    if count > 0:
        yield Send(body[: len(body) // 2], tokens=scene.answer.output_tokens)
