"""The tests that the documentation names exist."""

from __future__ import annotations

import pytest

from tests.support.named_tests import ROOT, functions_of, named_in

PAGES = ("error-tests.md", "faults.md", "invariants.md", "security-tests.md")


@pytest.mark.parametrize("page", PAGES)
def test_the_named_tests_exist(page: str) -> None:
    named = named_in((ROOT / "docs" / page).read_text())

    assert len(named) > 30
    assert [
        f"{path}::{name}" for path, name in named if name not in functions_of(ROOT / path)
    ] == []
