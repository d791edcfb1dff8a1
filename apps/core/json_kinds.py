"""Which JSON type a field of a body takes: "1" is no number, 0 is no text, "no" is no flag.

REST framework converts between them; a client that mixes them up has a mistake that should show.
"""

from __future__ import annotations

from typing import Any, Final

from rest_framework import serializers

# The first class that a field is an instance of decides.
_KINDS: Final[tuple[tuple[type[Any], tuple[type, ...], str], ...]] = (
    (serializers.BooleanField, (bool,), "Enter true or false."),
    (serializers.IntegerField, (int,), "Enter a whole number."),
    (serializers.FloatField, (int, float), "Enter a number."),
    (serializers.PrimaryKeyRelatedField, (int,), "Enter an id."),
    (serializers.CharField, (str,), "Enter a text."),
    (serializers.ChoiceField, (str,), "Enter a text."),
    (serializers.DateTimeField, (str,), "Enter a text."),
    (serializers.UUIDField, (str,), "Enter a text."),
)


def find_wrong_kind(field: Any, value: Any) -> str | None:
    """Return what is wrong about the JSON type of `value`, None if nothing is.

    None passes: whether a field may be null is checked by the field.
    """
    if value is None:
        return None
    if isinstance(field, serializers.ManyRelatedField):
        return _find_in_list(field.child_relation, value)
    if isinstance(field, serializers.ListField):
        return _find_in_list(field.child, value)
    for cls, kinds, message in _KINDS:
        if isinstance(field, cls):
            is_flag = isinstance(value, bool)
            return None if isinstance(value, kinds) and is_flag == (bool in kinds) else message
    return None


def _find_in_list(child: Any, value: Any) -> str | None:
    if not isinstance(value, list):
        return "Enter a list."
    for item in value:
        if message := find_wrong_kind(child, item):
            return message
    return None
