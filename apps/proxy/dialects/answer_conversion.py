"""An answer of a provider in the dialect of a client: whole ones, and streams event by event."""

from collections.abc import Mapping
from typing import Any

import orjson

from apps.core.errors import GatewayError
from apps.proxy.dialects.answer_deltas import deltas_of
from apps.proxy.dialects.conversion import DIALECTS, DialectConverter, Reply
from apps.proxy.dialects.metered_answer import MeteredAnswer
from apps.proxy.dialects.neutral import Delta, Done, Failure


class AnswerConverter:
    """Converts one answer. The names are those of dialects."""

    __slots__ = ("_client", "_has_begun", "_reader", "_reply", "_upstream", "_writer", "is_cut")

    def __init__(self, upstream: str, client: str, reply: Reply) -> None:
        self._upstream: DialectConverter = DIALECTS[upstream]
        self._client: DialectConverter = DIALECTS[client]
        self._reply = reply
        self._reader = self._upstream.stream_reader()
        self._writer = self._client.stream_writer(reply)
        self._has_begun = False
        self.is_cut = False  # the provider said something that has no equal, or that it failed

    @property
    def has_begun(self) -> bool:
        """Return whether anything of a stream has been said."""
        return self._has_begun

    def convert(self, block: bytes) -> bytes:
        """Return what a block of complete events comes to, up to where the answer is cut.

        A block that says nothing, within an answer, comes to a ping: the provider keeps the
        connection open, and what lies between us and the client would close a silent one.
        """
        written, _ = self._write(self._reader.read(block))
        is_alive = self._has_begun and not self.is_cut
        return written or (self._client.ping if is_alive else b"")

    def finish(self, last_frame: bytes) -> bytes:
        """Return the end of a stream, whose last events are these.

        `is_cut` is set where they are not the end of an answer.
        """
        written, is_done = self._write(self._reader.read(last_frame) + self._reader.end())
        self.is_cut = self.is_cut or not is_done
        return written

    def convert_whole(self, document: Mapping[str, Any]) -> bytes:
        """Return a whole answer. Raises E49 where it holds what has no equal."""
        answer = self._upstream.read_answer(document)
        return orjson.dumps(self._client.write_answer(answer, self._reply))

    def convert_metered(self, found: MeteredAnswer) -> bytes:
        """Return a whole answer whose usage is known. Raises E49 as `convert_whole`."""
        return self.convert_whole(found.document)

    def stream_whole(self, document: Mapping[str, Any]) -> bytes:
        """Return a whole answer as a stream. Raises E49 where it holds what has no equal."""
        return self._writer.write(deltas_of(self._upstream.read_answer(document)))

    def break_off(self, error: GatewayError) -> bytes:
        """Return an error as the last piece of a stream, which may be no event (an array)."""
        return self._writer.write([Failure(error)])

    def _write(self, deltas: list[Delta]) -> tuple[bytes, bool]:
        """Return what deltas come to, and whether the last one is the end."""
        last = deltas[-1] if deltas else None
        if isinstance(last, Failure):
            self.is_cut = True
            deltas = deltas[:-1]
        self._has_begun = self._has_begun or bool(deltas)
        return self._writer.write(deltas), isinstance(last, Done)


def error_status(dialect: str, error: GatewayError) -> int:
    """Return the status of an error in a dialect."""
    return DIALECTS[dialect].error_status(error)


def error_body(dialect: str, error: GatewayError, request_id: str) -> bytes:
    """Return the body of an error in a dialect."""
    return DIALECTS[dialect].error_body(error, Reply(request_id, 0))


def error_event(dialect: str, error: GatewayError, request_id: str) -> bytes:
    """Return an error as the last event of a stream that has begun."""
    return DIALECTS[dialect].error_event(error, Reply(request_id, 0))
