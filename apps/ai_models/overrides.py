"""What a route changes of the requests that it sends: parameters of the body, and headers. Pure.

    {"parameters": {"set": {…}, "default": {…}, "remove": […], "rename": {"from": "to"}},
     "headers": {"set": {…}, "remove": […]},
     "conversion": {"reasoning": "none" | "effort" | "budget", "sampling": true | false | "one",
      "efforts": ["low", …], "extensions": […]}}

Parameters change in the order remove, rename, default, set. What decides what a call can cost was
fixed when it was admitted, and is no parameter that a route may touch. `conversion` says what the
model takes where a request is converted into its provider's dialect.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple

from apps.ai_models.capabilities import CapabilitiesRefused, check_capabilities
from apps.core.parameter_names import (
    FOLDED_PREFIXES,
    METERED,
    READ_AS_INPUT,
    REMOVED,
    UNSUPPORTED,
    fold_all,
    folded,
)
from apps.providers.headers import HEADERS_MAX, HeadersRefused, check_header_name, check_headers

PARAMETERS_MAX: Final = 50
_SHOWN_VALUE_LENGTH: Final = 40

REASONING_FORMS: Final = ("none", "effort", "budget")
EFFORT_NAMES: Final = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
_ONE: Final = "one"
_SAMPLING: Final[Mapping[object, Literal["none", "one", "any"]]] = {
    False: "none",
    _ONE: "one",
    True: "any",
}
# What some providers of a dialect take and others refuse; the writers of requests know them.
EXTENSION_NAMES: Final = (
    "cache_control",
    "reasoning_content",
    "system_turns",
    "top_k",
    "web_search",
)
_PARAMETER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}", re.ASCII)
# Read as input, or decide the model, how much it writes, what is billed by the piece, or by whom
# a request is answered. As `folded` spells them.
PROTECTED_PARAMETERS: Final = fold_all(METERED | READ_AS_INPUT | REMOVED | UNSUPPORTED)


class OverridesRefused(ValueError):
    """These overrides cannot be kept. The message is for people."""


class Parameters(NamedTuple):
    """Changes of a body."""

    set: Mapping[str, Any]
    default: Mapping[str, Any]
    remove: tuple[str, ...]
    rename: Mapping[str, str]

    @property
    def added_bytes(self) -> int:
        """How many bytes, and so at most how many tokens, a body can grow by."""
        added = {**self.default, **self.set}
        names = sum(map(len, self.rename.values()))
        return (len(json.dumps(added).encode()) if added else 0) + names

    def apply(self, body: Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
        """Return the changed body, and what was changed in a line; the body given stays."""
        sent = dict(body)
        changes: list[str] = []
        for name in self.remove:
            if name in sent:
                del sent[name]
                changes.append(f"remove {name}")
        for name, other in self.rename.items():
            # A client that knows the other name has the last word.
            if name in sent and other not in sent:
                sent[other] = sent.pop(name)
                changes.append(f"rename {name} to {other}")
        for name, value in self.default.items():
            if sent.get(name) is None:
                sent[name] = value
                changes.append(f"default {name}={_shown(value)}")
        for name, value in self.set.items():
            if name not in sent or sent[name] != value:
                sent[name] = value
                changes.append(f"set {name}={_shown(value)}")
        return sent, "; ".join(changes)


class Conversion(NamedTuple):
    """What the model of a route takes; None where its name tells."""

    reasoning: Literal["none", "effort", "budget"] | None = None
    sampling: Literal["none", "one", "any"] | None = None
    efforts: tuple[str, ...] | None = None
    extensions: tuple[str, ...] = ()


class Overrides(NamedTuple):
    """Changes of a request: of its body, and of the headers by name; None removes one."""

    parameters: Parameters | None
    headers: tuple[tuple[str, str | None], ...]
    conversion: Conversion


def check_overrides(value: Any) -> dict[str, Any]:
    """Return the object without what is empty, or refuse it. Raises OverridesRefused."""
    parts = _object(value, "The overrides", ("parameters", "headers", "conversion"))
    parameters = _object(
        parts.get("parameters", {}), "parameters", ("set", "default", "remove", "rename")
    )
    headers = _object(parts.get("headers", {}), "headers", ("set", "remove"))
    checked = {
        "parameters": {
            "set": _values(parameters.get("set", {}), "set"),
            "default": _values(parameters.get("default", {}), "default"),
            "remove": _names(parameters.get("remove", [])),
            "rename": _renamed(parameters.get("rename", {})),
        },
        "headers": _checked_headers(headers),
    }
    kept = {name: {key: v for key, v in part.items() if v} for name, part in checked.items()}
    kept["conversion"] = _checked_conversion(parts.get("conversion", {}))
    return {name: part for name, part in kept.items() if part}


def parse_overrides(value: Any) -> Overrides | None:
    """Return stored overrides, None where there are none. Raises OverridesRefused.

    By name, since PostgreSQL forgets in which order an object was written.
    """
    checked = check_overrides(value)
    if not checked:
        return None
    found = checked.get("parameters")
    parameters = found and Parameters(
        set=_sorted(found.get("set", {})),
        default=_sorted(found.get("default", {})),
        remove=tuple(found.get("remove", ())),
        rename=_sorted(found.get("rename", {})),
    )
    headers = checked.get("headers", {})
    removed = dict.fromkeys(headers.get("remove", ()))
    asked = checked.get("conversion", {})
    return Overrides(
        parameters or None,
        tuple({**removed, **headers.get("set", {})}.items()),
        Conversion(
            asked.get("reasoning"),
            _SAMPLING.get(asked.get("sampling")),
            tuple(asked["efforts"]) if "efforts" in asked else None,
            tuple(asked.get("extensions", ())),
        ),
    )


def _object(value: Any, what: str, names: tuple[str, ...]) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or not value.keys() <= set(names):
        raise OverridesRefused(f"{what}: enter a JSON object with no more than {', '.join(names)}.")
    return value


def _parameter(name: Any) -> str:
    if not isinstance(name, str) or _PARAMETER.fullmatch(name) is None:
        raise OverridesRefused("Enter names of parameters, such as top_p.")
    spelling = folded(name)
    if spelling in PROTECTED_PARAMETERS or spelling.startswith(FOLDED_PREFIXES):
        raise OverridesRefused(f"{name} decides what a call can cost, or where it goes.")
    return name


def _values(value: Any, what: str) -> dict[str, Any]:
    try:
        checked = check_capabilities(value)
    except CapabilitiesRefused as error:
        raise OverridesRefused(f"{what}: {error}") from error
    if len(checked) > PARAMETERS_MAX:
        raise OverridesRefused(f"At most {PARAMETERS_MAX} parameters.")
    return {_parameter(name): inner for name, inner in checked.items()}


def _list(value: Any, count_max: int) -> list[Any]:
    if not isinstance(value, list) or len(value) > count_max:
        raise OverridesRefused(f"remove: enter a list of at most {count_max} names.")
    return value


def _names(value: Any) -> list[str]:
    return list(dict.fromkeys(_parameter(name) for name in _list(value, PARAMETERS_MAX)))


def _renamed(value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping) or len(value) > PARAMETERS_MAX:
        raise OverridesRefused(f"rename: enter an object of at most {PARAMETERS_MAX} names.")
    renamed = {_parameter(name): _parameter(other) for name, other in value.items()}
    others = set(renamed.values())
    if len(others) < len(renamed) or others & renamed.keys():
        raise OverridesRefused("rename: no name may be meant twice.")
    return renamed


def _checked_headers(value: Mapping[str, Any]) -> dict[str, Any]:
    try:
        found = check_headers(value.get("set", {}))
        names = _list(value.get("remove", []), HEADERS_MAX)
        removed = list(dict.fromkeys(check_header_name(name) for name in names))
    except HeadersRefused as error:
        raise OverridesRefused(str(error)) from error
    if both := found.keys() & set(removed):
        raise OverridesRefused(f"The header {min(both)} is both set and removed.")
    return {"set": found, "remove": removed}


def _checked_conversion(value: Any) -> dict[str, Any]:
    asked = _object(value, "conversion", ("reasoning", "sampling", "efforts", "extensions"))
    found: dict[str, Any] = {}
    if (form := asked.get("reasoning")) is not None:
        if form not in REASONING_FORMS:
            raise OverridesRefused(f"reasoning: enter one of {', '.join(REASONING_FORMS)}.")
        found["reasoning"] = form
    if (sampling := asked.get("sampling")) is not None:
        if not isinstance(sampling, bool) and sampling != _ONE:
            raise OverridesRefused(f'sampling: enter true, false or "{_ONE}".')
        found["sampling"] = sampling
    for name, known in (("efforts", EFFORT_NAMES), ("extensions", EXTENSION_NAMES)):
        if told := asked.get(name):
            if not isinstance(told, list) or not all(item in known for item in told):
                raise OverridesRefused(f"{name}: enter some of {', '.join(known)}.")
            found[name] = list(dict.fromkeys(told))
    return found


def _sorted(value: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value[name] for name in sorted(value)}


def _shown(value: Any) -> str:
    text = json.dumps(value, separators=(",", ":"))
    return text if len(text) <= _SHOWN_VALUE_LENGTH else f"{text[:_SHOWN_VALUE_LENGTH]}…"
