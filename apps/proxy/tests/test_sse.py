import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.proxy.sse import (
    EventBuffer,
    EventTooLarge,
    event_data,
    events_with_data,
    is_done,
    rest_of_event,
    split_events,
)
from apps.proxy.tests import streams
from tests.support.cases import for_all


def data_of(blocks: list[bytes]) -> list[bytes]:
    events = [event for block in blocks for event in split_events(block)]
    return [data for data in map(event_data, events) if data]


def feed_all(chunks: list[bytes]) -> tuple[list[bytes], EventBuffer]:
    buffer = EventBuffer()
    return [buffer.feed(chunk) for chunk in chunks], buffer


@pytest.mark.parametrize("name", streams.ALL)
def test_a_stream_cut_in_two_anywhere_gives_the_same_events(name: str) -> None:
    stream = streams.ALL[name]
    expected = data_of([stream])

    for cut in range(len(stream) + 1):
        blocks, buffer = feed_all([stream[:cut], stream[cut:]])

        assert b"".join(blocks) == stream
        assert data_of(blocks) == expected
        assert buffer.pending == 0


@pytest.mark.parametrize("name", streams.ALL)
@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 64, 300])
def test_a_stream_in_pieces_of_any_size_gives_the_same_events(name: str, size: int) -> None:
    stream = streams.ALL[name]
    pieces = [stream[start : start + size] for start in range(0, len(stream), size)]

    blocks, _ = feed_all(pieces)

    assert b"".join(blocks) == stream
    assert data_of(blocks) == data_of([stream])


@pytest.mark.parametrize("name", streams.ALL)
def test_an_event_goes_on_with_the_byte_that_completes_it(name: str) -> None:
    stream = streams.ALL[name]
    expected = [stream.index(event) + len(event) for event in split_events(stream)]
    buffer = EventBuffer()
    completed = []

    for position in range(len(stream)):
        if event_data(buffer.feed(stream[position : position + 1])):
            completed.append(position + 1)

    with_data = [
        end for end, event in zip(expected, split_events(stream), strict=True) if event_data(event)
    ]
    # An empty line of CRLF is complete with its CR.
    assert all(0 <= end - position <= 1 for end, position in zip(with_data, completed, strict=True))


def test_every_event_of_a_golden_stream_is_valid_json_or_done() -> None:
    for stream in streams.ALL.values():
        for data in data_of([stream]):
            assert data == b"[DONE]" or isinstance(json.loads(data), dict)


_LINES = st.sampled_from(["data: {}", "data:", "event: a", ": kept open", "", "", "x"])


@given(st.lists(_LINES, max_size=12), st.sampled_from(["", "\n", "\n\n"]))
def test_events_are_the_same_whichever_way_their_lines_end(lines: list[str], end: str) -> None:
    block = ("\n".join(lines) + end).encode()
    other = block.replace(b"\n", b"\r\n")

    events = split_events(block)

    assert b"".join(events) == block
    assert [event.replace(b"\r\n", b"\n") for event in split_events(other)] == events
    assert [data for _, data in events_with_data(other)] == [
        data for _, data in events_with_data(block)
    ]


def test_a_chunk_of_whole_events_is_handed_on_as_it_is() -> None:
    chunk = b"data: 1\n\ndata: 2\n\n"

    assert EventBuffer().feed(chunk) is chunk


def test_an_unfinished_event_waits() -> None:
    buffer = EventBuffer()

    assert buffer.feed(b"data: 1\n\ndata: 2\n") == b"data: 1\n\n"
    assert buffer.pending == 8
    assert buffer.feed(b"\n") == b"data: 2\n\n"
    assert buffer.pending == 0
    assert buffer.feed(b"") == b""


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r", b"\n\r\n", b"\r\n\n", b"\n\r"])
def test_every_kind_of_empty_line_ends_an_event(end: bytes) -> None:
    assert EventBuffer().feed(b"data: 1" + end) == b"data: 1" + end
    assert data_of([b"data: 1" + end + b"data: 2" + end]) == [b"1", b"2"]


@pytest.mark.parametrize("line", [b"\n", b"\r\n", b"\r"])
def test_one_end_of_line_does_not_end_an_event(line: bytes) -> None:
    block = b"event: a" + line + b"data: 1" + line

    assert EventBuffer().feed(block) == b""
    assert split_events(block) == [block]


def test_an_event_without_an_end_is_bounded() -> None:
    buffer = EventBuffer(max_event_bytes=10)

    assert buffer.feed(b"data: 6789") == b""
    with pytest.raises(EventTooLarge):
        buffer.feed(b"x")


def test_a_large_chunk_of_small_events_is_not_too_large() -> None:
    chunk = b"data: 1\n\n" * 100 + b"data"

    assert EventBuffer(max_event_bytes=10).feed(chunk) == chunk[:-4]


@for_all(
    ("event", "data"),
    [
        (b"data: 1\n\n", b"1"),
        (b"data:1\n\n", b"1"),
        (b"data:  1\n\n", b" 1"),
        (b"data: 1\ndata: 2\n\n", b"1\n2"),
        (b"data\n\n", b""),
        (b"event: error\ndata: {}\n\n", b"{}"),
        (b": comment\n\n", b""),
        (b"\n", b""),
        (b"\ndata: 1\n\n", b"1"),
        (b"\xef\xbb\xbfdata: 1\n\n", b"1"),
        (b"data: 1\r\n\r\n", b"1"),
        (b"data: 1\r\ndata: 2\r\n\r\n", b"1\n2"),
        (b"database: 1\n\n", b""),
        (b"id: 1\nretry: 5\n\n", b""),
        (b"data: a: b\n\n", b"a: b"),
    ],
)
def test_the_data_of_an_event_follows_the_specification(event: bytes, data: bytes) -> None:
    assert event_data(event) == data


@pytest.mark.parametrize(
    ("event", "done"),
    [
        (b"data: [DONE]\n\n", True),
        (b"data:[DONE]\r\n\r\n", True),
        (b"event: done\ndata: [DONE] \n\n", True),
        (b'data: {"a":"[DONE]"}\n\n', False),
        (b": [DONE]\n\n", False),
    ],
)
def test_only_the_end_of_a_stream_is_done(event: bytes, done: bool) -> None:
    assert is_done(event) is done


@given(
    st.lists(st.sampled_from([b"\n", b"\r", b"\r\n", b"data: x", b"data:", b":", b"a"])), st.data()
)
def test_any_bytes_cut_anywhere_lose_nothing(parts: list[bytes], draw: st.DataObject) -> None:
    stream = b"".join(parts) + b"\n\n"
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(stream)), max_size=4)))
    edges = [0, *cuts, len(stream)]
    chunks = [stream[a:b] for a, b in itertools.pairwise(edges)]

    blocks, buffer = feed_all(chunks)

    assert b"".join(blocks) == stream
    assert buffer.pending == 0
    assert data_of(blocks) == data_of([stream])


@pytest.mark.parametrize(
    ("sent", "rest"),
    [
        (0, b""),
        (1, b"ata: one\n\n"),
        (9, b"\n\n"),
        (10, b"\n"),
        (11, b""),
        (12, b"ata: two\r\n\r\n"),
        (21, b"\n\r\n"),
        (24, b""),
        (25, b"ata: three"),
    ],
)
def test_an_event_that_was_sent_in_part_is_known_to_its_end(sent: int, rest: bytes) -> None:
    block = b"data: one\n\ndata: two\r\n\r\ndata: three"

    assert rest_of_event(block, sent) == rest
