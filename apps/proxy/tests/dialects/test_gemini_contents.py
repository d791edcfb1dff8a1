"""Contents that Google's SDKs kept of a stream, as they give them back."""

from typing import Any

import pytest

from apps.core.errors import GatewayError
from apps.proxy.dialects.conversion import PIECES_MAX, read_bounded
from apps.proxy.dialects.neutral import Text, Thinking, ToolUse


def test_a_stream_that_a_google_sdk_gives_back_event_by_event_is_one_text() -> None:
    def model(**part: Any) -> dict[str, Any]:
        return {"role": "model", "parts": [part]}

    hello = {"role": "user", "parts": [{"text": "Hi"}]}
    call = model(functionCall={"id": "1", "name": "now"})
    answer = {"functionResponse": {"id": "1", "name": "now", "response": {"output": "12:00"}}}
    contents = [
        hello,
        *([model(text="h", thought=True)] * PIECES_MAX),
        *([model(text="w ")] * PIECES_MAX),
        call,
        model(text=""),
        {"role": "user", "parts": [answer]},
        {"role": "user", "parts": [{"text": "Go"}]},
        {"role": "user", "parts": [{"text": "on."}]},
    ]

    turns = read_bounded("gemini", {"model": "m", "contents": contents}).turns

    end = 2 * PIECES_MAX + 1
    assert turns[1].parts == (
        Thinking("h" * PIECES_MAX, at="contents[1].parts[0]"),
        Text("w " * PIECES_MAX, at=f"contents[{PIECES_MAX + 1}].parts[0]"),
        ToolUse("1", "now", "{}", at=f"contents[{end}].parts[0].functionCall"),
    )
    assert [part.at for part in turns[2].parts] == [
        f"contents[{end + 2}].parts[0].functionResponse",
        f"contents[{end + 3}].parts[0]",
        f"contents[{end + 4}].parts[0]",
    ]


def test_a_broken_content_among_those_of_a_stream_is_refused_by_its_place() -> None:
    piece = {"role": "model", "parts": [{"text": "a"}]}
    for broken, param in (
        (1, "contents[3]"),
        ({"role": "model", "parts": [{"text": 1}]}, "contents[3].parts[0].text"),
        ({"role": "model", "parts": 1}, "contents[3].parts"),
        ({"role": "model", "parts": [{"text": "a", "other": 1}]}, "contents[3].parts[0].other"),
    ):
        contents = [{"parts": [{"text": "Hi"}]}, piece, piece, broken, piece]

        with pytest.raises(GatewayError) as refusal:
            read_bounded("gemini", {"model": "m", "contents": contents})

        assert refusal.value.param == param
