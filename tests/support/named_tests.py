"""The tests that pages of the documentation name, as `path.py::test_name`."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
_NAMED: Final = re.compile(r"`([\w/]+\.py)::(\w+)`")


def named_in(text: str) -> list[tuple[str, str]]:
    """Return path and function of each test that a page names, once and in order."""
    return sorted(set(_NAMED.findall(text)))


@cache
def functions_of(path: Path) -> set[str]:
    """Return the names of all functions of a file."""
    tree = ast.parse(path.read_text())
    kinds = ast.FunctionDef | ast.AsyncFunctionDef
    return {node.name for node in ast.walk(tree) if isinstance(node, kinds)}
