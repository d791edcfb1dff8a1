"""Answers through each dialect and back, whole and as a stream cut anywhere."""

from base64 import b64encode
from collections.abc import Sequence
from itertools import pairwise

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.core.usage import Usage
from apps.proxy.dialects.answer_deltas import deltas_of
from apps.proxy.dialects.conversion import DIALECTS
from apps.proxy.dialects.neutral import (
    Answer,
    Delta,
    Image,
    Part,
    Text,
    Thinking,
)
from apps.proxy.sse import EventBuffer
from apps.proxy.tests.dialects.answer_kit import (
    answers,
    any_order,
    hidden,
    said,
    signed,
    texts,
    tool_uses,
    unsigned,
)
from apps.proxy.tests.dialects.golden_cells import REPLY
from apps.proxy.tests.dialects.said import answer_of


def is_told_apart(parts: Sequence[Part]) -> bool:
    """Return whether no two parts run into each other where a dialect has no ends of parts."""
    runs = [
        "text" if isinstance(part, Text) else "thought"
        for part in parts
        if isinstance(part, Text | Thinking)
    ]
    return len(runs) == len(set(runs))


# One text at most, between the thoughts and the calls: the order of a whole answer of OpenAI's.
one_order = answers(
    st.tuples(
        st.lists(signed | hidden, max_size=2) | st.lists(unsigned, max_size=1),
        st.lists(said, max_size=1),
        st.lists(tool_uses, max_size=3),
    ).map(lambda found: [*found[0], *found[1], *found[2]])
)
# A stream of OpenAI's keeps any order of different parts.
told_apart = answers(st.lists(said | unsigned | tool_uses, max_size=5).filter(is_told_apart))


def through_a_stream(dialect: str, answer: Answer, cuts: list[int]) -> Answer:
    raw = DIALECTS[dialect].stream_writer(REPLY).write(deltas_of(answer))
    edges = sorted({0, len(raw), *(cut % (len(raw) + 1) for cut in cuts)})
    buffer, reader = EventBuffer(), DIALECTS[dialect].stream_reader()
    deltas: list[Delta] = []
    for start, end in pairwise(edges):
        deltas += reader.read(buffer.feed(raw[start:end]))
    return answer_of(deltas + reader.end())


def through_a_document(dialect: str, answer: Answer) -> Answer:
    written = orjson.dumps(DIALECTS[dialect].write_answer(answer, REPLY))
    return DIALECTS[dialect].read_answer(orjson.loads(written))


@given(answer=any_order)
def test_an_answer_and_its_deltas_say_the_same(answer: Answer) -> None:
    assert answer_of(deltas_of(answer)) == answer


@given(answer=any_order, cuts=st.lists(st.integers(0, 10_000), max_size=6))
def test_an_answer_comes_back_through_anthropics_dialect(answer: Answer, cuts: list[int]) -> None:
    assert through_a_stream("anthropic", answer, cuts) == answer
    assert through_a_document("anthropic", answer) == answer


@given(answer=any_order, cuts=st.lists(st.integers(0, 10_000), max_size=6))
def test_an_answer_comes_back_through_responses(answer: Answer, cuts: list[int]) -> None:
    assert through_a_stream("openai-responses", answer, cuts) == answer
    assert through_a_document("openai-responses", answer) == answer


@given(answer=one_order, cuts=st.lists(st.integers(0, 10_000), max_size=6))
def test_an_answer_comes_back_through_openais_dialect(answer: Answer, cuts: list[int]) -> None:
    assert through_a_stream("openai", answer, cuts) == answer
    assert through_a_document("openai", answer) == answer


@given(answer=told_apart, cuts=st.lists(st.integers(0, 10_000), max_size=6))
def test_a_stream_of_openais_dialect_keeps_the_order(answer: Answer, cuts: list[int]) -> None:
    assert through_a_stream("openai", answer, cuts) == answer


# Signatures are base64 in Google's dialect, and its SDKs make sure of it.
encoded = st.binary(min_size=1, max_size=6).map(lambda raw: b64encode(raw).decode())
gemini_thought = st.tuples(texts, encoded).map(lambda found: Thinking(*found)) | encoded.map(
    lambda data: Thinking(redacted=data)
)
# A thought without a signature goes on in the next one.
gemini_order = answers(st.lists(said | gemini_thought | tool_uses, max_size=5))
gemini_told_apart = answers(
    st.lists(said | gemini_thought | unsigned | tool_uses, max_size=5).filter(is_told_apart)
)


@given(answer=gemini_order)
def test_an_answer_comes_back_through_geminis_dialect(answer: Answer) -> None:
    # What was written to a cache is a part of the prompt there.
    plain = answer._replace(usage=without_writes(answer.usage))

    assert through_a_document("gemini", answer) == plain


@given(answer=gemini_told_apart, cuts=st.lists(st.integers(0, 10_000), max_size=6))
def test_a_stream_of_geminis_dialect_keeps_the_order(answer: Answer, cuts: list[int]) -> None:
    plain = answer._replace(usage=without_writes(answer.usage))

    assert through_a_stream("gemini", answer, cuts) == plain


def without_writes(usage: Usage) -> Usage:
    written = usage.cache_write_5m + usage.cache_write_1h
    return usage._replace(cache_write_5m=0, cache_write_1h=0, input=usage.input + written)


@given(answer=one_order)
def test_an_answer_comes_back_through_both_dialects(answer: Answer) -> None:
    there = through_a_document("openai", through_a_stream("anthropic", answer, []))

    assert there == answer


def test_a_stop_sequence_is_told_where_the_dialect_can() -> None:
    answer = Answer("a-1", "m", (Text("Hi"),), "stop_sequence", Usage(input=1, output=1), "END")

    assert through_a_stream("anthropic", answer, []).stop_sequence == "END"
    assert through_a_document("openai", answer).stop == "end"


@pytest.mark.parametrize("dialect", list(DIALECTS))
def test_a_model_answers_with_nothing_that_only_clients_send(dialect: str) -> None:
    answer = Answer("a-1", "m", (Image(url="https://example.com/a.png"),), "end", Usage())

    with pytest.raises(ValueError, match="Image"):
        list(deltas_of(answer))
    with pytest.raises(ValueError, match="Image"):
        DIALECTS[dialect].write_answer(answer, REPLY)
