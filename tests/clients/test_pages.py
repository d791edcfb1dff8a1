"""The code of docs/clients is run as it stands, and prints what the page shows after it.

The blocks of a page are one program. Only the gateway's address is another one.
"""

from __future__ import annotations

import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Final

import pytest

from apps.ai_models.models import AIModel
from tests.clients.client import INSTALLED, PYTHON, ROOT, check_installed, clean_environment
from tests.support.bench import PRICES, Bench
from tests.support.guides import Block, read_blocks

pytestmark = pytest.mark.long

PAGES: Final = ROOT / "docs" / "clients"
_ADDRESS: Final = "http://127.0.0.1:8000"
_MARK: Final = "\x1e"
_SECONDS_MAX: Final = 300
# What runs a page, its file, and how a program in that language prints the mark.
_RUNNERS: Final = {
    "python": ([str(PYTHON)], "page.py", 'print("\\x1e", end="")'),
    "js": (["node"], "page.mjs", 'process.stdout.write("\\x1e");'),
    "sh": (["bash", "-euo", "pipefail"], "page.sh", "printf '\\x1e'"),
}
EXECUTED: Final = {
    "openai-python.md": "python",
    "openai-node.md": "js",
    "anthropic-python.md": "python",
    "anthropic-node.md": "js",
    "google-genai.md": "python",
    "langchain.md": "python",
    "llm.md": "sh",
}


@pytest.fixture(scope="module")
def key(module_bench: Bench) -> str:
    """Make the models that the pages name, and return a key for them."""
    bench = module_bench
    caller = bench.make_caller()
    for name, upstream_name in (
        ("demo-chat", "demo-chat:tools=on"),
        ("demo-embedding", "demo-embedding"),
    ):
        model = bench.make_model(upstream_name, prices=PRICES)
        AIModel.objects.filter(pk=model.pk).update(name=name)
        bench.wait_for(f"/v1/models/{name}", caller.raw, 404)
    return caller.raw


@pytest.mark.parametrize("page", EXECUTED)
def test_the_code_of_a_page_prints_what_the_page_shows(
    bench: Bench, key: str, page: str, tmp_path: Path
) -> None:
    check_installed()
    language = EXECUTED[page]
    command, file_name, mark = _RUNNERS[language]
    blocks = read_blocks((PAGES / page).read_text())
    assert {block.info for block in blocks} == {language, "text"}
    program = tmp_path / file_name
    program.write_text(_join(blocks, language, mark).replace(_ADDRESS, bench.gateway.url))
    (tmp_path / "node_modules").symlink_to(INSTALLED / "node_modules")

    done = subprocess.run(
        [*command, str(program)],
        cwd=tmp_path,
        # What a program prints and what it complains of come in their order, as on a terminal.
        env={**clean_environment(tmp_path), "GATEWAY_KEY": key, "PYTHONUNBUFFERED": "1"},
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_SECONDS_MAX,
    )

    assert done.returncode == 0, done.stderr[-4000:]
    printed = [text.strip() for text in done.stdout.split(_MARK)[1:]]
    assert printed == _shown(blocks, language)


def test_every_page_is_in_the_index_and_the_readme_leads_there() -> None:
    pages = {path.name for path in PAGES.glob("*.md")} - {"README.md"}
    index = (PAGES / "README.md").read_text()

    assert [name for name in sorted(pages) if f"({name})" not in index] == []
    assert "(docs/clients/README.md)" in (ROOT / "README.md").read_text()
    assert set(EXECUTED) <= pages


def _join(blocks: list[Block], language: str, mark: str) -> str:
    lines = [part for block in blocks if block.info == language for part in (mark, block.text)]
    return "\n".join(lines) + "\n"


def _shown(blocks: list[Block], language: str) -> list[str]:
    """Return what the page shows after each block of code; each is followed by one."""
    pairs = list(pairwise(blocks))
    assert all(after.info == "text" for block, after in pairs if block.info == language)
    return [after.text.strip() for block, after in pairs if block.info == language]
