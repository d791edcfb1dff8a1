"""What requests of all dialects have in common: single values, and what may not stand in a body."""

from collections.abc import Mapping
from typing import Any, Final

from apps.core.parameter_names import (
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


def keep_allowed(body: dict[str, Any], plain: frozenset[str]) -> dict[str, Any]:
    """Return the body without what is removed. Raises E14 for what is not supported.

    `plain` are the names that the dialect has, which are looked at elsewhere or mean no harm.
    """
    kept: dict[str, Any] = {}
    for key, value in body.items():
        if key not in plain:
            name = folded(key)
            if name in _FOLDED_REMOVED or name.startswith(FOLDED_PREFIXES):
                continue
            if name in _FOLDED_METERED:
                # Even null: a server that ignores spelling would forget what was checked.
                raise unsupported(key)
            if name in _FOLDED_UNSUPPORTED and value is not None and value is not False:
                raise unsupported(key)
        kept[key] = value
    return kept


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
