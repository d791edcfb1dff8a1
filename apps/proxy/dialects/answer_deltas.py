"""A whole answer as a stream, where a client asked for one and the provider gave none (E50)."""

from collections.abc import Iterator

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


def deltas_of(answer: Answer) -> Iterator[Delta]:
    """Yield the deltas of an answer, each part in one piece."""
    yield Start(answer.id, answer.model, answer.usage)
    for part in answer.parts:
        yield from _pieces(part)
        yield PartEnd()
    yield UsageReport(answer.usage)
    yield Stop(answer.stop, answer.stop_sequence)
    yield Done()


def _pieces(part: Part) -> Iterator[Delta]:
    match part:
        case Text():
            yield TextPiece(part.text)
        case Refusal():
            yield RefusalPiece(part.text)
        case Thinking():
            if part.redacted:
                yield RedactedThinking(part.redacted)
            else:
                yield ThinkingPiece(part.text, part.signature)
        case ToolUse():
            yield ToolStart(part.id, part.name)
            yield ArgumentsPiece(part.arguments)
        case _:
            raise ValueError(f"A model does not answer with {type(part).__name__}.")
