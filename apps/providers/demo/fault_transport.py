"""Faults of the connection: slow, cut, endless, framed wrongly, packed. `faults.py` lists them."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import replace
from itertools import takewhile

from apps.providers.demo.answers import Choice, Event
from apps.providers.demo.script import (
    FILLER,
    STALL_SECONDS_MAX,
    Finish,
    Scene,
    Script,
    Send,
    Step,
    Wait,
    play_answer,
    play_events,
    play_first,
    play_stream,
    send_event,
)
from apps.providers.demo.wire import CONTINUE, LAST_CHUNK, TYPE_JSON, render_chunk

ENDLESS_EVENTS_MAX = 10**9
DRIP_STEP_SECONDS = 0.05
# Stands in an answer where filler belongs.
_GAP = "@gap@"


def slow_first(scene: Scene, seconds: float) -> Script:
    """Wait before the head."""
    yield Wait(seconds)
    yield from play_answer(scene)


def drip(scene: Scene, bytes_per_second: int) -> Script:
    """Send everything after the head a few bytes at a time."""
    size = max(1, int(bytes_per_second * DRIP_STEP_SECONDS))
    for step in play_answer(scene):
        if not isinstance(step, Send) or step.status is not None:
            yield step
            continue
        for at in range(0, len(step.data), size):
            piece = step.data[at : at + size]
            yield Wait(len(piece) / bytes_per_second)
            is_last = at + size >= len(step.data)
            yield replace(step, data=piece) if is_last else Send(piece)


def stall_after(scene: Scene, count: int) -> Script:
    """Send some events, then nothing, without closing."""
    yield from play_first(scene, count)
    yield Finish.STALL


def cut_after(scene: Scene, count: int) -> Script:
    """Send some events, then close without the last chunk."""
    yield from play_first(scene, count)
    yield Finish.CLOSE


def rst_after(scene: Scene, count: int) -> Script:
    """Send some events, then reset the connection."""
    yield from play_first(scene, count)
    yield Finish.RESET


def half_close(scene: Scene, count: int) -> Script:
    """Send some events, then FIN our direction only and go on reading."""
    yield from play_first(scene, count)
    yield Finish.HALF_CLOSE


def cut_in_char(scene: Scene, ending: str) -> Script:
    """Cut in the middle of a two-byte character."""
    answer = scene.answer
    if not answer.is_stream:
        body = replace(scene, answer=replace(answer, choice=_say("caf\u00e9"))).body()
        yield from _cut(scene, [], body, body.rfind("\u00e9".encode()) + 1, ending)
        return
    data = scene.piece(" caf\u00e9").data
    yield from _cut(scene, scene.events()[:2], data, data.rfind("\u00e9".encode()) + 1, ending)


def cut_in_line(scene: Scene, ending: str) -> Script:
    """Cut in the middle of an event's line."""
    if not scene.answer.is_stream:
        body = scene.body()
        yield from _cut(scene, [], body, len(body) * 3 // 4, ending)
        return
    events = scene.events()
    data = events[min(2, len(events) - 1)].data
    yield from _cut(scene, events[:2], data, len(data) * 3 // 4, ending)


def cut_in_usage(scene: Scene, ending: str) -> Script:
    """Cut in the middle of the usage object, the last one of a stream."""
    mark = scene.dialect.usage_mark
    if not scene.answer.is_stream:
        body = scene.body()
        yield from _cut(scene, [], body, body.rfind(mark), ending)
        return
    events = scene.events()
    at = max((number for number, event in enumerate(events) if event.has_usage), default=-1)
    data = events[at].data
    yield from _cut(scene, events[:at], data, data.rfind(mark), ending)


def _say(text: str) -> Choice:
    return Choice((text,), "stop")


def _cut(scene: Scene, before: list[Event], data: bytes, at: int, ending: str) -> Script:
    if not scene.answer.is_stream:
        yield scene.head(TYPE_JSON, length=len(data))
        yield Send(data[:at])
        yield Finish.CLOSE
        return
    yield scene.stream_head()
    yield from play_events(scene, before)
    # The part is a whole chunk, so that every reader is given it.
    yield Send(render_chunk(data[:at]))
    if ending == "clean":
        yield Send(LAST_CHUNK)
    else:
        yield Finish.CLOSE


def never_end(scene: Scene) -> Script:
    """Send content as fast as it is read, for ever."""
    if not scene.answer.is_stream:
        yield scene.head(TYPE_JSON)
        yield Send(render_chunk(_split_body(scene)[0]))
        piece = Send(render_chunk(FILLER))
        for _ in range(ENDLESS_EVENTS_MAX):
            yield piece
        return
    opening = _open(scene.events())
    step = send_event(scene.piece(" more"))
    yield scene.stream_head()
    yield from play_events(scene, opening or [scene.piece(" more", is_first=True)])
    for _ in range(ENDLESS_EVENTS_MAX):
        if scene.options.pace:
            yield Wait(scene.options.pace)
        yield step


def huge_line(scene: Scene, size: int) -> Script:
    """Send one event of that many bytes, then end as usual."""
    if not scene.answer.is_stream:
        yield from big_body(scene, size)
        return
    events = scene.events()
    opening = _open(events)
    head, tail = _split_event(scene, is_first=not opening)
    yield scene.stream_head()
    yield from play_events(scene, opening)
    yield Send(render_chunk(head))
    yield from (Send(render_chunk(piece)) for piece in _fill(size - len(head) - len(tail)))
    yield Send(render_chunk(tail), events=1, tokens=1)
    rest = events[len(opening) :]
    yield from play_events(scene, [event for event in rest if not event.is_content])
    yield Send(LAST_CHUNK)


def big_body(scene: Scene, size: int) -> Script:
    """Send a JSON answer of that many bytes (a stream: one event of that size)."""
    if scene.answer.is_stream:
        yield from huge_line(scene, size)
        return
    head, tail = _split_body(scene)
    filler = max(0, size - len(head) - len(tail))
    yield scene.head(TYPE_JSON, length=len(head) + filler + len(tail))
    yield Send(head)
    yield from (Send(piece) for piece in _fill(filler))
    yield scene.send_body(tail)


def _open(events: list[Event]) -> list[Event]:
    """Return the events before the first word."""
    return list(takewhile(lambda event: not event.is_content, events))


def _split_event(scene: Scene, *, is_first: bool) -> tuple[bytes, bytes]:
    head, _, tail = scene.piece(_GAP, is_first=is_first).data.partition(_GAP.encode())
    return head, tail


def _split_body(scene: Scene) -> tuple[bytes, bytes]:
    choice = replace(_say(_GAP), tool=scene.answer.choice.tool)
    answer = replace(scene.answer, choice=choice, choice_count=1)
    body = replace(scene, answer=answer).body()
    head, gap, tail = body.partition(_GAP.encode())
    # Where there is no text to fill, white space between the body's last tokens is as good.
    return (head, tail) if gap else (body[:-1], body[-1:])


def _fill(size: int) -> Iterator[bytes]:
    filler = b" " * len(FILLER)
    for at in range(0, max(0, size), len(filler)):
        yield filler[: size - at]


def tiny_chunks(scene: Scene) -> Script:
    """Send each byte of the body as a chunk of its own."""
    is_stream = scene.answer.is_stream
    parts = scene.events() if is_stream else [Event(scene.body())]
    yield scene.stream_head() if is_stream else scene.head(TYPE_JSON)
    for part in parts:
        if scene.options.pace:
            yield Wait(scene.options.pace)
        data = b"".join(b"1\r\n%c\r\n" % byte for byte in part.data)
        if is_stream:
            yield replace(send_event(part), data=data)
        else:
            yield scene.send_body(data)
    yield Send(LAST_CHUNK)


def gzip_bomb(scene: Scene, size: int) -> Script:
    """Send a gzip body that unpacks to that many bytes (1000 : 1)."""
    is_stream = scene.answer.is_stream
    head, tail = _split_event(scene, is_first=True) if is_stream else _split_body(scene)
    encoding = (("content-encoding", "gzip"),)
    yield scene.stream_head(encoding) if is_stream else scene.head(TYPE_JSON, extra=encoding)
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    packed = packer.compress(head)
    for piece in _fill(size - len(head) - len(tail)):
        packed += packer.compress(piece)
        if len(packed) > 4096:
            yield Send(render_chunk(packed))
            packed = b""
    packed += packer.compress(tail)
    if is_stream:
        packed += packer.compress(b"".join(event.data for event in scene.ends()))
    packed += packer.flush()
    yield Send(render_chunk(packed), tokens=scene.answer.output_tokens)
    yield Send(LAST_CHUNK)


def gzip_unasked(scene: Scene) -> Script:
    """Send the answer gzipped, whatever the client accepts."""
    packer = zlib.compressobj(6, zlib.DEFLATED, 31)
    encoding = (("content-encoding", "gzip"),)
    if not scene.answer.is_stream:
        body = packer.compress(scene.body()) + packer.flush()
        yield scene.head(TYPE_JSON, length=len(body), extra=encoding)
        yield scene.send_body(body)
        return
    yield scene.stream_head(encoding)
    for event in scene.events():
        packed = packer.compress(event.data) + packer.flush(zlib.Z_SYNC_FLUSH)
        yield replace(send_event(event), data=render_chunk(packed))
    yield Send(render_chunk(packer.flush()) + LAST_CHUNK)


def continue_unasked(scene: Scene) -> Script:
    """Send two interim responses before the answer."""
    yield Send(CONTINUE)
    yield Send(b"HTTP/1.1 103 Early Hints\r\nlink: </style.css>; rel=preload\r\n\r\n")
    yield from play_answer(scene)


def te_cl_conflict(scene: Scene) -> Script:
    """Send Transfer-Encoding and a wrong Content-Length together."""
    is_stream = scene.answer.is_stream
    if is_stream:
        yield from play_stream(scene, scene.events(), extra=(("content-length", "10"),))
        return
    yield scene.head(TYPE_JSON, extra=(("content-length", "10"),))
    yield scene.send_body(render_chunk(scene.body()))
    yield Send(LAST_CHUNK)


def late_after_done(scene: Scene, milliseconds: int) -> Script:
    """Keep the stream open after its end, then send one more content event."""
    steps: list[Step] = [Wait(min(milliseconds / 1000, STALL_SECONDS_MAX))]
    if not scene.answer.is_stream:
        yield from play_answer(scene)
        yield from steps
        return
    yield scene.stream_head()
    yield from play_events(scene, scene.events())
    yield from steps
    yield send_event(scene.piece(" late"))
    yield Send(LAST_CHUNK)
