"""What requests of all dialects have in common: single values, and what may not stand in a body."""

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from apps.core.parameter_names import (
    ASSERTED,
    BOUNDED,
    FOLDED_PREFIXES,
    METERED,
    REMOVED,
    UNSUPPORTED,
    fold_all,
    folded,
)
from apps.proxy.dialects.openai_refusals import (
    above,
    below_one,
    missing,
    unsupported,
    wrong_type,
    wrong_value,
)

MODEL_NAME_LENGTH_MAX: Final = 256
INTEGER_MAX: Final = 2**31 - 1

_FOLDED_METERED: Final = fold_all(METERED)
_FOLDED_UNSUPPORTED: Final = fold_all(UNSUPPORTED)
_FOLDED_REMOVED: Final = fold_all(REMOVED)
_FOLDED_ASSERTED: Final = fold_all(ASSERTED)
_FOLDED_BOUNDED: Final = {folded(name): members for name, members in BOUNDED.items()}


_folded_names = cache(fold_all)


def check_spelling(found: Mapping[str, Any], known: frozenset[str], where: str) -> None:
    """Raise E14 for a key that a server ignoring spelling would take for one that was checked."""
    for key in found:
        if key not in known and folded(key) in _folded_names(known):
            raise unsupported(f"{where}.{key}")


def is_unsupported(name: str) -> bool:
    """Return whether a parameter of this name, however it is spelled, is none of ours."""
    return folded(name) in _FOLDED_UNSUPPORTED


def keep_allowed(
    body: dict[str, Any], plain: frozenset[str], metered: frozenset[str] = METERED
) -> dict[str, Any]:
    """Return the body without what is removed. Raises E14 for what is not supported.

    `plain` are the names that the dialect has, which are looked at elsewhere or mean no harm;
    `metered` those of them that are refused in other letters.
    """
    kept: dict[str, Any] = {}
    names = _folded_names(metered)
    for key, value in body.items():
        if key not in plain:
            name = folded(key)
            if name in _FOLDED_REMOVED or name.startswith(FOLDED_PREFIXES):
                continue
            if name in _FOLDED_METERED or name in names:
                # Even null: a server that ignores spelling would forget what was checked.
                raise unsupported(key)
            if name in _FOLDED_UNSUPPORTED and value is not None and value is not False:
                raise unsupported(key)
            if name in _FOLDED_ASSERTED and value is not None and value is not True:
                raise unsupported(key)
            if name in _FOLDED_BOUNDED and value is not None:
                _check_members(key, value, _FOLDED_BOUNDED[name])
        kept[key] = value
    return kept


def _check_members(key: str, value: object, members: frozenset[str]) -> None:
    """Raise E14 for what is asked for in an object beyond these members, E13 for no object."""
    if not isinstance(value, dict):
        raise wrong_type(key, "an object")
    for name, asked in value.items():
        if name not in members and asked is not None and asked is not False:
            raise unsupported(f"{key}.{name}")


def read_model(body: Mapping[str, Any]) -> str:
    """Return the name of the model. Raises E13."""
    model = body.get("model")
    if model is None:
        raise missing("model")
    if not isinstance(model, str):
        raise wrong_type("model", "a string")
    if not model or len(model) > MODEL_NAME_LENGTH_MAX or not model.isprintable():
        raise wrong_value("model", "the name of a model")
    return model


def read_boolean(body: Mapping[str, Any], name: str) -> bool:
    """Return a flag, False if it is absent or null. Raises E13."""
    value = body.get(name)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise wrong_type(name, "a boolean")
    return value


def read_integer(body: Mapping[str, Any], name: str, maximum: int) -> int | None:
    """Return a whole number from 1 to `maximum`, None if it is absent or null. Raises E13."""
    value = body.get(name)
    if value is None:
        return None
    # type() and not isinstance(): true is an int.
    if type(value) is not int:
        raise wrong_type(name, "an integer")
    if value < 1:
        raise below_one(name)
    if value > maximum:
        raise above(name, maximum)
    return value


def search_bound(asked: object) -> int | None:
    """Return how often a provider may search by the client's own bound, None without one.

    What is no bound is the provider's to refuse.
    """
    return min(asked, INTEGER_MAX) if type(asked) is int and asked > 0 else None


def read_messages(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the messages, each of which is an object. Raises E13."""
    messages = body.get("messages")
    if messages is None:
        raise missing("messages")
    if not isinstance(messages, list):
        raise wrong_type("messages", "an array of objects")
    if not messages:
        raise wrong_value("messages", "at least one message")
    for index, message in enumerate(messages):
        if not isinstance(message, dict):
            raise wrong_type(f"messages[{index}]", "an object")
    return messages
