"""Overrides change what they say, and never what decides about money."""

from __future__ import annotations

from typing import Any

import pytest

from apps.ai_models.overrides import (
    Conversion,
    OverridesRefused,
    Parameters,
    check_overrides,
    parse_overrides,
)
from tests.support.cases import for_all


def make_parameters(**changes: Any) -> Parameters:
    overrides = parse_overrides({"parameters": changes})
    assert overrides is not None
    assert overrides.parameters is not None
    return overrides.parameters


def test_parameters_change_in_the_order_remove_rename_default_set() -> None:
    parameters = make_parameters(
        remove=["logit_bias"],
        rename={"reasoning_effort": "effort"},
        default={"temperature": 0.6, "top_p": 0.9, "effort": "low"},
        set={"seed": 7},
    )
    body = {"logit_bias": {}, "reasoning_effort": "high", "top_p": 0.5, "model": "m"}

    sent, changes = parameters.apply(body)

    assert sent == {"top_p": 0.5, "model": "m", "effort": "high", "temperature": 0.6, "seed": 7}
    assert changes == (
        "remove logit_bias; rename reasoning_effort to effort; default temperature=0.6; set seed=7"
    )
    assert body == {"logit_bias": {}, "reasoning_effort": "high", "top_p": 0.5, "model": "m"}


def test_what_changes_nothing_is_not_recorded() -> None:
    parameters = make_parameters(
        remove=["a"], rename={"b": "c"}, default={"d": 1}, set={"e": [1, 2]}
    )

    sent, changes = parameters.apply({"d": 5, "e": [1, 2]})

    assert (sent, changes) == ({"d": 5, "e": [1, 2]}, "")


def test_a_null_takes_the_default_and_a_known_name_is_not_overwritten_by_a_renamed_one() -> None:
    parameters = make_parameters(rename={"b": "c"}, default={"d": 1})

    sent, changes = parameters.apply({"b": 1, "c": 2, "d": None})

    assert (sent, changes) == ({"b": 1, "c": 2, "d": 1}, "default d=1")


def test_a_long_value_is_recorded_by_its_beginning() -> None:
    _, changes = make_parameters(set={"x": "y" * 100}).apply({})

    assert changes == 'set x="' + "y" * 39 + "…"


def test_what_is_added_counts_as_input() -> None:
    parameters = make_parameters(set={"a": "é"}, default={"b": 1}, rename={"c": "longer"})

    # {"b": 1, "a": "\u00e9"} in ASCII, which is never less, and the longer name.
    assert parameters.added_bytes == 23 + 6


@pytest.mark.parametrize("how", ["set", "default", "remove", "rename", "renamed"])
@pytest.mark.parametrize(
    "name", ["model", "n", "max_tokens", "Stream", "service_tier", "tools", "aws_region", "input"]
)
def test_what_decides_about_money_is_refused_wherever_it_stands(how: str, name: str) -> None:
    ways: dict[str, dict[str, Any]] = {
        "set": {"set": {name: 1}},
        "default": {"default": {name: 1}},
        "remove": {"remove": [name]},
        "rename": {"rename": {name: "x"}},
        "renamed": {"rename": {"x": name}},
    }
    changes = ways[how]

    with pytest.raises(OverridesRefused, match="decides what a call can cost"):
        check_overrides({"parameters": changes})


@for_all(
    "value",
    [
        None,
        [],
        {"unknown": {}},
        {"parameters": []},
        {"parameters": {"add": {}}},
        {"parameters": {"set": []}},
        {"parameters": {"set": {"x": float("inf")}}},
        {"parameters": {"set": {"x": "\x00"}}},
        {"parameters": {"set": {"x" * 65: 1}}},
        {"parameters": {"set": {"x y": 1}}},
        {"parameters": {"set": {"x": "y" * 9_000}}},
        {"parameters": {"set": {f"x{n}": n for n in range(51)}}},
        {"parameters": {"remove": "x"}},
        {"parameters": {"remove": [1]}},
        {"parameters": {"remove": [f"x{n}" for n in range(51)]}},
        {"parameters": {"rename": {"x": 1}}},
        {"parameters": {"rename": {"x": "y", "y": "z"}}},
        {"parameters": {"rename": {"x": "z", "y": "z"}}},
        {"headers": {"add": {}}},
        {"headers": {"set": {"authorization": "x"}}},
        {"headers": {"remove": ["host"]}},
        {"headers": {"set": {"x-a": "1"}, "remove": ["X-A"]}},
    ],
)
def test_what_cannot_be_kept_is_refused(value: Any) -> None:
    with pytest.raises(OverridesRefused):
        check_overrides(value)


def test_what_is_empty_is_not_kept() -> None:
    empty: dict[str, Any] = {"parameters": {"set": {}, "remove": []}, "headers": {}}

    assert check_overrides(empty) == {}
    assert parse_overrides(empty) is None
    assert parse_overrides({}) is None


def test_headers_are_set_or_removed_by_lower_case_names() -> None:
    overrides = parse_overrides({"headers": {"set": {"X-Team": "a b"}, "remove": ["Accept"]}})

    assert overrides is not None
    assert overrides.parameters is None
    assert dict(overrides.headers) == {"x-team": "a b", "accept": None}


def test_the_order_in_which_they_were_written_does_not_matter() -> None:
    _, one = make_parameters(set={"b": 1, "a": 2}).apply({})
    _, other = make_parameters(set={"a": 2, "b": 1}).apply({})

    assert one == other == "set a=2; set b=1"


@pytest.mark.parametrize(
    ("told", "sampling"), [(True, "any"), (False, "none"), ("one", "one"), (None, None)]
)
def test_which_sampling_the_model_takes_is_told_to_the_conversion(told: Any, sampling: Any) -> None:
    overrides = parse_overrides({"conversion": {"reasoning": "none", "sampling": told}})

    assert overrides is not None
    assert overrides.conversion == Conversion(reasoning="none", sampling=sampling)


def test_which_efforts_the_model_knows_is_told_to_the_conversion() -> None:
    told = {"efforts": ["low", "high", "low"]}
    overrides = parse_overrides({"conversion": told})

    assert overrides is not None
    assert overrides.conversion == Conversion(efforts=("low", "high"))


@pytest.mark.parametrize("told", ["low", ["very high"], [1], {"low": 1}])
def test_another_effort_is_refused(told: Any) -> None:
    with pytest.raises(OverridesRefused):
        check_overrides({"conversion": {"efforts": told}})


@pytest.mark.parametrize("told", ["both", 1, [], {}])
def test_another_sampling_is_refused(told: Any) -> None:
    with pytest.raises(OverridesRefused):
        check_overrides({"conversion": {"sampling": told}})
