"""Tests of which JSON type a field takes."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from rest_framework import serializers

from apps.core.rest import StrictSerializer
from tests.support.cases import for_all


class Body(StrictSerializer):
    """One field of each kind."""

    text = serializers.CharField(required=False)
    number = serializers.IntegerField(required=False, allow_null=True)
    flag = serializers.BooleanField(required=False)
    seconds = serializers.FloatField(required=False)
    choice = serializers.ChoiceField(choices=["1", "2"], required=False)
    moment = serializers.DateTimeField(required=False)
    identifier = serializers.UUIDField(required=False)
    numbers = serializers.ListField(child=serializers.IntegerField(), required=False)


@for_all(
    ("field", "value"),
    [
        ("text", 0),
        ("text", True),
        ("text", ["a"]),
        ("number", "1"),
        ("number", 1.0),
        ("number", True),
        ("flag", 1),
        ("flag", "true"),
        ("seconds", "1.5"),
        ("seconds", False),
        ("choice", 1),
        ("moment", 20261121),
        ("identifier", 12),
        ("numbers", [1, "2"]),
        ("numbers", {"0": 1}),
        ("numbers", "12"),
    ],
)
def test_another_type_is_refused(field: str, value: Any) -> None:
    given = Body(data={field: value})

    assert not given.is_valid()
    assert list(given.errors) == [field]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("text", "0"),
        ("number", 1),
        ("number", None),
        ("flag", False),
        ("seconds", 2),
        ("choice", "1"),
        ("moment", "2026-11-21T00:00:00Z"),
        ("identifier", str(uuid.UUID(int=7))),
        ("numbers", []),
        ("numbers", [1, 2]),
    ],
)
def test_its_own_type_is_taken(field: str, value: Any) -> None:
    given = Body(data={field: value})

    assert given.is_valid(), given.errors
