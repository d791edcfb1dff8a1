"""Faults of what is said: statuses, bodies, usage, events. `faults.py` lists them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import orjson

from apps.providers.demo.answers import (
    DONE,
    ID_MARK,
    Answer,
    Endpoint,
    Event,
    render_body,
    render_event,
    render_events,
    render_response_head,
    render_usage,
    render_usage_event,
)
from apps.providers.demo.errors import ProviderError, build_status_error
from apps.providers.demo.options import OptionError
from apps.providers.demo.script import (
    Scene,
    Script,
    Send,
    play_answer,
    play_json,
    play_stream,
)
from apps.providers.demo.wire import TYPE_EVENTS, TYPE_JSON

HTML = (
    b"<!DOCTYPE html>\n<html><head><title>%d</title></head>"
    b"<body><center><h1>A proxy speaks</h1></center><hr><center>nginx</center></body></html>\n"
)
ERROR_EVENT = Event(
    b'data: {"error":{"message":"The server is overloaded. Please try again later.",'
    b'"type":"server_error","param":null,"code":"server_overloaded"}}\n\n'
)
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
_OUTPUT_COUNTS: Final = frozenset({"completion_tokens", "total_tokens"})
_USAGE_WORDS = {
    "string": '"2147483647"',
    "object": '{"value": 1}',
    "nan": "NaN",
}
_GARBAGE = bytes(range(256)) * 2


def ok(scene: Scene) -> Script:
    """Answer undisturbed."""
    return play_answer(scene)


def play_error(response_id: str, error: ProviderError) -> Script:
    """Send a refusal as JSON."""
    body = error.body
    head = render_response_head(
        TYPE_JSON, length=len(body), status=error.status, extra=error.headers
    )
    yield Send(head.replace(ID_MARK, response_id.encode()), status=error.status)
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
    return play_error(scene.response_id, error)


def flaky(scene: Scene, count: int) -> Script:
    """Fail the first calls of this model name with 500."""
    if scene.model_calls <= count:
        return status(scene, 500, "")
    return play_answer(scene)


def echo_headers(scene: Scene) -> Script:
    """Refuse with 500 and repeat the request's headers."""
    received = "; ".join(f"{name}: {value}" for name, value in scene.request.headers.items())
    message = f"Unhandled exception while handling a request with headers {received}"
    return play_error(scene.response_id, ProviderError(500, message, type="server_error"))


def html(scene: Scene, code: int) -> Script:
    """Send a proxy's page."""
    return play_json(scene, HTML % code, status=code, content_type="text/html")


def garbage(scene: Scene) -> Script:
    """Send bytes that are neither JSON nor events."""
    kind = TYPE_EVENTS if scene.answer.is_stream else TYPE_JSON
    return play_json(scene, b"OK\x00" + _GARBAGE, content_type=kind)


def json_for_stream(scene: Scene) -> Script:
    """Send the JSON answer although a stream was asked for."""
    return play_answer(replace(scene, answer=replace(scene.answer, is_stream=False)))


def wrong_shape(scene: Scene) -> Script:
    """Send JSON that is no answer."""
    if not scene.answer.is_stream:
        return play_json(scene, b'{"object":"list","data":"none","choices":{"0":null}}')
    texts = (b'{"hello":"world"}', b"[]", b"42", b'{"choices":{"0":null}}', b'{"choices":[null]}')
    events = [Event(b"data: " + text + b"\n\n") for text in texts]
    return play_stream(scene, [*events, DONE])


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
    return _play_with(scene, usage=_spoil_usage(scene.answer, value, field), has_usage_event=True)


def inflated_usage(scene: Scene, times: int) -> Script:
    """Report many times the output, in numbers that agree with each other."""
    usage: dict[str, Any] = orjson.loads(scene.answer.usage or b"{}")
    more = (times - 1) * usage.get("completion_tokens", 0)
    usage |= {name: usage[name] + more for name in _OUTPUT_COUNTS & usage.keys()}
    return _play_with(scene, usage=orjson.dumps(usage), has_usage_event=True)


def _spoil_usage(answer: Answer, value: str, field: str) -> bytes:
    usage: dict[str, Any] = orjson.loads(answer.usage or b"{}")
    counts = [name for name, count in usage.items() if isinstance(count, int)]
    if field and field not in counts:
        raise OptionError(f"usage has no count {field!r}; it has {', '.join(counts)}")
    chosen = [field] if field else counts
    if value == "missing":
        return orjson.dumps({name: part for name, part in usage.items() if name not in chosen})
    literal = _USAGE_WORDS.get(value.lower(), value)
    if literal != "NaN":
        try:
            orjson.loads(literal)
        except orjson.JSONDecodeError as error:
            raise OptionError(f"bad_usage takes a JSON value, not {value!r}") from error
    # A Fragment is written as it stands, so NaN and numbers of any size are possible.
    spoiled = {name: orjson.Fragment(literal.encode()) for name in chosen}
    return orjson.dumps({**usage, **spoiled})


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
    """Report usage twice in a stream: half the output first, then all of it."""
    answer = scene.answer
    if not answer.is_stream or answer.usage is None:
        return play_answer(scene)
    half = render_usage(answer.prompt_tokens, answer.cached_tokens, answer.output_tokens // 2, 0)
    twice = [render_usage_event(answer, half), render_usage_event(answer, answer.usage)]
    return play_stream(scene, [*_without_end(scene), *map(scene.owned, twice), DONE])


def usage_after_finish(scene: Scene, where: str) -> Script:
    """Report usage late: beside an empty choice after the finish, or after `[DONE]`."""
    answer = scene.answer
    if not answer.is_stream or answer.usage is None:
        return play_answer(scene)
    usage = scene.owned(render_event(answer, 0, {}, usage=answer.usage))
    tail = [DONE, usage] if where == "done" else [usage, DONE]
    return play_stream(scene, [*_without_end(scene), *tail])


def _play_body(scene: Scene, body: bytes) -> Script:
    """Send a JSON body that has all tokens and the usage of the answer, in whatever form."""
    yield scene.head(TYPE_JSON, length=len(body))
    yield scene.send_body(body)


def _without_end(scene: Scene) -> list[Event]:
    events = render_events(replace(scene.answer, has_usage_event=False))
    return [scene.owned(event) for event in events[:-1]]


def err_event_first(scene: Scene) -> Script:
    """Send an error as the first event of a 200."""
    return err_event_mid(scene, 0)


def err_event_mid(scene: Scene, count: int) -> Script:
    """Send some events, then an error event, then end cleanly."""
    if not scene.answer.is_stream:
        return play_json(scene, ERROR_EVENT.data.removeprefix(b"data: "))
    return play_stream(scene, [*scene.events()[:count], ERROR_EVENT])


def no_done(scene: Scene) -> Script:
    """Leave out `[DONE]`."""
    if not scene.answer.is_stream:
        return play_answer(scene)
    return play_stream(scene, scene.events()[:-1])


def no_finish(scene: Scene, count: int) -> Script:
    """End cleanly after some events, with neither finish_reason nor `[DONE]`."""
    answer = scene.answer
    if not answer.is_stream:
        body = render_body(replace(answer, choice=replace(answer.choice, finish_reason="")))
        body = body.replace(b'"finish_reason":""', b'"finish_reason":null')
        return _play_body(scene, scene.with_id(body))
    is_chat = answer.endpoint is Endpoint.CHAT
    openings = answer.choice_count if is_chat else 0
    content_end = openings + len(answer.choice.pieces) * answer.choice_count
    return play_stream(scene, scene.events()[: min(count, content_end)])


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
