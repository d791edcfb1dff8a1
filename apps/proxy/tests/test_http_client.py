"""The HTTP client against a server that writes raw bytes, cut wherever it hurts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress

import pytest

from apps.proxy import http_client
from apps.proxy.http_client import Answer, BadAnswer, ClientConnection, ConnectionClosed, Pool, Take
from tests.support.cases import for_all

REQUEST = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"
JSON = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Request-Id: a\r\n"
    b"content-length: 2\r\n\r\n{}"
)
CHUNKED = (
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    b"5\r\nfirst\r\n6\r\nsecond\r\n0\r\ntrailer: x\r\n\r\n"
)
UNTIL_CLOSED = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\nall of it"


class Server:
    """Answers each request on a connection with the next script: pieces, written one by one."""

    def __init__(self, scripts: Sequence[Sequence[bytes]], *, closes: bool, gap: float) -> None:
        self._scripts = list(scripts)
        self._gap = gap  # seconds between two pieces
        self._closes = closes
        self.connections = 0
        self.ended: list[int] = []  # how many requests each connection had carried
        self.target = ("http", "127.0.0.1", 0)
        self.tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection."""
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        requests = 0
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                requests += 1
                for piece in self._scripts.pop(0):
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(self._gap)
                if self._closes:
                    break
        self.ended.append(requests)
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


@asynccontextmanager
async def pool_to(
    *scripts: Sequence[bytes], closes: bool = False, gap: float = 0
) -> AsyncIterator[tuple[Pool, Server]]:
    """A pool whose connections lead to a server with these scripts."""
    server = Server(scripts, closes=closes, gap=gap)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    host, port = listener.sockets[0].getsockname()
    server.target = ("http", host, port)

    async def connect(target: http_client.Target, factory: Callable[[], ClientConnection]) -> None:
        _, made_connection = await asyncio.get_running_loop().create_connection(
            factory, target[1], target[2]
        )
        made.append(made_connection)

    made: list[ClientConnection] = []
    pool = Pool(connect)
    try:
        yield pool, server
    finally:
        for connection in made:
            connection.abort()
        pool.close()
        listener.close()
        await asyncio.wait_for(asyncio.gather(*server.tasks), 5)


async def ask(pool: Pool, server: Server) -> Answer:
    """Send a request on an idle connection, or on a new one."""
    connection = pool.find(server.target) or await pool.make(server.target)
    return await asyncio.wait_for(connection.send(REQUEST), 5)


async def read_all(answer: Answer, take: Take | None = None) -> bytes:
    """Return the body, but for what is taken."""
    parts = []
    while part := await asyncio.wait_for(answer.read(take), 5):
        parts.append(part)
    return b"".join(parts)


def cut(data: bytes, at: int) -> list[bytes]:
    """Return two pieces."""
    return [data[:at], data[at:]]


@pytest.mark.parametrize(
    ("raw", "body"), [(JSON, b"{}"), (CHUNKED, b"firstsecond")], ids=["length", "chunks"]
)
async def test_an_answer_cut_anywhere_is_read_whole_and_its_connection_kept(
    raw: bytes, body: bytes
) -> None:
    scripts = [cut(raw, at) for at in range(1, len(raw))]

    async with pool_to(*scripts) as (pool, server):
        for _ in scripts:
            answer = await ask(pool, server)
            assert (answer.status, await read_all(answer)) == (200, body)
            answer.release()

        assert server.connections == 1


async def test_headers_are_found_whatever_their_case_and_the_first_of_several_counts() -> None:
    raw = JSON.replace(b"X-Request-Id: a\r\n", b"X-Request-Id: a\r\nx-request-id: b\r\n")

    async with pool_to([raw]) as (pool, server):
        answer = await ask(pool, server)

        assert answer.header(b"x-request-id") == "a"
        assert answer.header(b"retry-after") == ""


async def test_an_answer_without_a_length_ends_with_its_connection() -> None:
    async with pool_to([UNTIL_CLOSED], closes=True) as (pool, server):
        answer = await ask(pool, server)

        assert await read_all(answer) == b"all of it"
        answer.release()
        assert pool.find(server.target) is None


async def test_what_only_announces_an_answer_is_passed_over() -> None:
    raw = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + JSON

    async with pool_to(*[cut(raw, at) for at in range(1, len(raw) - 1, 7)]) as (pool, server):
        for _ in range(1, len(raw) - 1, 7):
            answer = await ask(pool, server)
            assert (answer.status, answer.header(b"link")) == (200, "")
            assert await read_all(answer) == b"{}"
            answer.release()


@for_all("at", range(1, len(CHUNKED) - 1, 3))
async def test_an_answer_that_breaks_off_is_never_complete(at: int) -> None:
    async with pool_to([CHUNKED[:at]], closes=True) as (pool, server):
        with pytest.raises(ConnectionClosed):
            await read_all(await ask(pool, server))


async def test_what_came_before_a_break_is_read_first() -> None:
    async with pool_to([CHUNKED[:-20]], closes=True) as (pool, server):
        answer = await ask(pool, server)
        await asyncio.sleep(0.05)

        assert (await answer.read())[:5] == b"first"
        with pytest.raises(ConnectionClosed):
            await read_all(answer)


@pytest.mark.parametrize(
    "raw",
    [
        b"<html>no</html>\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ncontent-length: -2\r\n\r\n{}",
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 2 * http_client.HEAD_BYTES_MAX + b"\r\n\r\n",
    ],
    ids=["html", "two-lengths", "negative", "upgrade", "long-head"],
)
async def test_what_is_no_answer_is_refused(raw: bytes) -> None:
    async with pool_to([raw], closes=True) as (pool, server):
        with pytest.raises((BadAnswer, ConnectionClosed)):
            await ask(pool, server)

        assert pool.find(server.target) is None


ENDLESS = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n"


@pytest.mark.parametrize("more", [b"x: " + b"y" * 200_000, b"x:\r\n" * 50_000])
async def test_trailers_without_an_end_break_an_answer_off(more: bytes) -> None:
    async with pool_to([ENDLESS, more, b""]) as (pool, server):
        answer = await ask(pool, server)

        with pytest.raises(BadAnswer):
            await read_all(answer)
        answer.release()
        assert pool.find(server.target) is None


async def test_sizes_of_chunks_that_come_by_themselves_are_no_trailers() -> None:
    size = b"1;" + b"a" * 1_000 + b"\r\n"
    pieces = [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", *[size, b"x\r\n"] * 100]

    async with pool_to([*pieces, b"0\r\n\r\n"]) as (pool, server):
        assert await read_all(await ask(pool, server)) == b"x" * 100


async def test_a_second_answer_to_one_request_is_never_taken_for_the_next_one() -> None:
    async with pool_to([JSON + JSON.replace(b"{}", b"[]")], [JSON]) as (pool, server):
        first = await ask(pool, server)
        assert await read_all(first) == b"{}"
        first.release()

        assert await read_all(await ask(pool, server)) == b"{}"
        assert server.connections == 2


async def test_what_is_said_on_an_idle_connection_closes_it() -> None:
    async with pool_to([JSON], [JSON]) as (pool, server):
        answer = await ask(pool, server)
        await read_all(answer)
        answer.release()
        kept = pool.find(server.target)
        assert kept is not None
        pool.put(kept)
        kept.buffer_updated(0)

        assert pool.find(server.target) is None


async def test_an_answer_that_said_all_gets_a_moment_for_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_client, "FINISH_SECONDS", 0.2)
    head, end = CHUNKED[:-22], CHUNKED[-22:]

    async with pool_to([head, *[b""] * 50, end], [head]) as (pool, server):
        answer = await ask(pool, server)
        await answer.read()
        answer.finish()
        await asyncio.sleep(0.1)
        kept = pool.find(server.target)
        assert kept is not None

        answer = await asyncio.wait_for(kept.send(REQUEST), 5)
        await answer.read()
        answer.finish()
        await asyncio.sleep(0.4)
        assert pool.find(server.target) is None


async def test_an_answer_that_nobody_reads_is_not_taken_in() -> None:
    body = b"x" * 8_000_000
    raw = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body

    async with pool_to([raw]) as (pool, server):
        answer = await ask(pool, server)
        await asyncio.sleep(0.2)

        assert len(await answer.read()) <= 2 * http_client.READ_BYTES
        assert len(await read_all(answer)) > 7_000_000


async def test_for_a_reader_whose_client_is_behind_little_is_kept() -> None:
    body = b"x" * 8_000_000
    raw = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body

    async with pool_to([raw]) as (pool, server):
        answer = await ask(pool, server)
        answer.is_behind = lambda: True
        sizes = []
        for _ in range(4):
            await asyncio.sleep(0.05)  # The provider has sent more than fits by now.
            sizes.append(sum(map(len, answer.waiting)))
            await answer.read()

        # The head was waited for, and what came with it.
        kept_max = http_client.BEHIND_BYTES + http_client.BEHIND_READ_BYTES
        assert all(http_client.BEHIND_BYTES <= size <= kept_max for size in sizes[1:])
        assert len(body) - len(await read_all(answer)) == sum(sizes)


async def test_who_is_cancelled_closes_the_connection() -> None:
    async with pool_to([b""], [JSON]) as (pool, server):
        asking = asyncio.create_task(ask(pool, server))
        await asyncio.sleep(0.05)
        asking.cancel()
        with suppress(asyncio.CancelledError):
            await asking
        await asyncio.sleep(0.05)

        assert server.ended == [1]
        assert pool.find(server.target) is None


async def test_idle_connections_are_closed_when_they_are_old(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_client, "KEEPALIVE_SECONDS", 0.1)

    async with pool_to([JSON]) as (pool, server):
        answer = await ask(pool, server)
        await read_all(answer)
        answer.release()
        await asyncio.sleep(0.3)

        assert pool.find(server.target) is None
        assert server.ended == [1]


# ---- what is taken as it comes

NUMBERS = [b"%03d," % number for number in range(200)]
GAP = 0.001


def chunked(pieces: Sequence[bytes]) -> list[bytes]:
    """Return an answer in chunks, each of which is written by itself."""
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    return [head, *[b"%x\r\n%b\r\n" % (len(one), one) for one in pieces], b"0\r\n\r\n"]


@pytest.mark.parametrize("declines", [2, 3, 7, 1_000])
async def test_what_is_taken_and_what_is_read_are_in_order_the_whole_body(declines: int) -> None:
    found: list[bytes] = []
    calls = 0

    def take(piece: bytes) -> bool:
        nonlocal calls
        calls += 1
        if calls % declines == 0:
            return False
        found.append(piece)
        return True

    async with pool_to(chunked(NUMBERS), [JSON], gap=GAP) as (pool, server):
        answer = await ask(pool, server)
        while part := await asyncio.wait_for(answer.read(take), 5):
            found.append(part)
            # What comes while nobody waits is not offered: it must not overtake what was read.
            await asyncio.sleep(0.001 * (calls % 3))

        assert b"".join(found) == b"".join(NUMBERS)
        assert calls > 0
        assert answer.is_read
        answer.release()
        assert await read_all(await ask(pool, server)) == b"{}"
        assert server.connections == 1


async def test_a_reader_is_not_woken_for_what_is_taken() -> None:
    taken: list[bytes] = []

    def take(piece: bytes) -> bool:
        taken.append(piece)
        return True

    async with pool_to(chunked(NUMBERS), gap=GAP) as (pool, server):
        answer = await ask(pool, server)
        read = await read_all(answer, take)

        # What had come before the first time it waited, at most.
        assert len(taken) > len(NUMBERS) // 2
        assert read + b"".join(taken) == b"".join(NUMBERS)


async def test_a_failure_to_take_is_raised_to_the_reader() -> None:
    def take(piece: bytes) -> bool:
        raise ValueError("no")

    async with pool_to(chunked(NUMBERS), gap=GAP) as (pool, server):
        answer = await ask(pool, server)

        with pytest.raises(ValueError, match="no"):
            await read_all(answer, take)
        answer.close()


async def test_what_was_taken_before_a_break_was_all_that_came() -> None:
    taken: list[bytes] = []

    def take(piece: bytes) -> bool:
        taken.append(piece)
        return True

    async with pool_to(chunked(NUMBERS)[:-1], closes=True, gap=GAP) as (pool, server):
        answer = await ask(pool, server)
        taken.append(await asyncio.wait_for(answer.read(), 5))
        with pytest.raises(ConnectionClosed):
            await asyncio.wait_for(answer.read(take), 5)

        assert b"".join(taken) == b"".join(NUMBERS)
