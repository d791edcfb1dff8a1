"""The table of misbehaviours: what `fault=NAME(ARGUMENT)` in a model name does.

`FAULTS` is the documentation: `--help` and `GET /` print it. Each means the same in every dialect,
in the form that the dialect would give it. An event is one `data:` line of a stream, the opening
and the end included; the end is `[DONE]`, or what a dialect has instead. "After n events" with
n = 0 means after the head, with -1 before it. On a JSON answer the same faults strike after half
the body. Faults with an argument have a default.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from apps.providers.demo import fault_content as content
from apps.providers.demo import fault_transport as transport
from apps.providers.demo.fault_content import force_usage
from apps.providers.demo.options import (
    OPTIONS,
    OptionError,
    Options,
    parse_integer,
    parse_seconds,
)
from apps.providers.demo.script import BEFORE_HEAD, Scene, Script

Value = int | float | str
MEBIBYTE = 1024 * 1024
DIALECTS = {
    "OpenAI": "/v1/chat/completions, completions, embeddings, models",
    "OpenAI Responses": "/v1/responses, responses/{id}, …/input_items, responses/input_tokens",
    "Anthropic": "/v1/messages, messages/count_tokens, models",
    "Gemini": "/v1beta/models/{model}:generateContent, …, /v1beta/models",
}
BYTES_MAX = 4096 * MEBIBYTE


@dataclass(frozen=True, slots=True)
class Argument:
    """What may stand in a fault's brackets."""

    name: str
    default: Value
    minimum: int = 0
    maximum: int = 1_000_000
    choices: tuple[str, ...] = ()

    def parse(self, text: str) -> Value:
        """Return the value written. Raises OptionError."""
        if self.choices and text not in self.choices:
            raise OptionError(f"{self.name} must be one of {', '.join(self.choices)}")
        if isinstance(self.default, float):
            return parse_seconds(self.name, text)
        if isinstance(self.default, int):
            return parse_integer(self.name, text, self.maximum, self.minimum)
        return text


@dataclass(frozen=True, slots=True)
class Fault:
    """One misbehaviour. `is_answered`: the client gets a complete answer all the same."""

    play: Callable[..., Script]
    says: str
    arguments: tuple[Argument, ...] = ()
    is_answered: bool = False

    def signature(self, name: str) -> str:
        """Return how the fault is written."""
        inside = ",".join(argument.name for argument in self.arguments)
        return f"{name}({inside})" if inside else name


EVENTS = Argument("events", 2, minimum=BEFORE_HEAD)
ENDING = Argument("ending", "cut", choices=("cut", "clean"))
HUGE = Argument("bytes", 32 * MEBIBYTE, maximum=BYTES_MAX)
CODE = Argument("code", 500, minimum=200, maximum=599)

FAULTS: dict[str, Fault] = {
    "ok": Fault(content.ok, "no misbehaviour", is_answered=True),
    # Slow, cut, without end
    "slow_first": Fault(
        transport.slow_first,
        "nothing at all for some seconds, then the answer",
        (Argument("seconds", 5.0),),
        is_answered=True,
    ),
    "drip": Fault(
        transport.drip,
        "the body at that many bytes per second (the head at once)",
        (Argument("bytes_per_second", 100, minimum=1, maximum=10**9),),
        is_answered=True,
    ),
    "stall_after": Fault(
        transport.stall_after, "after n events nothing more; the connection stays", (EVENTS,)
    ),
    "cut_after": Fault(
        transport.cut_after, "after n events FIN, without the last chunk", (EVENTS,)
    ),
    "rst_after": Fault(transport.rst_after, "after n events RST (SO_LINGER 0)", (EVENTS,)),
    "half_close": Fault(
        transport.half_close, "after n events FIN from us, but we go on reading", (EVENTS,)
    ),
    "cut_in_char": Fault(
        transport.cut_in_char,
        "third event ends inside a two-byte character; then FIN, or a clean end if `clean`",
        (ENDING,),
    ),
    "cut_in_line": Fault(
        transport.cut_in_line, "the same inside the line of the third event", (ENDING,)
    ),
    "cut_in_usage": Fault(
        force_usage(transport.cut_in_usage),
        "the same inside the usage object (sent even if unasked)",
        (ENDING,),
    ),
    "never_end": Fault(transport.never_end, "content for ever, as fast as it is read"),
    "late_after_done": Fault(
        transport.late_after_done,
        "after its end the stream stays open, then one more content event and a clean end",
        (Argument("milliseconds", 200, maximum=600_000),),
        is_answered=True,
    ),
    # Framing and packing
    "huge_line": Fault(transport.huge_line, "one event of that many bytes", (HUGE,), True),
    "big_body": Fault(transport.big_body, "a JSON body of that many bytes", (HUGE,), True),
    "tiny_chunks": Fault(transport.tiny_chunks, "each byte a chunk of its own", is_answered=True),
    "gzip_bomb": Fault(
        transport.gzip_bomb,
        "gzip that unpacks to that many bytes, about 1000 : 1",
        (Argument("bytes", 64 * MEBIBYTE, maximum=BYTES_MAX),),
        is_answered=True,
    ),
    "gzip_unasked": Fault(
        transport.gzip_unasked, "gzip whatever the client accepts", is_answered=True
    ),
    "100_continue": Fault(
        transport.continue_unasked,
        "an unasked 100 Continue and 103 Early Hints before the answer",
        is_answered=True,
    ),
    "te_cl_conflict": Fault(
        transport.te_cl_conflict, "chunked, and a content-length of 10 that is wrong"
    ),
    # Statuses and bodies
    "status": Fault(
        content.status,
        "that status in the dialect's shape, optionally with OpenAI's error code: status(429) "
        "says when to come again, status(401) shows the whole key, "
        "status(429,insufficient_quota), status(400,context_length_exceeded)",
        (CODE, Argument("error_code", "")),
    ),
    "flaky": Fault(
        content.flaky,
        "500 for the first n calls of this very model name, then answers",
        (Argument("calls", 1),),
        is_answered=True,
    ),
    "echo_headers": Fault(
        content.echo_headers, "500 whose message repeats all request headers, Authorization too"
    ),
    "html": Fault(
        content.html,
        "a proxy's HTML page with that status",
        (Argument("code", 200, minimum=200, maximum=599),),
    ),
    "garbage": Fault(content.garbage, "200 with bytes that are neither JSON nor events"),
    "json_for_stream": Fault(
        content.json_for_stream, "the JSON answer although a stream was asked for", is_answered=True
    ),
    "wrong_shape": Fault(content.wrong_shape, "200 with JSON that is no answer"),
    "redirect": Fault(
        content.redirect, "302 to that URL", (Argument("url", "http://127.0.0.1:1/elsewhere"),)
    ),
    "set_cookie": Fault(
        content.set_cookie,
        "an answer with Set-Cookie, Location, Server, Via, openai-organization, cf-ray and others",
        is_answered=True,
    ),
    "dup_id": Fault(content.dup_id, "the same id in every answer", is_answered=True),
    "bad_utf8": Fault(
        content.bad_utf8, "bytes in the content that are not UTF-8", is_answered=True
    ),
    # Usage
    "no_usage": Fault(content.no_usage, "no usage, even if asked", is_answered=True),
    "bad_usage": Fault(
        content.bad_usage,
        "usage, even if unasked, with this instead of its counts (or of the named one): -600, "
        '"2147483647" or string, 9223372036854775807, 1.5, NaN, null, true, object, missing, '
        "any other JSON value",
        (Argument("value", "-600"), Argument("field", "")),
        is_answered=True,
    ),
    "inflated_usage": Fault(
        content.inflated_usage,
        "usage, even if unasked, with this many times the output that was written",
        (Argument("times", 100, minimum=1),),
        is_answered=True,
    ),
    "usage_twice": Fault(
        content.usage_twice,
        "a stream that tells its usage twice: half the output, then all of it",
        is_answered=True,
    ),
    "usage_after_finish": Fault(
        content.usage_after_finish,
        "usage in an event of its own after the finish, or after the end if `done`",
        (Argument("where", "choice", choices=("choice", "done")),),
        is_answered=True,
    ),
    # Events
    "err_event_first": Fault(
        content.err_event_first, "200 whose first event is an error; then a clean end"
    ),
    "err_event_mid": Fault(
        content.err_event_mid, "after n events an error event; then a clean end", (EVENTS,)
    ),
    "unknown_event": Fault(
        content.unknown_event,
        "after n events one of a kind that nobody knows, then the rest",
        (Argument("events", 2, minimum=1),),
        is_answered=True,
    ),
    "end_twice": Fault(content.end_twice, "the end of the stream stands twice", is_answered=True),
    "no_done": Fault(content.no_done, "everything but the end; the connection ends cleanly"),
    "no_finish": Fault(
        content.no_finish, "after n events a clean end: no reason of the finish, no end", (EVENTS,)
    ),
}


def start_script(scene: Scene) -> Script:
    """Return what the call's answer does. Raises OptionError."""
    options = scene.options
    fault = get_fault(options)
    values = [argument.default for argument in fault.arguments]
    for at, (argument, text) in enumerate(
        zip(fault.arguments, options.fault_arguments, strict=False)
    ):
        values[at] = argument.parse(text)
    return fault.play(scene, *values)


def get_fault(options: Options) -> Fault:
    """Return the fault asked for. Raises OptionError."""
    fault = FAULTS.get(options.fault)
    if fault is None:
        raise OptionError(f"unknown fault {options.fault!r}; known are {', '.join(FAULTS)}")
    if len(options.fault_arguments) > len(fault.arguments):
        raise OptionError(f"too many arguments: write {fault.signature(options.fault)}")
    return fault


def describe() -> str:
    """Return the options and faults as text for `--help` and `GET /`."""
    lines = [
        "Dialects:",
        *(f"  {addresses:<58} {name}" for name, addresses in DIALECTS.items()),
        "",
        "Any model name is answered. Options follow a colon:",
        "  demo-chat:latency=0.2,tokens=50,fault=cut_after(3)",
        "",
        "Options (defaults in brackets):",
        *(f"  {name:<14} {says}" for name, says in OPTIONS.items()),
        "",
        "Faults (defaults of their arguments in brackets):",
    ]
    for name, fault in FAULTS.items():
        defaults = ", ".join(str(argument.default) for argument in fault.arguments)
        ending = f" ({defaults.rstrip(', ')})" if defaults else ""
        lines.append(f"  {fault.signature(name):<30} {fault.says}{ending}")
    return "\n".join(lines) + "\n"
