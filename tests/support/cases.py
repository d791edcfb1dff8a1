"""Tests of many small cases: an item of its own for each takes longer than what is tested."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import pytest

Test = TypeVar("Test", bound=Callable[..., Any])

_NAME_CHARACTERS_MAX = 100
_NAMED_MAX = 20


def for_all(names: str | Sequence[str], cases: Iterable[Any]) -> Callable[[Test], Test]:
    """Run a test for each case in turn, within one item; the arguments are those of parametrize.

    What comes from fixtures is the same for all cases: for tests that leave it as it is. All cases
    run whatever becomes of the others. The first failure is raised, with the names of all.
    """
    arguments = [names] if isinstance(names, str) else list(names)
    listed = [_read_case(case, len(arguments)) for case in cases]
    if not listed:
        raise ValueError("There is no case.")

    def decorate(test: Test) -> Test:
        signature = inspect.signature(test)
        left = [item for name, item in signature.parameters.items() if name not in arguments]
        if len(left) + len(arguments) != len(signature.parameters):
            raise TypeError(f"{test.__name__} does not take {arguments}")

        @functools.wraps(test)
        def run(**fixtures: Any) -> None:
            failures = Failures()
            for name, values in listed:
                with failures.noted(name):
                    test(**fixtures, **dict(zip(arguments, values, strict=True)))
            failures.tell(len(listed))

        @functools.wraps(test)
        async def run_async(**fixtures: Any) -> None:
            failures = Failures()
            for name, values in listed:
                with failures.noted(name):
                    await test(**fixtures, **dict(zip(arguments, values, strict=True)))
            failures.tell(len(listed))

        made: Any = run_async if inspect.iscoroutinefunction(test) else run
        made.__signature__ = signature.replace(parameters=left)
        return made  # type: ignore[no-any-return]  # a test without the arguments of its cases

    return decorate


class Failures:
    """Keeps the first failure of a test and the names of all cases that failed."""

    def __init__(self) -> None:
        self._first: BaseException | None = None
        self._names: list[str] = []
        self._current = ""

    def noted(self, name: str) -> Failures:
        """Return what keeps the failure of a case from ending the test."""
        self._current = name
        return self

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> bool:
        if not isinstance(error, Exception | pytest.fail.Exception):
            return False
        self._first = self._first or error
        self._names.append(self._current)
        return True

    def tell(self, count: int) -> None:
        """Raise the first failure, if there was any."""
        if self._first is None:
            return
        named = "\n  ".join(self._names[:_NAMED_MAX])
        self._first.add_note(f"{len(self._names)} of {count} cases failed:\n  {named}")
        raise self._first


def _read_case(case: Any, count: int) -> tuple[str, Sequence[Any]]:
    """Return a case's name and its values."""
    name = ""
    if hasattr(case, "marks"):  # of pytest.param
        if case.marks:
            raise ValueError("Cases have no marks.")
        name, values = case.id or "", case.values
    else:
        values = (case,) if count == 1 else case
    if len(values) != count:
        raise ValueError(f"{values} are not {count}")
    return (name or "-".join(map(repr, values)))[:_NAME_CHARACTERS_MAX], values
