"""Tests of what REST views share."""

from __future__ import annotations

from typing import Any

import pytest
from rest_framework import serializers
from rest_framework.exceptions import NotFound, ParseError, Throttled

from apps.core.domain_errors import DomainError
from apps.core.rest import StrictSerializer, USDField, answer_exception


class Payment(StrictSerializer):
    """An amount."""

    amount = USDField(nanos_max=10**12)


class OutOfStock(DomainError):
    """An example of a refusal."""

    status_code = 409
    code = "out_of_stock"
    message = "There is none left."


@pytest.mark.parametrize(
    ("text", "nanos"),
    [("10", 10_000_000_000), ("0.000000001", 1), (3, 3_000_000_000), ("1000", 10**12)],
)
def test_an_amount_is_taken_exactly(text: object, nanos: int) -> None:
    given = Payment(data={"amount": text})

    assert given.is_valid()
    assert given.validated_data == {"amount": nanos}


@pytest.mark.parametrize(
    "amount", [0.1, True, None, "", "1e400", "-1", "1000.01", "0.0000000001", {}]
)
def test_what_is_no_exact_amount_in_range_is_refused(amount: object) -> None:
    given = Payment(data={"amount": amount})

    assert not given.is_valid()
    assert list(given.errors) == ["amount"]


def test_unknown_fields_are_refused_by_name() -> None:
    given = Payment(data={"amount": "1", "balance": "99"})

    assert not given.is_valid()
    assert given.errors == {"balance": ["Unknown field."]}


@pytest.mark.parametrize(
    ("error", "status_code", "body"),
    [
        (OutOfStock(), 409, {"detail": "There is none left.", "code": "out_of_stock"}),
        (NotFound(), 404, {"detail": "Not found.", "code": "not_found"}),
        (ParseError("Bad JSON."), 400, {"detail": "Bad JSON.", "code": "parse_error"}),
        (serializers.ValidationError({"name": ["Taken."]}), 400, {"name": ["Taken."]}),
        (serializers.ValidationError(["No."]), 400, {"detail": "No.", "code": "invalid"}),
    ],
)
def test_errors_have_one_shape(error: Exception, status_code: int, body: dict[str, Any]) -> None:
    answer = answer_exception(error, {})

    assert answer is not None
    assert (answer.status_code, answer.data) == (status_code, body)


def test_an_answer_says_when_to_come_back() -> None:
    throttled = answer_exception(Throttled(wait=2.5), {})
    refused = answer_exception(OutOfStock(retry_after_seconds=900), {})

    assert throttled is not None
    assert throttled["Retry-After"] == "3"
    assert refused is not None
    assert refused["Retry-After"] == "900"


def test_what_nobody_expected_is_left_to_the_server() -> None:
    assert answer_exception(RuntimeError("bug"), {}) is None
