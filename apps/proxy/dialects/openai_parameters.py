"""What Chat Completions and Responses ask for alike: by the same names, with the same rules."""

import hashlib
from typing import Final

from apps.proxy.dialects.neutral import ToolChoice, Verbosity
from apps.proxy.dialects.openai_refusals import wrong_value
from apps.proxy.dialects.parameters import Parameters

# Each of these is a wish about caching that no answer depends on.
CACHE_HINTS: Final = ("prompt_cache_key", "prompt_cache_retention")
_CHOICE_MODES: Final[dict[str, ToolChoice]] = {
    "auto": ToolChoice("auto"),
    "none": ToolChoice("none"),
    "required": ToolChoice("any"),
}
_VERBOSITIES: Final[dict[str, Verbosity | None]] = {"low": "low", "medium": None, "high": "high"}


def read_choice_mode(mode: str) -> ToolChoice:
    """Return whether tools are called, where no tool is named. Raises E13."""
    if mode not in _CHOICE_MODES:
        raise wrong_value("tool_choice", f"one of {', '.join(_CHOICE_MODES)}")
    return _CHOICE_MODES[mode]


def read_user(given: Parameters) -> tuple[str, str]:
    """Return who the client's user is, and by which of two names that is told."""
    old, new = given.text("user"), given.text("safety_identifier")
    if old and new and old != new:
        raise given.refuse("safety_identifier")
    return (old, "user") if old else (new or "", "safety_identifier")


def is_standard_tier(given: Parameters) -> bool | None:
    """Return whether no other tier than the usual one is allowed; another one is refused."""
    tier = given.text("service_tier")
    if tier not in (None, "auto", "default"):
        raise given.refuse("service_tier")
    return True if tier == "default" else None


def read_verbosity(given: Parameters) -> Verbosity | None:
    """Return how much is to be said, None for the usual."""
    name = given.one_of("verbosity", _VERBOSITIES)
    return None if name is None else _VERBOSITIES[name]


def short_name(name: str, length_max: int) -> str:
    """Return a name, or a digest of one that is too long: the same for the same one."""
    if len(name) <= length_max:
        return name
    return hashlib.sha256(name.encode()).hexdigest()[:length_max]
