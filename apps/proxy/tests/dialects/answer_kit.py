"""Answers made up, in the neutral form."""

from typing import Any, Final

import orjson
from hypothesis import strategies as st

from apps.core.usage import Usage
from apps.proxy.dialects.neutral import Answer, StopReason, Text, Thinking, ToolUse

texts = st.text(min_size=1, max_size=8)
names = st.from_regex(r"[a-zA-Z0-9_-]{1,12}", fullmatch=True)
arguments = st.dictionaries(names, st.integers(-9, 9) | texts, max_size=3).map(
    lambda told: orjson.dumps(told).decode()
)
# Not by st.builds(), which makes up every member of a named tuple.
said = texts.map(Text)
signed = st.tuples(texts, texts).map(lambda found: Thinking(found[0], found[1]))
hidden = texts.map(lambda data: Thinking(redacted=data))
unsigned = texts.map(Thinking)
tool_uses = st.tuples(names, names, arguments).map(lambda found: ToolUse(*found))
usages = st.builds(
    lambda counts: Usage(
        input=counts[0],
        cache_read=counts[1],
        cache_write_5m=counts[2],
        cache_write_1h=counts[3],
        output=counts[4],
        reasoning=counts[5],
        source="reported",
    ),
    st.lists(st.integers(0, 10_000), min_size=6, max_size=6),
)
STOPS: Final[tuple[StopReason, ...]] = ("end", "length", "refusal")


def answers(parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Answer]:
    """Return answers of such parts, with any end and usage."""
    return st.builds(
        lambda told, stop, usage: Answer(
            id="a-1",
            model="m",
            parts=tuple(told),
            stop="tool_use"
            if stop == "end" and any(isinstance(part, ToolUse) for part in told)
            else stop,
            usage=usage,
        ),
        parts,
        st.sampled_from(STOPS),
        usages,
    )


any_order = answers(st.lists(said | signed | hidden | unsigned | tool_uses, max_size=5))
