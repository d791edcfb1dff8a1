"""The clients: programs in other environments that take jobs and tell what they saw.

`make test-clients` installs them in `.clients`.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import pytest

ROOT: Final = Path(__file__).parents[2]
INSTALLED: Final = ROOT / ".clients"
PROGRAMS: Final = Path(__file__).parent / "programs"
PYTHON: Final = INSTALLED / "venv" / "bin" / "python"
LLM: Final = INSTALLED / "venv" / "bin" / "llm"
_STOP_SECONDS: Final = 60  # LangChain takes its time on a busy machine
# How long an order may take: it bounds, and measures nothing. On two cores that others used as well
# all clients together made fifteen calls a second. The first is as long as three tries may take.
_ORDER_SECONDS: Final = 900
_JOB_SECONDS: Final = 1

Job = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a client saw of one job. A usage: input, cache read, output, reasoning.

    `answers` are the ids of answered requests, those of `usages` first: the gateway's, or where
    the client shows none what the provider calls its answer.
    """

    text: str
    data: Any
    answers: tuple[str, ...]
    usages: tuple[tuple[int, int, int, int], ...]
    error: dict[str, Any] | None


class Client(Protocol):
    """Something that does jobs."""

    name: str

    def do(self, jobs: Sequence[Job], *, parallel: int = 1) -> list[Outcome]:
        """Do jobs, so many at once, and return the outcomes in their order."""
        ...

    def stop(self) -> None:
        """End what runs."""
        ...


class ProgramClient:
    """A program that runs as long as the client is used."""

    def __init__(self, name: str, command: Sequence[str], directory: Path) -> None:
        """`directory` is empty and takes what the program logs."""
        self.name = name
        self._log_path = directory / "stderr.log"
        with self._log_path.open("wb") as log:
            self._process = subprocess.Popen(
                list(command),
                cwd=directory,
                env=clean_environment(directory),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def do(self, jobs: Sequence[Job], *, parallel: int = 1) -> list[Outcome]:
        """Do jobs, so many at once, and return the outcomes in their order."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        order = json.dumps({"parallel": parallel, "jobs": list(jobs)})
        bound = threading.Timer(_ORDER_SECONDS + _JOB_SECONDS * len(jobs), self._process.kill)
        bound.start()
        try:
            self._process.stdin.write(order + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        finally:
            bound.cancel()
        assert line, f"{self.name} ended: {self._log_path.read_text()[-4000:]}"
        return [
            Outcome(
                text=seen["text"],
                data=seen["data"],
                answers=tuple(seen["answers"]),
                usages=tuple((a, b, c, d) for a, b, c, d in seen["usages"]),
                error=seen["error"],
            )
            for seen in json.loads(line)
        ]

    def stop(self) -> None:
        """End the program."""
        self._process.communicate(timeout=_STOP_SECONDS)


def start_client(name: str, directory: Path) -> ProgramClient:
    """Start one of COMMANDS in an empty directory."""
    check_installed()
    # Node looks for modules beside the program.
    for source in (*PROGRAMS.glob("*.py"), *PROGRAMS.glob("*.mjs")):
        (directory / source.name).write_text(source.read_text())
    (directory / "node_modules").symlink_to(INSTALLED / "node_modules")
    command, program = COMMANDS[name]
    return ProgramClient(name, [command, str(directory / program)], directory)


COMMANDS: Final = {
    "python": (str(PYTHON), "python_sdk.py"),
    "node": ("node", "node_sdk.mjs"),
    "langchain": (str(PYTHON), "langchain_chat.py"),
    "responses": (str(PYTHON), "responses_sdk.py"),
    "responses-node": ("node", "responses_sdk.mjs"),
    "anthropic": (str(PYTHON), "anthropic_sdk.py"),
    "anthropic-node": ("node", "anthropic_sdk.mjs"),
    "genai": (str(PYTHON), "genai_sdk.py"),
    "genai-node": ("node", "genai_sdk.mjs"),
}


def check_installed() -> None:
    """Fail, and never skip, where the clients are missing."""
    missing = [path for path in (PYTHON, LLM, INSTALLED / "node_modules") if not path.exists()]
    if missing:
        names = ", ".join(str(path.relative_to(ROOT)) for path in missing)
        pytest.fail(f"{names} is missing: `make test-clients` installs the clients.", pytrace=False)


def clean_environment(home: Path) -> dict[str, str]:
    """Return an environment that holds nothing about this machine but how to find programs."""
    path = f"{PYTHON.parent}{os.pathsep}{os.environ['PATH']}"
    return {"PATH": path, "HOME": str(home), "LANG": "C.UTF-8"}
