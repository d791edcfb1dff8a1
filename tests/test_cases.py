"""Tests of `for_all`: no case is left out, and none that fails is overlooked."""

from __future__ import annotations

import pytest

from tests.support.cases import for_all

seen: list[tuple[int, str]] = []


@for_all(("number", "text"), [(1, "a"), pytest.param(2, "b", id="two")])
def collect(number: int, text: str) -> None:
    seen.append((number, text))


def test_every_case_runs_once_in_order() -> None:
    seen.clear()

    collect()  # type: ignore[call-arg]  # what pytest sees has no arguments

    assert seen == [(1, "a"), (2, "b")]


@for_all("wanted", [1, 2])
@for_all("factor", [1, -1])
def test_cases_are_multiplied_and_beside_fixtures(
    wanted: int, factor: int, tmp_path: object
) -> None:
    assert (wanted * factor) ** 2 == wanted**2
    assert tmp_path


@for_all("wanted", [1, 2])
async def test_a_test_may_be_asynchronous(wanted: int) -> None:
    assert wanted > 0


def test_one_failure_is_raised_with_the_names_of_all_and_the_others_run() -> None:
    ran: list[int] = []

    @for_all("number", [1, 2, pytest.param(3, id="three"), 4])
    def fails(number: int) -> None:
        ran.append(number)
        if number == 2:
            pytest.fail("not raised")
        assert number != 3

    with pytest.raises(pytest.fail.Exception, match="not raised") as raised:
        fails()  # type: ignore[call-arg]  # what pytest sees has no arguments

    assert ran == [1, 2, 3, 4]
    assert raised.value.__notes__ == ["2 of 4 cases failed:\n  2\n  three"]


def test_a_test_without_cases_or_for_other_arguments_is_none() -> None:
    def takes(number: int) -> None:
        raise AssertionError(number)

    with pytest.raises(ValueError, match="no case"):
        for_all("number", [])
    with pytest.raises(TypeError, match="does not take"):
        for_all("other", [1])(takes)
    with pytest.raises(ValueError, match="are not 2"):
        for_all(("number", "other"), [(1,)])
