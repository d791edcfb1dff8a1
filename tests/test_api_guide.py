"""The commands of docs/api.md are run as they stand, and answer what the guide shows.

They run as one bash script on a real gateway. Lines outside of ```sh blocks become empty, so that
bash numbers lines as the guide does; what a block prints goes to a file named by its last line.
A ```json answer block stands for the last line that the block before it printed: keys and JSON
types must be the same, and so must each `code`. "…" stands for what is left out.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import pytest

from apps.billing.customers import create_user
from tests.support.databases import Database
from tests.support.gateway import DemoThread, GatewayProcess
from tests.support.guides import Block, read_blocks

_GUIDE: Final = Path(__file__).resolve().parent.parent / "docs" / "api.md"
_PASSWORD: Final = "correct horse battery staple"
_SECONDS_MAX: Final = 120
_SHOWN_CHARACTERS: Final = 2_000
_LEFT_OUT: Final = "…"
# Stands in the guide's first line, which is its title.
_PRELUDE: Final = (
    "set -Eeuo pipefail; "
    'failed() { echo "docs/api.md, line ${BASH_LINENO[-2]}: $BASH_COMMAND" >&2; }; '
    "trap failed ERR"
)


@pytest.fixture
def gateway(committed_db: Database, tmp_path: Path) -> Iterator[GatewayProcess]:
    """Run a gateway with an administrator."""
    create_user(username="admin", email="admin@example.com", password=_PASSWORD, is_superuser=True)
    process = GatewayProcess.start(tmp_path, committed_db)
    yield process
    process.stop()


@pytest.fixture
def demo() -> Iterator[DemoThread]:
    """Run a demo provider."""
    provider = DemoThread()
    yield provider
    provider.stop()


def test_the_guide_does_what_it_says(
    gateway: GatewayProcess, demo: DemoThread, tmp_path: Path
) -> None:
    assert shutil.which("curl"), "The examples of docs/api.md need curl."
    assert shutil.which("bash"), "The examples of docs/api.md need bash."
    guide = _GUIDE.read_text()
    folder = tmp_path / "guide"
    folder.mkdir()
    script = folder / "guide.sh"
    script.write_text(make_script(guide))

    done = subprocess.run(
        ["bash", str(script)],
        cwd=folder,
        env={
            "PATH": os.environ["PATH"],
            "GATEWAY": gateway.url,
            "ADMIN_PASSWORD": _PASSWORD,
            "PROVIDER_URL": demo.base_url,
        },
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_SECONDS_MAX,
    )

    assert done.returncode == 0, f"{done.stderr}{_last_output(folder)}"
    blocks = read_blocks(guide)
    assert {block.info for block in blocks} == {"sh", "json answer", "text"}
    differences = [
        f"docs/api.md, line {shown.line}, {difference}"
        for command, shown in pairwise(blocks)
        if shown.info == "json answer"
        for difference in _compare(shown, folder / f"{command.line}.out")
    ]
    assert differences == []


@pytest.mark.parametrize(
    ("shown", "real", "differences"),
    [
        ({"id": 1, "name": "a"}, {"id": 2, "name": "b"}, []),
        ({"id": 1}, {"id": 2, "name": "b"}, ["answer.name: is not shown"]),
        ({"id": 1, "age": 3}, {"id": 2}, ["answer.age: is not answered"]),
        ({"id": 1, "…": "…"}, {"id": 2, "name": "b"}, []),
        ({"id": 1, "age": 3, "…": "…"}, {"id": 2}, ["answer.age: is not answered"]),
        ({"id": "1"}, {"id": 1}, ["answer.id: a number is shown as a string"]),
        ({"at": None}, {"at": "noon"}, ["answer.at: a string is shown as a null"]),
        ({"code": "a"}, {"code": "b"}, ["answer.code: b is shown as a"]),
        ([{"id": 1}], [{"id": 1}, {"id": 2}], ["answer: 2 items are shown as 1"]),
        ([{"id": 1}, "…"], [{"id": 1}, {"id": 2}], []),
        ([{"id": 1}, "…"], [{}], ["answer.0.id: is not answered"]),
        ([{"id": 1}, {"id": 2}, "…"], [{"id": 1}], ["answer: 1 items are shown as 2"]),
    ],
)
def test_an_answer_that_is_not_as_shown_is_named(
    shown: Any, real: Any, differences: list[str]
) -> None:
    assert list(find_differences(shown, real, "answer")) == differences


def make_script(guide: str) -> str:
    """Return the ```sh blocks as a script with the same numbers of lines."""
    lines = [_PRELUDE, *("" for _ in guide.splitlines()[1:])]
    for block in read_blocks(guide):
        if block.info == "sh":
            text = block.text.splitlines()
            end = block.line - 1
            lines[end - len(text) - 1 : end + 1] = ["{", *text, f"}} > '{block.line}.out'"]
    return "\n".join(lines) + "\n"


def find_differences(shown: Any, real: Any, where: str) -> Iterator[str]:
    """Name what of a real answer is not as it is shown."""
    if _kind(shown) != _kind(real):
        yield f"{where}: a {_kind(real)} is shown as a {_kind(shown)}"
    elif isinstance(shown, dict):
        names = shown.keys() - {_LEFT_OUT}
        yield from (f"{where}.{name}: is not answered" for name in sorted(names - real.keys()))
        if _LEFT_OUT not in shown:
            yield from (f"{where}.{name}: is not shown" for name in sorted(real.keys() - names))
        for name in sorted(names & real.keys()):
            yield from find_differences(shown[name], real[name], f"{where}.{name}")
            if name == "code" and shown[name] != real[name]:
                yield f"{where}.code: {real[name]} is shown as {shown[name]}"
    elif isinstance(shown, list):
        items = [item for item in shown if item != _LEFT_OUT]
        if len(items) > len(real) or (items == shown and len(items) < len(real)):
            yield f"{where}: {len(real)} items are shown as {len(items)}"
        for index, (item, answered) in enumerate(zip(items, real, strict=False)):
            yield from find_differences(item, answered, f"{where}.{index}")


def _compare(shown: Block, printed: Path) -> Iterator[str]:
    """Name what the last line that was printed has otherwise than the guide shows it."""
    try:
        answer = json.loads(shown.text)
    except ValueError as error:
        yield f"is no JSON: {error}"
        return
    if not printed.exists():
        yield "follows no commands"
        return
    yield from find_differences(answer, json.loads(printed.read_text().splitlines()[-1]), "answer")


def _kind(value: Any) -> str:
    kinds: dict[type[Any], str] = {dict: "object", list: "list", str: "string", bool: "flag"}
    return "null" if value is None else kinds.get(type(value), "number")


def _last_output(folder: Path) -> str:
    printed = sorted(folder.glob("*.out"), key=lambda path: int(path.stem))
    return printed[-1].read_text()[-_SHOWN_CHARACTERS:] if printed else ""
