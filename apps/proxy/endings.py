"""The ways in which a call can end. Values only."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from apps.core.errors import GatewayError
from apps.core.usage import Usage

NO_USAGE: Final = Usage()
Reason = Literal["client", "timeout", "limit", "drain"]


class Ending(NamedTuple):
    """How a call ended, for its row."""

    state: str
    status_code: int
    error_code: str = ""
    usage: Usage = NO_USAGE
    finish_reason: str = ""
    error: GatewayError | None = None  # what the client is answered instead of an answer
    is_whole: bool = False  # all of an answer has come, whoever it was read for


class Interrupted(Exception):
    """The call was ended from outside, for `reason`."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason: Final = reason


class AttemptFailed(Exception):
    """An attempt failed before the client saw anything of it."""

    def __init__(self, error: GatewayError, status_code: int | None = None, text: str = "") -> None:
        super().__init__(error.code)
        self.error: Final = error
        self.status_code: Final = status_code
        self.text: Final = text
