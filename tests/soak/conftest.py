"""A site for a soak, and its table at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

# Nothing that imports models: this file may be read before the settings are.
if TYPE_CHECKING:
    from tests.faults.site import Site
    from tests.support.databases import Database

_lines: list[str] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave what takes minutes to `make soak` and `make test-long`."""
    for item in items:
        if item.path == Path(__file__).parent / "test_soak.py":
            item.add_marker("long")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table."""
    for line in _lines:
        terminalreporter.write_line(line)


@pytest.fixture
def report() -> Callable[[str], None]:
    """Return what takes a line of the table."""
    return _lines.append


@pytest.fixture
def site(committed_db: Database, tmp_path: Path, report: Callable[[str], None]) -> Iterator[Site]:
    """A site with a provider."""
    from tests.faults.site import Site

    site = Site(tmp_path, committed_db, report)
    try:
        site.start_provider()
        yield site
    finally:
        site.stop()
