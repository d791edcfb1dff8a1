"""A maximum that a balance lowers, in bodies whose budget of thoughts was made for a higher one."""

from typing import Any

import orjson
import pytest

from apps.providers.hosting import BEDROCK_ANTHROPIC, VERTEX_ANTHROPIC, Hosting
from apps.proxy.dialects.conversion import DIALECTS
from apps.proxy.dialects.neutral import Target
from apps.proxy.dialects.providers import Sending, find_provider_dialect

HOSTINGS = pytest.mark.parametrize("hosting", [None, VERTEX_ANTHROPIC, BEDROCK_ANTHROPIC])


def sent(hosting: Hosting | None, cap: int | None, **asked: Any) -> dict[str, Any]:
    request = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], **asked}
    target = Target("up", output_cap=64_000, reasoning="budget")
    body = DIALECTS["anthropic"].write_request(DIALECTS["openai"].read_request(request), target)
    sending = Sending("up", is_stream=False, output_cap=cap, cap_parameter="max_tokens")
    told: dict[str, Any] = orjson.loads(
        find_provider_dialect("anthropic", hosting).body(body, sending)
    )
    return told


@HOSTINGS
@pytest.mark.parametrize(
    ("cap", "maximum", "budget"),
    [
        (None, 64_000, 32_768),
        (50_000, 50_000, 32_768),
        (5_000, 5_000, 4_000),
        (1_100, 1_100, 1_024),
    ],
)
def test_a_budget_shrinks_with_the_maximum(
    hosting: Hosting | None, cap: int | None, maximum: int, budget: int
) -> None:
    body = sent(hosting, cap, reasoning_effort="high")

    assert body["max_tokens"] == maximum
    assert body["thinking"] == {"type": "enabled", "budget_tokens": budget}


@HOSTINGS
def test_there_is_no_budget_where_the_maximum_leaves_no_room(hosting: Hosting | None) -> None:
    body = sent(hosting, 300, reasoning_effort="high")

    assert body["max_tokens"] == 300
    assert "thinking" not in body


@HOSTINGS
def test_what_does_not_think_stays_so(hosting: Hosting | None) -> None:
    body = sent(hosting, 300, reasoning_effort="none")

    assert (body["max_tokens"], body["thinking"]) == (300, {"type": "disabled"})
