"""What a verification of everything also checks: what other apps keep that must fit the ledger.

They lie above this one, so each adds its check when it is loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from apps.billing.findings import Findings, one_view

Check = Callable[[Findings], None]

_checks: Final[list[Check]] = []


def add_check(check: Check) -> None:
    """Have every verification of everything run a check, in one view of the database."""
    _checks.append(check)


def run_added_checks(findings: Findings) -> None:
    """Run what was added, in the order in which it was."""
    for check in _checks:
        with one_view():
            check(findings)
