from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator

import psutil
import pytest
import pytest_asyncio

from apps.proxy import counter as module
from apps.proxy.counter import TokenCounter


@pytest_asyncio.fixture
async def counter(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[TokenCounter]:
    monkeypatch.setattr(module, "COUNT_SECONDS", 60.0)
    counter = TokenCounter()
    yield counter
    await counter.stop()


def tokenizers() -> list[psutil.Process]:
    """Return the processes that count for this one."""
    return [
        child
        for child in psutil.Process().children()
        if child.status() != psutil.STATUS_ZOMBIE and "apps.proxy.tokenizer" in child.cmdline()
    ]


async def test_groups_of_texts_are_counted_by_one_process_that_starts_when_it_is_asked(
    counter: TokenCounter,
) -> None:
    before = tokenizers()

    first = await counter.count("o200k_base", [["hello world", "好"], []])
    others = await asyncio.gather(
        *(counter.count("cl100k_base", [["a\n" * number]]) for number in range(1, 4))
    )

    assert (before, first, others) == ([], [3, 0], [[2], [4], [6]])
    assert len(tokenizers()) == 1


async def test_a_late_answer_is_not_waited_for_and_not_taken_for_the_next_one(
    counter: TokenCounter, monkeypatch: pytest.MonkeyPatch
) -> None:
    await counter.count("cl100k_base", [["warm"]])
    (process,) = tokenizers()
    monkeypatch.setattr(module, "COUNT_SECONDS", 0.2)
    process.suspend()

    late = await counter.count("cl100k_base", [["one two three four"]])

    process.resume()
    monkeypatch.setattr(module, "COUNT_SECONDS", 60.0)
    assert late is None
    assert await counter.count("cl100k_base", [["one two"]]) == [2]
    assert tokenizers() == [process]


async def test_a_process_that_stays_silent_is_ended_and_not_started_again_at_once(
    counter: TokenCounter, monkeypatch: pytest.MonkeyPatch
) -> None:
    await counter.count("cl100k_base", [["warm"]])
    (process,) = tokenizers()
    process.suspend()
    monkeypatch.setattr(module, "COUNT_SECONDS", 0.1)
    monkeypatch.setattr(module, "_SILENT_SECONDS", 0.0)
    monkeypatch.setattr(module, "_PAUSE_SECONDS", 0.5)

    answers = [await counter.count("cl100k_base", [["a"]]) for _ in range(2)]
    process.wait(10)
    during = tokenizers()

    await asyncio.sleep(0.5)
    monkeypatch.setattr(module, "COUNT_SECONDS", 60.0)
    monkeypatch.setattr(module, "_SILENT_SECONDS", 60.0)
    assert (answers, during) == ([None, None], [])
    assert await counter.count("cl100k_base", [["a"]]) == [1]


async def test_a_process_that_had_nothing_to_do_is_not_taken_for_silent(
    counter: TokenCounter, monkeypatch: pytest.MonkeyPatch
) -> None:
    await counter.count("cl100k_base", [["warm"]])
    (process,) = tokenizers()
    monkeypatch.setattr(module, "_SILENT_SECONDS", 0.3)
    await asyncio.sleep(0.4)
    process.suspend()
    monkeypatch.setattr(module, "COUNT_SECONDS", 0.1)

    late = await counter.count("cl100k_base", [["a"]])

    process.resume()
    monkeypatch.setattr(module, "COUNT_SECONDS", 60.0)
    assert late is None
    assert await counter.count("cl100k_base", [["a"]]) == [1]
    assert tokenizers() == [process]


@pytest.mark.parametrize("encoding", ["cl100k_base", "none"])
async def test_a_process_that_dies_answers_nothing_and_is_started_again_after_a_pause(
    counter: TokenCounter, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    await counter.count("cl100k_base", [["warm"]])
    (process,) = tokenizers()
    if encoding == "cl100k_base":
        process.suspend()
        asyncio.get_running_loop().call_later(0.1, process.kill)
    monkeypatch.setattr(module, "_PAUSE_SECONDS", 0.0)

    # An unknown encoding ends the process.
    answer = await counter.count(encoding, [["a"]])

    assert answer is None
    assert await counter.count("cl100k_base", [["a"]]) == [1]
    assert tokenizers() != [process]


async def test_a_process_that_cannot_be_started_answers_nothing(
    counter: TokenCounter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")

    assert await counter.count("cl100k_base", [["a"]]) is None


async def test_no_more_than_a_hundred_wait(
    counter: TokenCounter, monkeypatch: pytest.MonkeyPatch
) -> None:
    await counter.count("cl100k_base", [["warm"]])
    (process,) = tokenizers()
    process.suspend()
    waiting = [asyncio.create_task(counter.count("cl100k_base", [["a"]])) for _ in range(100)]
    await asyncio.sleep(0)

    refused = await counter.count("cl100k_base", [["a"]])

    process.resume()
    assert refused is None
    assert await asyncio.gather(*waiting) == [[1]] * 100


async def test_a_counter_that_was_stopped_leaves_no_process_and_answers_nothing(
    counter: TokenCounter,
) -> None:
    await counter.count("cl100k_base", [["warm"]])

    await counter.stop()

    assert tokenizers() == []
    assert await counter.count("cl100k_base", [["a"]]) is None
    assert tokenizers() == []
