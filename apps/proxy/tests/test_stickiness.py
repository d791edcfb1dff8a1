"""Calls of one conversation have one key, and a key has one place while that is there."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from apps.proxy.dialects import surfaces
from apps.proxy.dialects.openai_request import parse_request
from apps.proxy.dialects.parsed_request import Endpoint
from apps.proxy.stickiness import find_sticky_key, rank_by_key

SYSTEM = {"role": "system", "content": "You are terse."}
FIRST = {"role": "user", "content": "Hello?"}
REPLY = {"role": "assistant", "content": "Yes."}
NEXT = {"role": "user", "content": "Well."}


def key_of(
    *messages: Any, headers: dict[bytes, bytes] | None = None, user_id: int = 1, **values: Any
) -> bytes | None:
    body = {"model": "m", "messages": list(messages) or [FIRST], **values}
    return find_sticky_key(headers or {}, parse_request("chat/completions", body), user_id=user_id)


def test_all_turns_of_a_conversation_have_one_key() -> None:
    assert key_of(SYSTEM, FIRST) == key_of(SYSTEM, FIRST, REPLY, NEXT)


def test_conversations_that_begin_otherwise_have_another_key() -> None:
    keys = {key_of(SYSTEM, FIRST), key_of(FIRST), key_of(SYSTEM, NEXT)}

    assert len(keys) == 3


def test_two_users_never_share_a_key() -> None:
    headers = {b"x-session-id": b"s"}

    assert key_of(FIRST, user_id=1) != key_of(FIRST, user_id=2)
    assert key_of(headers=headers, user_id=1) != key_of(headers=headers, user_id=2)


@pytest.mark.parametrize("name", [b"x-session-id", b"session-id", b"session_id"])
def test_a_header_names_a_conversation_whatever_it_says(name: bytes) -> None:
    headers = {name: b"one"}

    assert key_of(FIRST, headers=headers) == key_of(NEXT, headers=headers, user="somebody")
    assert key_of(FIRST, headers=headers) != key_of(FIRST, headers={name: b"two"})


def test_a_name_of_the_user_counts_after_what_names_the_conversation() -> None:
    def of(message: Any, user_id: str, **values: Any) -> bytes | None:
        return key_of(message, metadata={"user_id": user_id}, **values)

    assert of(FIRST, "u") == of(NEXT, "u")
    assert of(FIRST, "u", prompt_cache_key="one") != of(FIRST, "u", prompt_cache_key="two")
    assert of(FIRST, "u", prompt_cache_key="one") == of(NEXT, "v", prompt_cache_key="one")


@pytest.mark.parametrize("name", ["prompt_cache_key", "session_id", "user"])
def test_so_does_a_parameter(name: str) -> None:
    def of(message: Any, value: str) -> bytes | None:
        values: dict[str, Any] = {name: value}
        return key_of(message, **values)

    assert of(FIRST, "one") == of(NEXT, "one")
    assert of(FIRST, "one") != of(FIRST, "two")


def test_the_cache_key_counts_before_the_user() -> None:
    assert key_of(prompt_cache_key="c", user="u") == key_of(prompt_cache_key="c", user="v")


@pytest.mark.parametrize("value", [5, None, "", ["x"]])
def test_a_parameter_that_is_no_name_counts_for_nothing(value: Any) -> None:
    assert key_of(FIRST, user=value) == key_of(FIRST)


def test_a_prompt_is_its_own_beginning() -> None:
    def of(prompt: str) -> bytes | None:
        body = {"model": "m", "prompt": prompt}
        return find_sticky_key({}, parse_request("completions", body), user_id=1)

    assert of("a") == of("a")
    assert of("a") != of("b")


def test_turns_of_responses_have_one_key_by_how_they_begin() -> None:
    def of(*items: Any, **values: Any) -> bytes | None:
        body = {"model": "m", "input": list(items), **values}
        request = surfaces.parse_request("responses", "openai-responses", body)
        return find_sticky_key({}, request, user_id=1)

    assert of(SYSTEM, FIRST) == of(SYSTEM, FIRST, REPLY, NEXT)
    assert len({of(FIRST), of(NEXT), of(FIRST, instructions="Be brief."), of(SYSTEM, FIRST)}) == 4
    assert of(FIRST, prompt_cache_key="k") == of(NEXT, prompt_cache_key="k")


def test_turns_of_geminis_have_one_key_by_how_they_begin() -> None:
    def of(*contents: Any) -> bytes | None:
        body = {"contents": list(contents), "model": "m"}
        request = surfaces.parse_request("generateContent", "gemini", body)
        return find_sticky_key({}, request, user_id=1)

    first, later = ({"role": "user", "parts": [{"text": text}]} for text in ("Hello?", "Well."))
    assert of(first) == of(first, {"role": "model", "parts": [{"text": "Yes."}]}, later)
    assert of(first) != of(later)


@pytest.mark.parametrize(
    ("endpoint", "body"),
    [("embeddings", {"input": "x"}), ("moderations", {"input": "x"})],
)
def test_what_only_reads_has_no_key(endpoint: Endpoint, body: dict[str, Any]) -> None:
    request = parse_request(endpoint, {"model": "m", **body})

    assert find_sticky_key({b"x-session-id": b"s"}, request, user_id=1) is None


def first_of(key: bytes, weights: dict[int, int]) -> int:
    return min(weights, key=lambda number: rank_by_key(key, number, weights[number]))


def each_key(count: int) -> list[bytes]:
    return [b"%016d" % number for number in range(count)]


def test_keys_are_shared_by_weight() -> None:
    shares = Counter(first_of(key, {1: 3, 2: 1}) for key in each_key(4_000))

    assert 2_850 < shares[1] < 3_150


def test_when_one_goes_only_its_own_keys_move() -> None:
    keys = each_key(1_000)
    before = {key: first_of(key, {1: 1, 2: 1, 3: 1}) for key in keys}

    after = {key: first_of(key, {1: 1, 3: 1}) for key in keys}

    moved = {key for key in keys if before[key] != after[key]}
    assert moved == {key for key in keys if before[key] == 2}


def test_what_has_no_weight_comes_last_and_still_has_an_order() -> None:
    shares = Counter(first_of(key, {1: 0, 2: 0}) for key in each_key(200))

    assert all(first_of(key, {1: 0, 2: 1}) == 2 for key in each_key(200))
    assert min(shares.values()) > 60
