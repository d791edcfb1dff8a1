"""Refusals of domain functions: each class fixes the status and code of its answer.

Classes are declared beside the function that raises them. Those that do not derive from
`DomainError` (pure modules, the ledger) carry the same three class attributes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar


class DomainError(Exception):
    """The domain said no. The message is for people and holds no secret."""

    status_code: ClassVar[int] = 400
    code: ClassVar[str] = "refused"
    message: ClassVar[str] = "This is not possible."

    def __init__(
        self,
        message: str = "",
        *,
        retry_after_seconds: int | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        """Take the class's message where none is given. `details` are shown beside it."""
        self.retry_after_seconds = retry_after_seconds
        self.details = details or {}
        super().__init__(message or self.message)


class Gone(DomainError):
    """What was to be changed was deleted meanwhile: the same answer as if it had never been."""

    status_code = 404
    code = "not_found"
    message = "Not found."


@dataclass(frozen=True, slots=True)
class ErrorAnswer:
    """What a domain error says to the outside."""

    status_code: int
    code: str
    message: str
    retry_after_seconds: int | None
    details: Mapping[str, Any] = field(default_factory=dict)


def find_error_answer(error: Exception) -> ErrorAnswer | None:
    """Return what `error` says to the outside, None for one that was not meant for it."""
    status_code = getattr(type(error), "status_code", None)
    code = getattr(type(error), "code", None)
    message = getattr(type(error), "message", None)
    if not (isinstance(status_code, int) and isinstance(code, str) and isinstance(message, str)):
        return None
    return ErrorAnswer(
        status_code=status_code,
        code=code,
        message=str(error) or message,
        retry_after_seconds=getattr(error, "retry_after_seconds", None),
        details=getattr(error, "details", {}),
    )
