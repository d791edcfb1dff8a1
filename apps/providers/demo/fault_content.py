"""Faults of what is said: statuses, bodies, usage, events. `faults.py` lists them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import islice, takewhile
from typing import Any

import orjson

from apps.providers.demo.answers import ID_MARK, Spoiled, Usage
from apps.providers.demo.dialects.dialect import DemoDialect
from apps.providers.demo.errors import ProviderError, build_status_error
from apps.providers.demo.options import OptionError
from apps.providers.demo.rendering import render_response_head
from apps.providers.demo.script import (
    Scene,
    Script,
    Send,
    play_answer,
    play_json,
    play_stream,
)
from apps.providers.demo.wire import TYPE_JSON

HTML = (
    b"<!DOCTYPE html>\n<html><head><title>%d</title></head>"
    b"<body><center><h1>A proxy speaks</h1></center><hr><center>nginx</center></body></html>\n"
)
UNKNOWN = b'{"type":"demo.unknown","hello":"world"}'
DUPLICATE_ID = b"D" * len(ID_MARK)
FOREIGN_HEADERS = (
    ("set-cookie", "__cf_bm=demo-secret; path=/; HttpOnly; Secure"),
    ("set-cookie", "session=demo-session; path=/"),
    ("location", "http://internal.example/"),
    ("server", "demo-upstream/1.0"),
    ("via", "1.1 demo-cache"),
    ("openai-organization", "org-demo-secret"),
    ("openai-project", "proj_demo"),
    ("openai-version", "2020-10-01"),
    ("cf-ray", "8f0demo0000-AMS"),
    ("cf-cache-status", "DYNAMIC"),
    ("alt-svc", 'h3=":443"; ma=86400'),
    ("strict-transport-security", "max-age=31536000"),
    ("access-control-allow-origin", "https://evil.example"),
    ("x-powered-by", "demo"),
    ("x-ratelimit-remaining-requests", "4999"),
)
_USAGE_WORDS = {
    "string": '"2147483647"',
    "object": '{"value": 1}',
    "nan": "NaN",
}
_GARBAGE = bytes(range(256)) * 2


def ok(scene: Scene) -> Script:
    """Answer undisturbed."""
    return play_answer(scene)


def play_error(dialect: DemoDialect, response_id: str, error: ProviderError) -> Script:
    """Send a refusal as JSON."""
    mark = response_id.encode()
    body = dialect.render_error(error).replace(ID_MARK, mark)
    extra = dialect.list_error_headers(error)
    head = render_response_head(
        dialect, TYPE_JSON, length=len(body), status=error.status, extra=extra
    )
    yield Send(head.replace(ID_MARK, mark), status=error.status)
    yield Send(body)


def status(scene: Scene, code: int, error_code: str) -> Script:
    """Refuse with that status."""
    error = build_status_error(
        code,
        code=error_code or None,
        model=scene.answer.model,
        key=scene.key,
        retry_after=scene.options.retry_after,
    )
    return play_error(scene.dialect, scene.response_id, error)


def flaky(scene: Scene, count: int) -> Script:
    """Fail the first calls of this model name with 500."""
    if scene.model_calls <= count:
        return status(scene, 500, "")
    return play_answer(scene)


def echo_headers(scene: Scene) -> Script:
    """Refuse with 500 and repeat the request's headers."""
    received = "; ".join(f"{name}: {value}" for name, value in scene.request.headers.items())
    message = f"Unhandled exception while handling a request with headers {received}"
    error = ProviderError(500, message, type="server_error")
    return play_error(scene.dialect, scene.response_id, error)


def html(scene: Scene, code: int) -> Script:
    """Send a proxy's page."""
    return play_json(scene, HTML % code, status=code, content_type="text/html")


def garbage(scene: Scene) -> Script:
    """Send bytes that are neither JSON nor events."""
    kind = scene.dialect.stream_type if scene.answer.is_stream else TYPE_JSON
    return play_json(scene, b"OK\x00" + _GARBAGE, content_type=kind)


def json_for_stream(scene: Scene) -> Script:
    """Send the JSON answer although a stream was asked for."""
    return play_answer(replace(scene, answer=replace(scene.answer, is_stream=False)))


def wrong_shape(scene: Scene) -> Script:
    """Send JSON that is no answer."""
    if not scene.answer.is_stream:
        return play_json(scene, scene.dialect.wrong_body)
    return play_stream(scene, [*scene.dialect.render_wrong_events(), *scene.ends()])


def redirect(scene: Scene, url: str) -> Script:
    """Answer 302."""
    return play_json(scene, b"", status=302, extra=(("location", url),))


def set_cookie(scene: Scene) -> Script:
    """Answer with headers that belong to this hop only."""
    return play_answer(scene, extra=FOREIGN_HEADERS)


def dup_id(scene: Scene) -> Script:
    """Give every answer the same id."""
    return play_answer(replace(scene, response_id=DUPLICATE_ID.decode()))


def no_usage(scene: Scene) -> Script:
    """Never report usage."""
    return _play_with(scene, usage=None, has_usage_event=False, has_null_usage=False)


def bad_usage(scene: Scene, value: str, field: str) -> Script:
    """Report usage with an absurd value in one or all counts."""
    return _play_with(scene, usage=_spoil_usage(scene, value, field), has_usage_event=True)


def inflated_usage(scene: Scene, times: int) -> Script:
    """Report many times the output, in numbers that agree with each other."""
    usage = scene.answer.usage
    inflated = usage and replace(usage, output=usage.output * times)
    return _play_with(scene, usage=inflated, has_usage_event=True)


def _spoil_usage(scene: Scene, value: str, field: str) -> Usage | None:
    usage = scene.answer.usage
    counts = {} if usage is None else scene.dialect.tell_usage(scene.answer, usage)
    names = [name for name, count in counts.items() if isinstance(count, int)]
    if field and field not in names:
        raise OptionError(f"usage has no count {field!r}; it has {', '.join(names)}")
    literal = None if value == "missing" else _USAGE_WORDS.get(value.lower(), value)
    if literal not in (None, "NaN"):
        try:
            orjson.loads(literal)
        except orjson.JSONDecodeError as error:
            raise OptionError(f"bad_usage takes a JSON value, not {value!r}") from error
    spoiled = Spoiled(None if literal is None else literal.encode(), field)
    return usage and replace(usage, spoiled=spoiled)


def _play_with(scene: Scene, **changes: Any) -> Script:
    return play_answer(replace(scene, answer=replace(scene.answer, **changes)))


def _with_usage_event(scene: Scene) -> Scene:
    return replace(scene, answer=replace(scene.answer, has_usage_event=True))


def force_usage(play: Callable[..., Script]) -> Callable[..., Script]:
    """Return the fault with a usage event in its stream even if unasked."""

    def play_with_usage(scene: Scene, *arguments: Any) -> Script:
        return play(_with_usage_event(scene), *arguments)

    return play_with_usage


def usage_twice(scene: Scene) -> Script:
    """Report usage twice at the end of a stream: half the output first, then all of it."""
    usage = scene.answer.usage
    if not scene.answer.is_stream or usage is None:
        return play_answer(scene)
    events = _with_usage_event(scene).events()
    half = replace(usage, output=usage.output // 2, reasoning=0)
    early = scene.dialect.render_usage_event(scene.answer, half, is_late=False)
    at = max(number for number, event in enumerate(events) if event.has_usage)
    return play_stream(scene, [*events[:at], scene.owned(early), *events[at:]])


def usage_after_finish(scene: Scene, where: str) -> Script:
    """Report usage late: after the finish, or after the end of the stream."""
    usage = scene.answer.usage
    if not scene.answer.is_stream or usage is None:
        return play_answer(scene)
    events = replace(scene, answer=replace(scene.answer, has_usage_event=False)).events()
    late = scene.owned(scene.dialect.render_usage_event(scene.answer, usage, is_late=True))
    finish = max(number for number, event in enumerate(events) if event.is_finish)
    at = len(events) if where == "done" else finish + 1
    return play_stream(scene, [*events[:at], late, *events[at:]])


def _play_body(scene: Scene, body: bytes) -> Script:
    """Send a JSON body that has all tokens and the usage of the answer, in whatever form."""
    yield scene.head(TYPE_JSON, length=len(body))
    yield scene.send_body(body)


def err_event_first(scene: Scene) -> Script:
    """Send an error as the first event of a 200."""
    return err_event_mid(scene, 0)


def err_event_mid(scene: Scene, count: int) -> Script:
    """Send some events, then an error event, then end cleanly."""
    if not scene.answer.is_stream:
        return play_json(scene, scene.with_id(scene.dialect.render_overload()))
    before = scene.events()[:count]
    error = scene.dialect.render_error_event(scene.answer, is_first=not before)
    return play_stream(scene, [*before, scene.owned(error)])


def unknown_event(scene: Scene, count: int) -> Script:
    """Send an event of an unknown kind after some others, and the rest undisturbed."""
    if not scene.answer.is_stream:
        return play_answer(scene)
    events = scene.events()
    finish = next(number for number, event in enumerate(events) if event.is_finish)
    at = max(1, min(count, finish))
    unknown = scene.dialect.wrap(UNKNOWN, is_first=False)
    return play_stream(scene, [*events[:at], unknown, *events[at:]])


def end_twice(scene: Scene) -> Script:
    """Send what ends a stream once more."""
    if not scene.answer.is_stream:
        return play_answer(scene)
    return play_stream(scene, [*scene.events(), *scene.ends()])


def no_done(scene: Scene) -> Script:
    """Leave out what ends a stream."""
    if not scene.answer.is_stream:
        return play_answer(scene)
    return play_stream(scene, [event for event in scene.events() if not event.is_end])


def no_finish(scene: Scene, count: int) -> Script:
    """End cleanly after some events, with neither a reason for it nor an end of the stream."""
    answer = scene.answer
    if not answer.is_stream:
        endless = replace(answer, choice=replace(answer.choice, finish_reason=""))
        return _play_body(scene, replace(scene, answer=endless).body())
    events = takewhile(lambda event: not event.is_finish, scene.events())
    return play_stream(scene, islice(events, max(0, count)))


def bad_utf8(scene: Scene) -> Script:
    """Put bytes into the content that are not UTF-8."""
    marked = ("\u0001bad", *scene.answer.choice.pieces[1:])
    choice = replace(scene.answer.choice, pieces=marked)
    escaped, wrong = rb"\u0001bad", b"\xff\xfe\xc3("
    spoiled = replace(scene, answer=replace(scene.answer, choice=choice))
    if not scene.answer.is_stream:
        return _play_body(scene, spoiled.body().replace(escaped, wrong))
    events = spoiled.events()
    return play_stream(
        scene, [replace(event, data=event.data.replace(escaped, wrong)) for event in events]
    )
