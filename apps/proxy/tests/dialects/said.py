"""What a stream says as a whole."""

from collections.abc import Iterable

from apps.core.usage import Usage
from apps.proxy.dialects.neutral import (
    Answer,
    ArgumentsPiece,
    Delta,
    Done,
    Part,
    PartEnd,
    RedactedThinking,
    Refusal,
    RefusalPiece,
    Start,
    Stop,
    Text,
    TextPiece,
    Thinking,
    ThinkingPiece,
    ToolStart,
    ToolUse,
    UsageReport,
)


def answer_of(deltas: Iterable[Delta]) -> Answer:
    """Return the answer that the deltas of a complete stream make up."""
    answer = Answer("", "", (), "end", Usage())
    part: Part | None = None
    is_done = False
    for delta in deltas:
        match delta:
            case Start():
                answer = answer._replace(id=delta.id, model=delta.model)
                answer = answer._replace(usage=delta.usage or answer.usage)
            case TextPiece():
                said = part.text if isinstance(part, Text) else ""
                part = Text(said + delta.text)
            case RefusalPiece():
                said = part.text if isinstance(part, Refusal) else ""
                part = Refusal(said + delta.text)
            case ThinkingPiece():
                thought = part if isinstance(part, Thinking) else Thinking()
                part = Thinking(thought.text + delta.text, thought.signature + delta.signature)
            case RedactedThinking():
                part = Thinking(redacted=delta.data)
            case ToolStart():
                part = ToolUse(delta.id, delta.name, "")
            case ArgumentsPiece():
                assert isinstance(part, ToolUse)
                part = part._replace(arguments=part.arguments + delta.text)
            case PartEnd():
                assert part is not None
                answer = answer._replace(parts=(*answer.parts, part))
                part = None
            case UsageReport():
                answer = answer._replace(usage=delta.usage)
            case Stop():
                answer = answer._replace(stop=delta.reason, stop_sequence=delta.sequence)
            case Done():
                is_done = True
            case _:
                raise AssertionError(delta)
    assert is_done
    assert part is None
    return answer
