"""Rules of the house that no type checker knows."""

from __future__ import annotations

import ast
import configparser
from pathlib import Path

ROOT = Path(__file__).parents[1]
# Where money and calls are handled: stamps come from datetime, all else from monotonic clocks.
TIMED = ("apps/billing", "apps/proxy", "apps/quotas")


def _files(*folders: str) -> list[Path]:
    found = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    return [
        path for path in found if not {"tests", "migrations"} & set(path.relative_to(ROOT).parts)
    ]


def _calls(path: Path) -> list[tuple[int, str]]:
    tree = ast.parse(path.read_text())
    return [
        (node.lineno, f"{node.func.value.id}.{node.func.attr}")
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
    ]


def test_durations_and_leases_never_use_the_wall_clock() -> None:
    wall_clocks = {"time.time", "time.time_ns", "datetime.utcnow", "datetime.today"}

    found = [
        f"{path.relative_to(ROOT)}:{line} {name}"
        for path in _files(*TIMED)
        for line, name in _calls(path)
        if name in wall_clocks
    ]

    assert found == []


def test_only_one_module_reads_the_environment() -> None:
    allowed = {"auditing/environment.py", "apps/proxy/management/commands/up.py"}

    found = {
        str(path.relative_to(ROOT))
        for path in _files("apps", "auditing")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and node.attr in ("environ", "getenv")
        and isinstance(node.value, ast.Name)
        and node.value.id == "os"
    }

    # Setting DJANGO_SETTINGS_MODULE is no reading; `up` passes the environment on to its children.
    assert found - allowed == {"auditing/asgi.py", "auditing/celery.py"}


def test_no_html_is_marked_as_safe() -> None:
    found = [
        str(path.relative_to(ROOT))
        for path in _files("apps", "auditing")
        if "mark_safe" in path.read_text()
    ]

    assert found == []


def test_modules_that_say_they_are_pure_are_held_to_it() -> None:
    contracts = configparser.ConfigParser()
    contracts.read(ROOT / ".importlinter")
    held = contracts["importlinter:contract:pure"]["source_modules"].split()

    says_so = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in _files("apps")
        if "Pure." in (ast.get_docstring(ast.parse(path.read_text())) or "")
    ]

    assert len(says_so) > 10
    assert [
        name
        for name in says_so
        if not any(name == module or name.startswith(f"{module}.") for module in held)
    ] == []


def test_a_word_of_the_house_is_the_name_of_one_class() -> None:
    words = {
        "Account", "Allowance", "Attempt", "BadKey", "Caller", "Dialect", "Entry", "Finding",
        "Hold", "IdempotencyKeyReused", "Refusal", "Rule", "Snapshot", "Standing", "Transaction",
    }  # fmt: skip

    found = [
        node.name
        for path in _files("apps", "auditing")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and node.name in words
    ]

    assert sorted(found) == sorted(words)


def test_what_is_named_find_returns_none_instead_of_raising() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path in _files("apps", "auditing")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.lstrip("_").startswith("find_")
        and any(isinstance(part, ast.Raise) for part in ast.walk(node))
        and "None" not in ast.unparse(node.returns or node)
    ]

    assert found == []


def test_nothing_is_imported_from_a_module_of_tests() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.module}"
        for folder in ("apps", "auditing", "bench", "tests")
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and ".test_" in f".{node.module}"
    ]

    assert found == []
