"""The published matrix."""

import json

from django.conf import settings

from apps.proxy.management.compatibility import compatibility_page
from apps.proxy.tests.dialects.golden_cells import FOLDER


def test_the_page_tells_every_cell_of_the_golden_files() -> None:
    page = compatibility_page(FOLDER)

    cells = [
        (row["name"], cell)
        for path in FOLDER.glob("*.json")
        for row in json.loads(path.read_text())["rows"]
        for cell in row["cells"].values()
    ]
    told = [line for line in page.splitlines() if line.startswith("| ")]
    assert sum(line.count("| exact ") for line in told) == sum(
        cell["verdict"] == "exact" for _, cell in cells
    )
    for name, cell in cells:
        line = next(line for line in told if line.startswith(f"| {name} |") and _tells(line, cell))
        assert line.endswith(" |")


def _tells(line: str, cell: dict[str, str]) -> bool:
    if cell["verdict"] == "exact":
        return "| exact |" in line
    if cell["verdict"] == "adapted":
        return f"| adapted: {cell['how']} |" in line
    return f"| refused: `{cell['param']}` |" in line


def test_the_page_that_is_published_is_the_one_of_these_files() -> None:
    published = settings.BASE_DIR / "docs" / "compatibility.md"

    assert published.read_text() == compatibility_page(FOLDER)
