"""The published matrix."""

import json

from django.conf import settings

from apps.proxy.dialects.conversion import DIALECTS
from apps.proxy.management.compatibility import compatibility_page
from apps.proxy.tests.dialects.golden_cells import FOLDER


def test_the_page_tells_every_cell_of_the_golden_files() -> None:
    parts = dict(
        part.split("\n", 1) for part in compatibility_page(FOLDER).split("\n## Clients of ")[1:]
    )

    assert list(parts) == [dialect.title for dialect in DIALECTS.values()]
    told = 0
    for path in FOLDER.glob("*.json"):
        feature = json.loads(path.read_text())
        for client, dialect in DIALECTS.items():
            _, _, after = f"\n{parts[dialect.title]}".partition(f"\n### {feature['feature']}\n")
            lines = after.partition("\n### ")[0].strip().split("\n")
            columns = [title.strip() for title in lines[0].strip("|").split("|")]
            for row in feature["rows"]:
                cells = {
                    DIALECTS[pair.partition(">")[2]].title: cell
                    for pair, cell in row["cells"].items()
                    if pair.startswith(f"{client}>")
                }
                if not cells:
                    assert not any(line.startswith(f"| {row['name']} |") for line in lines)
                    continue
                (line,) = (line for line in lines if line.startswith(f"| {row['name']} |"))
                shown = [text.strip() for text in line.strip("|").split(" | ")]
                for title, cell in cells.items():
                    assert shown[columns.index(f"→ {title}")] == _shown(cell)
                    told += 1
    assert told == sum(
        len(row["cells"])
        for path in FOLDER.glob("*.json")
        for row in json.loads(path.read_text())["rows"]
    )


def _shown(cell: dict[str, str]) -> str:
    if cell["verdict"] == "exact":
        return "✓"
    return f"≈ {cell['how']}" if cell["verdict"] == "adapted" else f"✗ `{cell['param']}`"


def test_a_request_has_a_cell_for_every_provider_that_its_row_is_about() -> None:
    for path in FOLDER.glob("*.json"):
        feature = json.loads(path.read_text())
        rows = feature["rows"] if feature["kind"] == "request" else []
        for row in rows:
            clients = {pair.partition(">")[0] for pair in row["cells"]}
            pairs = {f"{one}>{other}" for one in clients for other in DIALECTS if one != other}
            lacking = {pair.partition(">")[2] for pair in pairs - row["cells"].keys()}
            # Whoever has no cell is said to be none that it is about, and nobody else is.
            assert bool(lacking) == ("only" in row), row["name"]
            assert lacking.isdisjoint(row.get("only", ())), row["name"]


def test_the_page_that_is_published_is_the_one_of_these_files() -> None:
    published = settings.BASE_DIR / "docs" / "compatibility.md"

    assert published.read_text() == compatibility_page(FOLDER)
