"""A count by a real tokenizer in the place of a cheap estimate, where a call ended without usage.

Only settlements that can wait come here; checkpoints and interrupted tasks keep the cheap estimate.
So does whatever fails: a usage is never lost for the sake of a better one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from apps.core.usage import Usage
from apps.proxy.admission import Plan
from apps.proxy.counter import TokenCounter
from apps.proxy.dialects.metered_answer import MeteredAnswer
from apps.proxy.dialects.stream_meter import StreamMeter
from apps.proxy.estimate import (
    Excerpt,
    estimate_quarters,
    excerpt,
    tokens_of_quarters,
    within,
)
from apps.proxy.families import UNKNOWN, Family, find_family
from apps.proxy.prompts import Prompt, read_prompt
from apps.proxy.snapshot import Route

# What of an input, of an output and of thoughts goes to the tokenizer; the rest is taken to be like
# it.
TEXT_CHARACTERS_MAX: Final = 1 << 20

logger = logging.getLogger(__name__)


async def recount(
    usage: Usage,
    said: StreamMeter | MeteredAnswer | None,
    *,
    plan: Plan,
    route: Route | None,
    counter: TokenCounter,
) -> Usage:
    """Return an estimated usage with its tokens counted, or as it is where that fails."""
    try:
        excerpts = said.excerpts() if said is not None else []
        # In a thread: a body may hold megabytes of text, and hundreds of images.
        question = await asyncio.to_thread(_ask, plan, route, excerpts)
        portions = (question.input, question.output, question.thoughts)
        counts = await counter.count(question.family.encoding, [part.texts for part in portions])
        if counts is None:
            return usage
        told = said.usage if said is not None else None
        return await asyncio.to_thread(_answer, question, counts, usage, told, plan.input_bound)
    except Exception:  # logged; no estimate may keep a settlement: it goes on with the cheap one
        logger.exception("the tokens of a call cannot be counted")
        return usage


async def count_input(plan: Plan, counter: TokenCounter) -> Usage:
    """Return what a model is expected to read of a request; a cheap estimate where its tokens
    cannot be counted.
    """
    question = await asyncio.to_thread(_ask, plan, plan.routes[0] if plan.routes else None, [])
    counts = await counter.count(question.family.encoding, (question.input.texts, ()))
    if counts is None:
        return _read(question, tokens_of_quarters(question.input.quarters))
    return _read(question, question.input.tokens(question.family, counts[0]))


class Portion(NamedTuple):
    """What is counted of some texts. Sizes are in quarters of a token."""

    texts: list[str]
    counted_quarters: int
    quarters: int  # of all of them

    def tokens(self, family: Family, count: int) -> int:
        """Return the tokens of all of the texts, of which these are `count`."""
        tokens = family.tokens(count, self.texts)
        if self.quarters <= self.counted_quarters or not self.counted_quarters:
            return tokens
        return -(-tokens * self.quarters // self.counted_quarters)


def portion(excerpts: Iterable[Excerpt]) -> Portion:
    """Return what is counted of these texts, up to TEXT_CHARACTERS_MAX."""
    texts: list[str] = []
    room, counted, quarters = TEXT_CHARACTERS_MAX, 0, 0
    for text, size, _ in excerpts:
        quarters += size
        if room and text:
            piece = text[:room]
            room -= len(piece)
            counted += estimate_quarters(piece)
            texts.append(piece)
    return Portion(texts, counted, quarters)


def _measure(texts: Iterable[str]) -> Iterator[Excerpt]:
    """Yield texts with their sizes; one that is read again and again is measured once."""
    measured = Excerpt("", 0)
    for text in texts:
        if text is not measured.text:
            measured = excerpt(text)
        yield measured


class _Question(NamedTuple):
    family: Family
    prompt: Prompt
    input: Portion
    output: Portion
    thoughts: Portion


def _ask(plan: Plan, route: Route | None, excerpts: list[Excerpt]) -> _Question:
    names = [plan.model.name]
    if route is not None:
        names.insert(0, route.upstream_name)
    # An upstream name may be no more than that of a deployment.
    name = next((name for name in names if find_family(name) is not UNKNOWN), names[0])
    family = find_family(name)
    prompt = read_prompt(plan.request, family, name, plan.model.image_tokens_max)
    return _Question(
        family=family,
        prompt=prompt,
        input=portion(_measure(prompt.texts)),
        output=portion(part for part in excerpts if not part.is_thought),
        thoughts=portion(part for part in excerpts if part.is_thought),
    )


def _answer(
    question: _Question, counts: list[int], usage: Usage, told: Usage | None, input_bound: int
) -> Usage:
    family = question.family
    # A tool call without arguments has no text, and is at least one token.
    output = max(question.output.tokens(family, counts[1]), min(usage.output, 1))
    # What came sealed stays as it was estimated.
    sealed = max(usage.reasoning - tokens_of_quarters(question.thoughts.quarters), 0)
    thought = question.thoughts.tokens(family, counts[2]) + sealed
    if told is not None and told.input_tokens:
        # It came before the answer ended: what was read is known, what was written at least that.
        thought = max(thought, told.reasoning)
        output = max(output, told.output + told.reasoning - thought)
        return usage._replace(output=output, reasoning=thought)
    # Never above the bound of the hold.
    read = within(_read(question, question.input.tokens(family, counts[0])), input_bound)
    return usage._replace(
        input=read.input,
        image_in=read.image_in,
        audio_in=read.audio_in,
        output=output,
        reasoning=thought,
    )


def _read(question: _Question, text_tokens: int) -> Usage:
    """Return what is read with so many tokens of text."""
    prompt = question.prompt
    return Usage(
        input=prompt.tokens + text_tokens,
        image_in=prompt.image_tokens,
        audio_in=prompt.audio_tokens,
        source="estimated",
    )
