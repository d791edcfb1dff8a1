"""What is kept of answers, for whom and for how long."""

from __future__ import annotations

from dataclasses import replace

import pytest

from apps.core.usage import Usage
from apps.proxy.answer_cache import (
    ANSWER_BYTES_MAX,
    AnswerCache,
    CachedAnswer,
    fingerprint,
    seconds_for,
)
from apps.proxy.tests.values import MODEL, make_caller

KEY = make_caller().key
USAGE = Usage(input=3, output=2, source="reported")
BODY = {"model": "big", "messages": [{"role": "user", "content": "Hi"}]}


def _answer(body: bytes = b"{}", at: float = 100.0) -> CachedAnswer:
    return CachedAnswer(body, USAGE, "stop", at)


@pytest.mark.parametrize(
    ("key_seconds", "model_seconds", "seconds"),
    [(None, None, 0), (60, None, 0), (None, 60, 0), (60, 30, 30), (30, 60, 30)],
)
def test_an_answer_is_kept_as_long_as_model_and_key_both_say(
    key_seconds: int | None, model_seconds: int | None, seconds: int
) -> None:
    key = replace(KEY, cache_seconds=key_seconds)
    model = replace(MODEL, cache_seconds=model_seconds)

    assert seconds_for(key, model) == seconds


def test_an_answer_is_found_until_it_is_too_old() -> None:
    cache = AnswerCache()
    cache.keep(b"a", _answer())

    assert cache.find(b"a", 160.0, 60) == _answer()
    assert cache.find(b"a", 160.5, 60) is None
    assert cache.find(b"b", 100.0, 60) is None


def test_a_newer_answer_takes_the_place_of_an_older_one() -> None:
    cache = AnswerCache()
    cache.keep(b"a", _answer(b"old"))
    cache.keep(b"a", _answer(b"new", at=150.0))

    assert cache.find(b"a", 200.0, 60) == _answer(b"new", at=150.0)


def test_the_least_used_answer_goes_first_where_there_is_no_room() -> None:
    cache = AnswerCache(bytes_max=3 * (1024 + 10))
    for name in (b"a", b"b", b"c"):
        cache.keep(name, _answer(b"0123456789"))
    assert cache.find(b"a", 100.0, 60) is not None
    cache.keep(b"d", _answer(b"0123456789"))

    assert cache.find(b"b", 100.0, 60) is None
    assert all(cache.find(name, 100.0, 60) for name in (b"a", b"c", b"d"))


def test_room_is_given_back_by_what_is_replaced() -> None:
    cache = AnswerCache(bytes_max=2 * (1024 + 10))
    cache.keep(b"a", _answer(b"0123456789"))
    for _ in range(100):
        cache.keep(b"b", _answer(b"0123456789"))

    assert cache.find(b"a", 100.0, 60) is not None


def test_an_answer_that_is_too_long_is_not_kept() -> None:
    cache = AnswerCache()
    cache.keep(b"a", _answer(bytes(ANSWER_BYTES_MAX + 1)))
    cache.keep(b"b", _answer(bytes(ANSWER_BYTES_MAX)))

    assert cache.find(b"a", 100.0, 60) is None
    assert cache.find(b"b", 100.0, 60) is not None


def test_requests_that_differ_only_in_the_order_of_their_fields_are_one() -> None:
    same = {"messages": [{"content": "Hi", "role": "user"}], "model": "big"}

    assert fingerprint(KEY, MODEL, "chat/completions", BODY) == fingerprint(
        KEY, MODEL, "chat/completions", same
    )


@pytest.mark.parametrize(
    ("key_id", "model_id", "endpoint", "change"),
    [
        (8, 1, "chat/completions", {}),
        (1, 2, "chat/completions", {}),
        (1, 1, "completions", {}),
        (1, 1, "chat/completions", {"stream": True}),
        (1, 1, "chat/completions", {"messages": [{"role": "user", "content": "hi"}]}),
    ],
)
def test_another_key_model_endpoint_or_body_is_another_request(
    key_id: int, model_id: int, endpoint: str, change: dict[str, object]
) -> None:
    key, model = replace(KEY, id=1), replace(MODEL, id=1)
    first = fingerprint(key, model, "chat/completions", BODY)

    assert first != fingerprint(
        replace(key, id=key_id), replace(model, id=model_id), endpoint, BODY | change
    )


def test_the_headers_of_a_client_that_go_on_are_part_of_what_it_asked() -> None:
    beta = (("anthropic-beta", "files-api-2025-04-14"),)

    plain = fingerprint(KEY, MODEL, "messages", BODY)

    assert fingerprint(KEY, MODEL, "messages", BODY, ()) == plain
    assert fingerprint(KEY, MODEL, "messages", BODY, beta) != plain
