"""Load by wrk: what is sent, how it is run, and what counts as a failure.

wrk measures latency itself. A status that is not 2xx, a broken connection, a timeout or an answer
of another size than the one that was looked at before fails the measurement.
"""

from __future__ import annotations

import json
import socket
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.calls import CLIENTS
from bench.servers import stop
from bench.upstream import EVENTS

MODEL: Final = "bench"
OPENAI: Final = "openai"
PATH: Final = "/v1/chat/completions"
KINDS: Final = ("json", "stream")
_SCRIPT: Final = Path(__file__).with_name("load.lua")
PROMPT_TOKENS: Final = 100_000
# A conversation of fifty turns, at four characters a token: text with the line ends and quotes that
# have to be escaped.
_SENTENCE: Final = 'He said: "The quick brown fox jumps over the lazy dog, and so on."\n'
_TURN_CHARACTERS: Final = PROMPT_TOKENS * 4 // 50
_LONG_MESSAGES: Final = [
    {
        "role": ("user", "assistant")[turn % 2],
        "content": (_SENTENCE * (_TURN_CHARACTERS // len(_SENTENCE) + 1))[:_TURN_CHARACTERS],
    }
    for turn in range(50)
]
_TIMEOUT_SECONDS: Final = 10
_ANSWER_BYTES_MAX: Final = 1 << 20
# How far the mean size of the answers may be from the one that was looked at: the framing of
# streams varies with how many events are gathered in one write.
_SIZE_TOLERANCE: Final = 0.10
_ERRORS: Final = ("connect", "read", "write", "status", "timeout")


class LoadFailed(Exception):
    """Calls were not answered as they must be: the measurement counts for nothing."""


@dataclass(frozen=True, slots=True)
class Load:
    """A kind of call, and how many connections make it at the same time."""

    kind: str  # json, stream or prompt
    connections: int
    pause_ms: int = 0  # of each connection, between an answer and the next call
    client: str = OPENAI  # its dialect
    provider: str = OPENAI  # that of the provider which answers

    @property
    def name(self) -> str:
        """Return how reports call it."""
        usual = f"{self.kind}-c{self.connections}"
        if self.client == self.provider == OPENAI:
            return usual
        return f"{usual}-{self.client}-to-{self.provider}"

    @property
    def path(self) -> str:
        """Return where it goes."""
        return CLIENTS[self.client].path(model_of(self.provider), self.kind == "stream")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What wrk counted."""

    requests: int
    seconds: float
    bytes: int  # also of answers that had not ended
    p50_ms: float
    p99_ms: float
    max_ms: float

    @property
    def per_second(self) -> float:
        """Return requests per second."""
        return self.requests / self.seconds


def model_of(dialect: str, model: str = MODEL) -> str:
    """Return the model of an upstream that is answered in this dialect."""
    return model if dialect == OPENAI else f"{model}-{dialect}"


def make_body(
    kind: str, client: str = OPENAI, provider: str = OPENAI, *, model: str = MODEL
) -> str:
    """Return the body of a call."""
    body = CLIENTS[client].body(model_of(provider, model), kind == "stream")
    if kind == "prompt":
        body["messages"] = _LONG_MESSAGES
    return json.dumps(body, separators=(",", ":"))


class Wrk:
    """A running wrk."""

    def __init__(
        self, port: int, load: Load, *, keys: tuple[str, ...], seconds: int, path: str = ""
    ) -> None:
        """`path`: where else the calls go than the load says."""
        command = ["wrk", "-t1", f"-c{load.connections}", f"-d{seconds}s"]
        command += ["--timeout", f"{_TIMEOUT_SECONDS}s", "-s", str(_SCRIPT)]
        self._body = tempfile.NamedTemporaryFile(prefix="bench-body-")  # noqa: SIM115 - until `stop`
        self._body.write(make_body(load.kind, load.client, load.provider).encode())
        self._body.flush()
        command += [f"http://127.0.0.1:{port}{path or load.path}", "--"]
        command += [self._body.name, str(load.pause_ms), *keys]
        self._bound_seconds = seconds + _TIMEOUT_SECONDS + 10
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, process_group=0
        )

    def finish(self) -> Outcome:
        """Return what wrk counted when it has ended. Raises LoadFailed."""
        try:
            output, errors = self._process.communicate(timeout=self._bound_seconds)
        except subprocess.TimeoutExpired as error:
            raise LoadFailed("wrk did not end") from error
        finally:
            stop(self._process)
        return _read_output(output.decode("utf-8", "replace"), errors.decode("utf-8", "replace"))

    def stop(self) -> None:
        """End wrk, whatever it does."""
        stop(self._process)
        self._body.close()


def run_wrk(
    port: int, load: Load, *, keys: tuple[str, ...], seconds: int, path: str = ""
) -> Outcome:
    """Run wrk to its end. Raises LoadFailed."""
    wrk = Wrk(port, load, keys=keys, seconds=seconds, path=path)
    try:
        return wrk.finish()
    finally:
        wrk.stop()


def check_size(outcome: Outcome, expected: int, *, open_at_end: int) -> None:
    """Compare the answers with the one that was looked at. Raises LoadFailed.

    What wrk read includes parts of the answers that were open when it stopped.
    """
    least = outcome.requests * expected * (1 - _SIZE_TOLERANCE)
    most = (outcome.requests + open_at_end) * expected * (1 + _SIZE_TOLERANCE)
    if not least <= outcome.bytes <= most:
        mean = outcome.bytes / outcome.requests
        raise LoadFailed(f"answers of {mean:.0f} bytes, {expected} expected")


def probe(port: int, load: Load, key: str) -> int:
    """Make one call, look at its answer and return how many bytes it had. Raises LoadFailed."""
    client = CLIENTS[load.client]
    body = make_body(load.kind, load.client, load.provider).encode()
    head = (
        f"POST {load.path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        f"authorization: Bearer {key}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", port), _TIMEOUT_SECONDS) as connection:
        connection.sendall(head.encode() + body)
        answer = _read_answer(connection)
    if not answer.startswith(b"HTTP/1.1 200 "):
        raise LoadFailed(f"the first call was answered {answer[:400]!r}")
    is_stream = load.kind == "stream"
    pieces, wanted = answer.count(b'" token"'), EVENTS if is_stream else 0
    has_end = client.end in answer or not is_stream
    if pieces != wanted or not has_end or client.usage not in answer:
        raise LoadFailed(
            f"{pieces} pieces instead of {wanted}, or no end or usage: {answer[-400:]!r}"
        )
    return len(answer)


def _read_answer(connection: socket.socket) -> bytes:
    answer = b""
    while len(answer) < _ANSWER_BYTES_MAX:
        part = connection.recv(65_536)
        answer += part
        head, _, body = answer.partition(b"\r\n\r\n")
        lower = head.lower()
        if b"transfer-encoding: chunked" in lower:
            is_whole = body.endswith(b"0\r\n\r\n")
        else:
            length = lower.partition(b"content-length:")[2].partition(b"\r\n")[0]
            is_whole = bool(length) and len(body) >= int(length)
        if is_whole or not part:
            return answer
    raise LoadFailed("an answer without end")


def _read_output(output: str, errors: str) -> Outcome:
    found = [line for line in output.splitlines() if line.startswith("BENCH ")]
    if len(found) != 1:
        raise LoadFailed(f"wrk failed: {(output + errors)[-400:]}")
    counted = json.loads(found[0].removeprefix("BENCH "))
    broken = {name: counted[name] for name in _ERRORS if counted[name]}
    if broken or not counted["requests"]:
        text = ", ".join(f"{count} {name} errors" for name, count in broken.items())
        raise LoadFailed(f"{text or 'no answers'} beside {counted['requests']} answers")
    return Outcome(
        requests=counted["requests"],
        seconds=counted["microseconds"] / 1e6,
        bytes=counted["bytes"],
        p50_ms=counted["p50"] / 1e3,
        p99_ms=counted["p99"] / 1e3,
        max_ms=counted["max"] / 1e3,
    )
