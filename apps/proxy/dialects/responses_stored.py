"""What a provider of OpenAI's Responses keeps, by the ids that name it. Pure.

A response is kept unless the request says otherwise, and so are the items of its output: they can
be named instead of being sent again.

Sources: https://platform.openai.com/docs/api-reference/responses/create and
https://platform.openai.com/docs/guides/conversation-state
"""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, Final, NamedTuple, TypeGuard

from apps.core.errors import GatewayError
from apps.core.parameter_names import fold_all, folded
from apps.proxy.dialects.foreign_thoughts import is_foreign_thought
from apps.proxy.dialects.openai_refusals import unsupported, wrong_type, wrong_value

PREVIOUS: Final = "previous_response_id"
ID_LENGTH_MAX: Final = 256
# Of one answer: the ids of further items lead nowhere.
ITEMS_MAX: Final = 256
# In one request; a conversation of a thousand turns has about as many thoughts.
NAMED_MAX: Final = 2_000
# A conversation has been refused by now, where it is spelled as OpenAI does: null names none.
_NAMES: Final = frozenset({PREVIOUS, "conversation"})
_FOLDED_NAMES: Final = fold_all(_NAMES)
_NAME_LENGTH_MIN: Final = min(map(len, _FOLDED_NAMES))
# What most items hold: nothing of it can be read as another member.
_MEMBERS: Final = frozenset(
    {
        "arguments", "call_id", "content", "encrypted_content", "id", "input", "name", "output",
        "role", "status", "summary", "type",
    }
)  # fmt: skip
# Items that are looked up by their id, whatever else they hold.
_LOOKED_UP: Final = ("image_generation_call", "item_reference")


class Named(NamedTuple):
    """Something kept that a request names."""

    id: str
    param: str


def is_kept(body: Mapping[str, Any]) -> bool:
    """Return whether the answer to a request is kept."""
    return body.get("store") is not False


def kept_ids(response: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the ids of a response and of the items of its output; none where it has no id."""
    if not is_id(response.get("id")):
        return ()
    output = response.get("output")
    items = output if isinstance(output, list) else []
    ids = (item.get("id") for item in items if isinstance(item, Mapping))
    return (response["id"], *islice(filter(is_id, ids), ITEMS_MAX))


def is_id(value: object) -> TypeGuard[str]:
    """Return whether something may be the id of what is kept."""
    return isinstance(value, str) and 0 < len(value) <= ID_LENGTH_MAX


def list_named(body: Mapping[str, Any]) -> list[Named]:
    """Return what a request names of what is kept. Raises E13 and E14."""
    named: list[Named] = []
    for key in body:
        # No shorter name is folded into one of these.
        if len(key) >= _NAME_LENGTH_MIN and key not in _NAMES and folded(key) in _FOLDED_NAMES:
            raise unsupported(key)
    previous = body.get(PREVIOUS)
    if previous is not None:
        if not isinstance(previous, str):
            raise wrong_type(PREVIOUS, "a string")
        named.append(Named(previous, PREVIOUS))
    items = body.get("input")
    if isinstance(items, list):
        named += islice(_named_items(items), NAMED_MAX + 1)
    if len(named) > NAMED_MAX:
        raise wrong_value("input", f"at most {NAMED_MAX} items by their ids")
    return named


def not_found(named: Named) -> GatewayError:
    """Return the answer to who names what is not kept for him."""
    told = named.id[:ID_LENGTH_MAX]
    if named.param == PREVIOUS:
        return _refusal(named, f"Previous response with id '{told}' not found.")
    message = f"Item with id '{told}' not found: no stored answer has this id."
    return _refusal(named, message)


def out_of_reach(named: Named) -> GatewayError:
    """Return the answer to who names what is his, but where nothing leads any more."""
    message = (
        f"What '{named.id[:ID_LENGTH_MAX]}' names is not in reach: the provider that keeps it, or"
        " the key that it was made with, does not answer for this model."
    )
    return _refusal(named, message)


def _refusal(named: Named, message: str) -> GatewayError:
    code = "previous_response_not_found" if named.param == PREVIOUS else "invalid_value"
    return GatewayError("E13", code=code, param=named.param, message=message)


def _named_items(items: list[Any]) -> Iterator[Named]:
    """Yield what items name. Raises E14 for what some provider may read as an id, or a type."""
    for index, item in enumerate(items):
        if not isinstance(item, dict):
            continue
        if not item.keys() <= _MEMBERS:
            for key in item.keys() - _MEMBERS:
                if folded(key) in ("id", "type"):
                    raise unsupported(f"input[{index}].{key}")
        if isinstance(item.get("id"), str) and _is_looked_up(item):
            yield Named(item["id"], f"input[{index}].id")


def _is_looked_up(item: Mapping[str, Any]) -> bool:
    kind = item.get("type")
    if kind is None:
        return "role" not in item
    if kind == "reasoning":
        return not is_whole_thought(item)
    return kind in _LOOKED_UP


def is_whole_thought(item: Mapping[str, Any]) -> bool:
    """Return whether nobody looks up a reasoning item by its id: it is sealed, or not sent on."""
    return isinstance(item.get("encrypted_content"), str) or is_foreign_thought(item)
