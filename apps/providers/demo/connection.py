"""One connection to the demo provider, and the calls played on it.

A raw `asyncio.Protocol`, because faults need exact TCP behaviour. Undisturbed answers without pace
are one write from a kept rendering; all else is a script played by one task per call. Reading goes
on meanwhile, so a client that leaves is noticed at once. A FIN from the client counts as leaving.
"""

from __future__ import annotations

import asyncio
import hmac
import socket
import struct
import time
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import parse_qs

import orjson

from apps.providers.demo.answers import ID_MARK, Answer
from apps.providers.demo.building import parse_options, refuse_option
from apps.providers.demo.calls import Call, CallLog
from apps.providers.demo.dialects.choice import OPENAI, find_dialect
from apps.providers.demo.dialects.dialect import DemoDialect, Incoming
from apps.providers.demo.errors import ProviderError
from apps.providers.demo.fault_content import play_error
from apps.providers.demo.faults import describe, get_fault, start_script
from apps.providers.demo.options import OptionError, Options
from apps.providers.demo.rendering import render_response
from apps.providers.demo.script import (
    STALL_SECONDS_MAX,
    Finish,
    Scene,
    Script,
    Send,
    Step,
    Wait,
)
from apps.providers.demo.stored import INPUT_BYTES_MAX, StoredAnswers
from apps.providers.demo.wire import (
    CONTINUE,
    TYPE_JSON,
    BadRequest,
    Request,
    RequestReader,
    render_head,
)

# What a client may pipeline behind a running call before it is no longer read.
PIPELINED_BYTES_MAX = 1024 * 1024
# A script that never waits gives way to other connections after this many steps.
STEPS_PER_TURN = 16
CALLS_PATH = "/__calls"

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass(slots=True)
class Shared:
    """What the connections of one provider have in common."""

    log: CallLog
    api_key: str | None
    id_prefix: str  # 14 characters; with the call's number they make its response id
    stored: StoredAnswers = field(default_factory=StoredAnswers)
    connections: set[Connection] = field(default_factory=set)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)


class Connection(asyncio.Protocol):
    """One client connection: its requests are answered one after the other."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._reader = RequestReader()
        self._transport: asyncio.Transport
        self._call: Call | None = None
        self._answer: Answer | None = None
        self._task: asyncio.Task[None] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._is_paused = False
        self._is_open = False
        self._has_faulted = False

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self._transport = cast(asyncio.Transport, transport)
        self._is_open = True
        self._shared.connections.add(self)

    def data_received(self, data: bytes) -> None:
        """Take bytes and answer what is complete."""
        self._reader.feed(data)
        if self._call is None:
            self._advance()
        elif self._reader.buffered_bytes > PIPELINED_BYTES_MAX:
            self._transport.pause_reading()

    def eof_received(self) -> None:
        """Treat the client's FIN as its leaving; the transport closes itself."""
        self._leave()

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that the client is gone."""
        self._leave()
        self._shared.connections.discard(self)

    def pause_writing(self) -> None:
        """Hold the script until the client has read more."""
        self._is_paused = True

    def resume_writing(self) -> None:
        """Let the script go on."""
        self._is_paused = False
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    def abort(self) -> None:
        """Reset the connection because the provider stops."""
        self._end("fault")
        if self._task is not None:
            self._task.cancel()
        self._is_open = False
        self._transport.abort()

    def _leave(self) -> None:
        self._is_open = False
        if self._call is not None:
            self._call["client_closed_at"] = time.time()
            self._end("fault" if self._has_faulted else "client_closed")
        if self._task is not None:
            self._task.cancel()

    def _end(self, ended: str) -> None:
        """Close the running call's record, once."""
        call, answer = self._call, self._answer
        if call is None:
            return
        if ended == "done" and answer is not None and call["status"] == 200:
            call["output_tokens"] = answer.output_tokens
        self._call = self._answer = None
        self._shared.log.end(call, ended)

    # Requests

    def _advance(self) -> None:
        """Answer the requests that are complete, until one needs time."""
        # Each turn consumes a request, so what was received bounds the loop.
        while self._is_open and self._call is None:
            try:
                request = self._reader.next_request()
            except BadRequest as problem:
                error = ProviderError(problem.status, problem.message)
                body = OPENAI.render_error(error)
                self._respond(error.status, TYPE_JSON, body, keeps_alive=False)
                return
            if request is None:
                if self._reader.take_continue():
                    self._transport.write(CONTINUE)
                return
            self._answer_request(request)

    def _answer_request(self, request: Request) -> None:
        if request.path == CALLS_PATH:
            self._control(request)
        elif request.path == "/" and request.method == "GET":
            self._respond(
                200, "text/plain; charset=utf-8", describe().encode(), request.keeps_alive
            )
        else:
            self._start_call(request)

    def _control(self, request: Request) -> None:
        if request.method == "DELETE":
            self._shared.log.clear()
            self._respond(200, TYPE_JSON, b"{}", request.keeps_alive)
            return
        since = parse_qs(request.query).get("since", ["0"])[-1]
        if request.method != "GET" or not since.isdecimal():
            error = ProviderError(400, "GET /__calls?since=NUMBER or DELETE /__calls")
            self._respond(400, TYPE_JSON, OPENAI.render_error(error), request.keeps_alive)
            return
        records = self._shared.log.list_since(int(since))
        self._respond(200, TYPE_JSON, orjson.dumps(records), request.keeps_alive)

    def _respond(self, status: int, kind: str, body: bytes, keeps_alive: bool) -> None:
        headers = (("content-type", kind), ("content-length", str(len(body))))
        self._transport.write(render_head(status, headers) + body)
        if not keeps_alive:
            self._close()

    def _close(self) -> None:
        self._is_open = False
        self._transport.close()

    # Calls

    def _start_call(self, request: Request) -> None:
        body, has_body = _parse_body(request)
        call = self._shared.log.start(request, body, self._shared.id_prefix)
        self._call = call
        self._has_faulted = False
        dialect = find_dialect(request)
        try:
            options, answer, script = self._plan(dialect, request, body, has_body, call)
        except ProviderError as error:
            refusal = play_error(dialect, call["response_id"], error)
            self._play(request, refusal, is_answered=True)
            return
        self._answer = answer
        if answer.is_stored and get_fault(options).is_answered:
            items = dialect.list_input(body) if len(request.body) <= INPUT_BYTES_MAX else []
            key = dialect.find_key(request)
            self._shared.stored.keep(key, call["response_id"], answer, items)
        if script is None:
            self._write_at_once(request, answer, call)
            return
        is_answered = get_fault(options).is_answered
        self._play(request, script, is_answered=is_answered, latency=options.latency)

    def _plan(
        self, dialect: DemoDialect, request: Request, body: Any, has_body: bool, call: Call
    ) -> tuple[Options, Answer, Script | None]:
        """Return what to answer; without a script at once. Raises ProviderError."""
        key = dialect.find_key(request)
        expected = self._shared.api_key
        if expected is not None and not hmac.compare_digest(key.encode(), expected.encode()):
            raise dialect.refuse_key(key)
        endpoint = dialect.get_endpoint(request)
        model = dialect.get_model(endpoint, request, body if has_body else None)
        call["model"] = model
        options = parse_options(model)
        answer = dialect.answer(
            Incoming(request, endpoint, model, options, body, self._shared.stored)
        )
        call["stream"] = answer.is_stream
        call["fault"] = options.fault
        model_calls = self._shared.log.count_model(model)
        is_plain = options.fault == "ok" and not options.latency
        if is_plain and not (answer.is_stream and options.pace):
            return options, answer, None
        scene = Scene(request, options, answer, call["response_id"], model_calls, key)
        try:
            return options, answer, start_script(scene)
        except OptionError as error:
            raise refuse_option(error) from error

    def _write_at_once(self, request: Request, answer: Answer, call: Call) -> None:
        rendering = render_response(answer)
        wire = rendering.wire.replace(ID_MARK, call["response_id"].encode())
        self._transport.write(wire)
        call["status"] = 200
        call["bytes_sent"] = len(wire)
        call["events_sent"] = rendering.events
        call["usage_sent"] = rendering.has_usage
        call["input_tokens"] = answer.prompt_tokens
        call["output_tokens"] = answer.output_tokens
        if self._is_paused:
            # The client has not read it all: whether it will is seen by a script without steps.
            self._play(request, iter(()), is_answered=True)
            return
        self._end("done")
        if not request.keeps_alive:
            self._close()

    def _play(
        self, request: Request, script: Script, *, is_answered: bool, latency: float = 0.0
    ) -> None:
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._play_script(request, script, is_answered, latency))
        self._task = task
        self._shared.tasks.add(task)
        task.add_done_callback(self._shared.tasks.discard)

    async def _play_script(
        self, request: Request, script: Script, is_answered: bool, latency: float
    ) -> None:
        """Play the steps; cancelled as soon as the client leaves."""
        is_complete = False
        try:
            if latency:
                await asyncio.sleep(latency)
            await self._play_steps(script)
            await self._drain()
            is_complete = True
        finally:
            self._task = None
            if not is_complete:
                self._end("fault")
                self._transport.abort()
        if not self._is_open:
            return
        self._end("done" if is_answered else "fault")
        if request.keeps_alive:
            self._transport.resume_reading()
            self._advance()
        else:
            self._close()

    async def _play_steps(self, script: Script) -> None:
        """Take the steps; one that ends the connection is the last."""
        for number, step in enumerate(script, start=1):
            match step:
                case Send():
                    if self._is_paused:
                        await self._drain()
                    self._send(step)
                case Wait(seconds):
                    await asyncio.sleep(seconds)
                case Finish():
                    await self._finish(step)
                    return
            if number % STEPS_PER_TURN == 0:
                await asyncio.sleep(0)

    def _send(self, step: Send) -> None:
        self._transport.write(step.data)
        call = self._call
        if call is None:
            return
        call["bytes_sent"] += len(step.data)
        call["events_sent"] += step.events
        call["output_tokens"] += step.tokens
        call["usage_sent"] = call["usage_sent"] or step.has_usage
        if step.status is not None:
            call["status"] = step.status
            if step.status == 200 and self._answer is not None:
                call["input_tokens"] = self._answer.prompt_tokens

    async def _finish(self, step: Step) -> None:
        await self._flush()
        if step is Finish.CLOSE:
            self._end("fault")
            self._close()
        elif step is Finish.RESET:
            self._end("fault")
            self._is_open = False
            connected: socket.socket = self._transport.get_extra_info("socket")
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            self._transport.abort()
        else:
            if step is Finish.HALF_CLOSE:
                self._has_faulted = True
                self._transport.write_eof()
            await asyncio.sleep(STALL_SECONDS_MAX)
            self._end("fault")
            self._close()

    async def _drain(self) -> None:
        """Wait until the client has read enough; its leaving cancels the wait."""
        # Resumed and paused again before this task runs: each turn follows some reading.
        while self._is_paused:
            self._drained = asyncio.get_running_loop().create_future()
            await self._drained
        self._drained = None

    async def _flush(self) -> None:
        """Wait until everything is with the kernel, so that what follows comes after it."""
        self._transport.set_write_buffer_limits(high=0)
        await self._drain()
        self._transport.set_write_buffer_limits()


def _parse_body(request: Request) -> tuple[Any, bool]:
    if not request.body:
        return None, False
    try:
        return orjson.loads(request.body), True
    except orjson.JSONDecodeError:
        return None, False
