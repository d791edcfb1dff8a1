"""Balances change in one package only (I-05): a rule about the source, checked on the source."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cases import for_all

APPS = Path(__file__).resolve().parents[2]
LEDGER = APPS / "billing" / "ledger"
BALANCES = frozenset({"posted_nanos", "held_nanos", "spent_nanos"})
OWNERS = frozenset({"Account", "SpendCounter"})
OWNER_NAMES = frozenset({"account", "wallet", "receivable", "counter"})
WRITES = frozenset({"update", "create", "get_or_create", "update_or_create", "bulk_update"})
SQL = re.compile(
    r"\b(UPDATE|INSERT\s+INTO|DELETE\s+FROM)\s+\"?billing_(account|spendcounter)\b", re.IGNORECASE
)


def sources() -> Iterator[Path]:
    """Yield our modules, but the ledger, migrations and tests."""
    for path in sorted(APPS.rglob("*.py")):
        parts = path.relative_to(APPS).parts
        if LEDGER in path.parents or "migrations" in parts or "tests" in parts:
            continue
        yield path


def breaches(source: str) -> list[str]:
    """Return what a module does to balances, as "line: what"."""
    tree = ast.parse(source)
    rows = _names_of_rows(tree)
    found = []
    for node in ast.walk(tree):
        for what in _breaches_of(node, rows):
            found.append(f"{getattr(node, 'lineno', 0)}: {what}")
    return found


def _breaches_of(node: ast.AST, rows: set[str]) -> Iterator[str]:
    if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign | ast.Delete):
        targets = [node.target] if isinstance(node, ast.AugAssign | ast.AnnAssign) else node.targets
        for target in targets:
            for part in ast.walk(target):
                if isinstance(part, ast.Attribute) and part.attr in BALANCES:
                    yield f"assigns {part.attr}"
    elif isinstance(node, ast.Call):
        yield from _breaches_of_call(node, rows)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str) and SQL.search(node.value):
        yield "writes a table of balances in SQL"


def _breaches_of_call(node: ast.Call, rows: set[str]) -> Iterator[str]:
    name = _called(node)
    if name in WRITES | OWNERS:
        for keyword in node.keywords:
            if keyword.arg in BALANCES:
                yield f"passes {keyword.arg} to {name}"
    if name in ("bulk_update", "setattr"):
        for part in ast.walk(node):
            if isinstance(part, ast.Constant) and part.value in BALANCES:
                yield f"passes {part.value} to {name}"
    if name == "save" and isinstance(node.func, ast.Attribute):
        owner = node.func.value
        if isinstance(owner, ast.Name) and owner.id in rows:
            yield f"saves {owner.id}, a row with a balance"
        if isinstance(owner, ast.Attribute) and owner.attr in OWNER_NAMES:
            yield f"saves {owner.attr}, a row with a balance"


def _names_of_rows(tree: ast.AST) -> set[str]:
    """Return the names that hold an Account or a SpendCounter, as far as can be seen."""
    names = set(OWNER_NAMES)
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.For):
            value = node.value if isinstance(node, ast.Assign) else node.iter
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(part, ast.Name) and part.id in OWNERS for part in ast.walk(value)):
                names.update(
                    part.id
                    for target in targets
                    for part in ast.walk(target)
                    if isinstance(part, ast.Name)
                )
    return names


def _called(node: ast.Call) -> str:
    if isinstance(node.func, ast.Attribute):
        return node.func.attr
    return node.func.id if isinstance(node.func, ast.Name) else ""


def test_no_module_but_the_ledger_changes_a_balance() -> None:
    found = {
        str(path.relative_to(APPS)): problems
        for path in sources()
        if (problems := breaches(path.read_text()))
    }

    assert found == {}


def test_the_ledger_is_where_balances_change() -> None:
    text = "".join(path.read_text() for path in LEDGER.glob("*.py"))

    assert SQL.search(text)


@for_all(
    "source",
    [
        "row.posted_nanos = 5",
        "row.held_nanos += 5",
        "a, row.spent_nanos = 1, 2",
        "rows.update(posted_nanos=F('posted_nanos') + 1)",
        "Account(kind='wallet', posted_nanos=5)",
        "Account.objects.create(held_nanos=5)",
        "Account.objects.bulk_update(rows, ['posted_nanos'])",
        "setattr(row, 'posted_nanos', 5)",
        "wallet.save()",
        "user.customer.wallet.save()",
        "row = Account.objects.get(pk=1)\nrow.save()",
        "for row in Account.objects.all():\n    row.save(update_fields=['name'])",
        "cursor.execute('UPDATE billing_account SET name = 1')",
        'SQL = """update "billing_spendcounter" set x = 1"""',
        "cursor.execute('DELETE FROM billing_account')",
    ],
)
def test_the_rule_sees_every_way_to_break_it(source: str) -> None:
    assert len(breaches(source)) == 1


@pytest.mark.parametrize(
    "source",
    [
        "total = account.posted_nanos - account.held_nanos",
        "Account.objects.create(kind='wallet', name='w')",
        "Account.objects.filter(posted_nanos__lt=0)",
        "user.save()",
        "cursor.execute('SELECT posted_nanos FROM billing_account')",
    ],
)
def test_the_rule_allows_reading(source: str) -> None:
    assert breaches(source) == []
