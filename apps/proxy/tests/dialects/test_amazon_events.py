"""Amazon's frames as server-sent events, at every cut, and what is refused."""

from __future__ import annotations

import zlib
from itertools import pairwise
from typing import Any, Final

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.proxy.dialects.amazon_events import (
    FRAME_BYTES_MAX,
    FrameBroken,
    FrameReader,
    StreamRefused,
)
from apps.proxy.dialects.upstream_errors import upstream_error
from apps.proxy.sse import EventTooLarge
from tests.support.amazon_frames import chunk, exception, frame, raw_chunk

# What a prelude alone says: a length, no headers, and its own checksum.
EVENTS: Final[list[dict[str, Any]]] = [
    {"type": "message_start", "message": {"id": "msg_1", "usage": {"input_tokens": 3}}},
    {"type": "ping"},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "ü\n"}},
    {"type": "message_stop"},
]
STREAM: Final = b"".join(map(chunk, EVENTS))
SAID: Final = (
    b'event: message_start\ndata: {"type":"message_start","message":{"id":"msg_1","usage":'
    b'{"input_tokens":3}}}\n\n'
    b'event: ping\ndata: {"type":"ping"}\n\n'
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":'
    b'{"type":"text_delta","text":"\xc3\xbc\\n"}}\n\n'
    b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
)


def read(*chunks: bytes) -> tuple[FrameReader, bytes]:
    """Return a reader that was fed, and what it said."""
    reader = FrameReader()
    for piece in chunks:
        reader.feed(piece)
    return reader, reader.events


def test_a_stream_reads_the_same_at_every_cut() -> None:
    for cut in range(len(STREAM) + 1):
        reader, said = read(STREAM[:cut], STREAM[cut:])

        assert (said, reader.is_inside) == (SAID, False), cut


def test_a_stream_reads_the_same_byte_by_byte() -> None:
    reader, said = read(*(STREAM[at : at + 1] for at in range(len(STREAM))))

    assert (said, reader.is_inside) == (SAID, False)


@given(st.lists(st.integers(0, len(STREAM)), max_size=20))
def test_a_stream_reads_the_same_however_it_is_cut(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(STREAM)]

    _, said = read(*(STREAM[a:b] for a, b in pairwise(edges)))

    assert said == SAID


def test_an_end_inside_a_frame_is_known() -> None:
    whole = len(chunk(EVENTS[0]))

    for cut in range(1, whole):
        assert read(STREAM[:cut])[0].is_inside, cut
    assert not read(STREAM[:whole])[0].is_inside


def test_a_changed_byte_is_never_passed_on() -> None:
    first, second = chunk(EVENTS[0]), chunk(EVENTS[1])
    for at in range(len(first)):
        broken = first[:at] + bytes([first[at] ^ 1]) + first[at + 1 :]
        reader = FrameReader()
        try:
            reader.feed(broken + second)
        except (FrameBroken, EventTooLarge):
            pass
        else:
            assert reader.is_inside, at  # It waits for what its length says.
        assert reader.events == b"", at


def test_what_was_complete_before_a_broken_frame_is_there() -> None:
    reader = FrameReader()

    with pytest.raises(FrameBroken):
        reader.feed(chunk(EVENTS[1]) + chunk(EVENTS[0])[:-1] + b"\x00")

    assert reader.events == b'event: ping\ndata: {"type":"ping"}\n\n'


@pytest.mark.parametrize("length", [FRAME_BYTES_MAX + 1, 2**32 - 1])
def test_a_frame_beyond_the_bound_is_refused_by_its_length_alone(length: int) -> None:
    with pytest.raises(EventTooLarge):
        read(length.to_bytes(4, "big"))


@pytest.mark.parametrize("length", [0, 1, 15])
def test_a_frame_below_its_own_parts_is_refused(length: int) -> None:
    with pytest.raises(FrameBroken):
        read(length.to_bytes(4, "big"))


def test_headers_longer_than_the_frame_are_refused() -> None:
    prelude = (20).to_bytes(4, "big") + (200).to_bytes(4, "big")
    whole = prelude + zlib.crc32(prelude).to_bytes(4, "big") + b"abcd"

    with pytest.raises(FrameBroken):
        read(whole + zlib.crc32(whole).to_bytes(4, "big"))


EVENT: Final = {":event-type": "chunk", ":message-type": "event"}


@pytest.mark.parametrize(
    "bad",
    [
        raw_chunk(b"no JSON"),
        raw_chunk(b"[1]"),
        raw_chunk(b'"text"'),
        raw_chunk(b'{"type":7}'),
        raw_chunk(b'{"type":"two\\nlines"}'),
        raw_chunk(b'{"completion":"an old model"}'),
        frame(EVENT, b'{"bytes":"no base64!"}'),
        frame(EVENT, '{"bytes":"ü"}'.encode()),
        frame(EVENT, b'{"bytes":7}'),
        frame(EVENT, b"{}"),
        frame(EVENT, b"[]"),
        frame(EVENT, b""),
    ],
)
def test_a_chunk_that_holds_no_event_is_refused(bad: bytes) -> None:
    with pytest.raises(FrameBroken):
        read(bad)


def test_events_of_other_kinds_are_passed_over() -> None:
    other = frame({":event-type": "initial-response", ":message-type": "event"}, b"{}")

    assert read(other + chunk(EVENTS[1]))[1] == b'event: ping\ndata: {"type":"ping"}\n\n'


def test_what_amazon_adds_to_an_event_does_not_go_on() -> None:
    added = {"type": "message_stop", "amazon-bedrock-invocationMetrics": {"inputTokenCount": 8}}

    assert read(chunk(added))[1] == b'event: message_stop\ndata: {"type":"message_stop"}\n\n'


@pytest.mark.parametrize(
    ("name", "status", "row"),
    [
        ("throttlingException", 429, "E43"),
        ("ThrottlingException", 429, "E43"),
        ("validationException", 400, "E40"),
        ("modelTimeoutException", 408, "E46"),
        ("modelStreamErrorException", 424, "E46"),
        ("internalServerException", 500, "E46"),
        ("serviceUnavailableException", 503, "E46"),
        ("accessDeniedException", 403, "E41"),
        ("somethingNewException", 500, "E46"),
    ],
)
def test_exceptions_are_errors_of_the_rows_that_their_statuses_have(
    name: str, status: int, row: str
) -> None:
    with pytest.raises(StreamRefused) as raised:
        read(exception(name, "Told by Amazon."))

    assert (raised.value.status, row_of(raised.value)) == (status, row)
    assert orjson.loads(raised.value.payload) == {"message": "Told by Amazon."}


def row_of(refusal: StreamRefused) -> str:
    """Return what a call is refused for whose stream begins so."""
    return upstream_error(refusal.status, {}, refusal.payload).row


def test_an_error_without_a_payload_is_one_of_the_provider() -> None:
    told = {":message-type": "error", ":error-code": "InternalFailure", ":error-message": "no"}

    with pytest.raises(StreamRefused) as raised:
        read(frame(told, b""))

    assert (raised.value.status, row_of(raised.value)) == (500, "E46")
