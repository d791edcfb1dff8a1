"""Streams from one dialect into another, cell by cell of the compatibility matrix.

Each is fed at every split of its bytes, with every kind of line ends.
"""

from typing import Any, Final

from apps.proxy.dialects.conversion import DIALECTS
from apps.proxy.dialects.neutral import Delta, Failure
from apps.proxy.sse import EventBuffer
from apps.proxy.tests.dialects.golden_cells import Cell, golden_cells, stream
from apps.proxy.tests.dialects.said import answer_of
from tests.support.cases import for_all

LINE_ENDS: Final = (b"\n", b"\r\n", b"\r")


def blocks_of(*chunks: bytes) -> list[bytes]:
    """Return what a reader gets of chunks as they come from the network."""
    buffer = EventBuffer()
    return [buffer.feed(chunk) for chunk in chunks]


def read(dialect: str, *blocks: bytes) -> list[Delta]:
    reader = DIALECTS[dialect].stream_reader()
    deltas = [delta for block in blocks for delta in reader.read(block)]
    return deltas + reader.end()


def told(deltas: list[Delta]) -> list[tuple[type, object]]:
    """Return deltas in a form in which their types count, and errors can be compared."""
    return [
        (type(delta), delta.error.row if isinstance(delta, Failure) else delta) for delta in deltas
    ]


@for_all("cell", golden_cells("stream"))
def test_a_stream_is_written_as_the_golden_file_says(cell: Cell) -> None:
    deltas = read(cell.provider, *blocks_of(stream(cell.given)))

    written = DIALECTS[cell.client].stream_writer(cell.reply).write(deltas)

    assert written.decode() == stream(cell.written).decode()


def streams_of_providers() -> list[Any]:
    """Return one cell for each stream: it is read alike for clients of all dialects."""
    cells = {
        (cell.values[0].provider, *cell.values[0].given): cell for cell in golden_cells("stream")
    }
    return list(cells.values())


@for_all("cell", streams_of_providers())
def test_a_stream_is_read_alike_at_every_split(cell: Cell) -> None:
    whole = told(read(cell.provider, *blocks_of(stream(cell.given))))
    for line_end in LINE_ENDS:
        raw = stream(cell.given, line_end)
        splits = {tuple(blocks_of(raw[:cut], raw[cut:])) for cut in range(1, len(raw))}
        # A reader sees blocks of whole events, however many splits lead to them.
        assert len(splits) >= len(cell.given)
        for blocks in splits:
            assert told(read(cell.provider, *blocks)) == whole


@for_all("cell", golden_cells("stream"))
def test_a_stream_is_written_alike_delta_by_delta(cell: Cell) -> None:
    raw = stream(cell.given)
    writer, buffer = DIALECTS[cell.client].stream_writer(cell.reply), EventBuffer()
    reader = DIALECTS[cell.provider].stream_reader()

    written = [
        writer.write([delta])
        for position in range(len(raw))
        for delta in reader.read(buffer.feed(raw[position : position + 1]))
    ]
    written.append(writer.write(reader.end()))

    assert b"".join(written) == stream(cell.written)


@for_all("cell", golden_cells("stream", "exact"))
def test_what_is_exact_is_read_as_what_was_said(cell: Cell) -> None:
    said = answer_of(read(cell.provider, *blocks_of(stream(cell.given))))

    assert answer_of(read(cell.client, *blocks_of(stream(cell.written)))) == said
    assert said.usage.total_tokens > 0
