"""Answers that are kept until newer ones need their place."""

from __future__ import annotations

from apps.providers.demo.answers import Answer, Choice, Endpoint
from apps.providers.demo.dialects.choice import RESPONSES
from apps.providers.demo.stored import ANSWERS_MAX, StoredAnswers


def make_answer(tokens: int) -> Answer:
    return Answer(
        dialect=RESPONSES,
        endpoint=Endpoint.RESPONSES,
        model="m",
        is_stream=False,
        choice=Choice(("x",) * tokens, "stop"),
        choice_count=1,
        prompt_tokens=1,
        reasoning_tokens=0,
        usage=None,
        has_usage_event=False,
    )


def test_the_newest_thousand_answers_are_kept() -> None:
    stored = StoredAnswers()
    answer = make_answer(1)

    for number in range(ANSWERS_MAX + 1):
        stored.keep(str(number), answer)

    assert stored.find("0") is None
    assert stored.find("1") is answer
    assert stored.find("1000") is answer


def test_long_answers_leave_sooner() -> None:
    stored = StoredAnswers()

    for number in range(21):
        stored.keep(str(number), make_answer(100_000))

    assert [number for number in range(21) if stored.find(str(number)) is None] == [0]
