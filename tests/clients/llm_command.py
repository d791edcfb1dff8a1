"""The `llm` command line as a client: each job is a command, as somebody would type it."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from tests.clients.client import LLM, Job, Outcome, check_installed, clean_environment
from tests.clients.programs.calls import PICTURE

PROMPT: Final = "Say something."
_SECONDS_MAX: Final = 300  # a command that shares two cores with twenty others starts in a minute
_FUNCTION: Final = """
def find_weather(city: str) -> str:
    "Tell the weather of a city."
    return f"21 degrees in {city}"
"""
_HEEDING_CTRL_C: Final = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])
"""
_ERROR: Final = re.compile(r"Error code: (\d+) - (.+)")
_SCHEMA: Final = "city, degrees int"
_COMMANDS: Final[dict[str, list[str]]] = {
    "plain": ["--no-stream"],
    "stream": [],
    "tools": ["--no-stream", "--functions", _FUNCTION],
    "structured": ["--no-stream", "--schema", _SCHEMA],
    "vision": ["--no-stream", "--attachment", "picture.png"],
}


class LlmCommand:
    """Runs `llm`, each time with a configuration and a log of its own."""

    name = "llm"

    def __init__(self, directory: Path) -> None:
        """`directory` is empty and takes one directory for each job."""
        check_installed()
        self._directory = directory
        self._count = 0

    def do(self, jobs: Sequence[Job], *, parallel: int = 1) -> list[Outcome]:
        """Do jobs, so many at once, and return the outcomes in their order."""
        with ThreadPoolExecutor(parallel) as threads:
            return list(threads.map(self._do, self._number(jobs)))

    def stop(self) -> None:
        """Nothing runs."""

    def _number(self, jobs: Sequence[Job]) -> list[tuple[Path, Job]]:
        numbered = [(self._directory / str(self._count + at), job) for at, job in enumerate(jobs)]
        self._count += len(jobs)
        return numbered

    def _do(self, numbered: tuple[Path, Job]) -> Outcome:
        home, job = numbered
        environment = prepare(home, job)
        if job["do"] == "abort":
            return _abort(home, environment)
        answer = subprocess.run(
            [str(LLM), "prompt", "-m", "gateway", *_COMMANDS[job["do"]], PROMPT],
            cwd=home,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS_MAX,
            check=False,
        )
        if answer.returncode:
            return Outcome("", None, (), (), _read_error(answer.stderr))
        text = answer.stdout.removesuffix("\n")
        data = json.loads(text) if job["do"] == "structured" else None
        answers, usages = _read_log(home)
        return Outcome("" if data else text, data, answers, usages, None)


def prepare(home: Path, job: Job) -> dict[str, str]:
    """Write the configuration as docs/clients/llm.md tells, and return the environment."""
    home.mkdir()
    (home / "picture.png").write_bytes(base64.b64decode(PICTURE.partition(",")[2]))
    entry = {
        "model_id": "gateway",
        "model_name": job["model"],
        "api_base": job["base_url"],
        "api_key_name": "gateway",
        "supports_tools": True,
        "supports_schema": True,
        "vision": True,
    }
    # JSON is YAML.
    (home / "extra-openai-models.yaml").write_text(json.dumps([entry]))
    (home / "keys.json").write_text(json.dumps({"gateway": job["key"]}))
    return {**clean_environment(home), "LLM_USER_PATH": str(home)}


def _abort(home: Path, environment: dict[str, str]) -> Outcome:
    """Press Ctrl-C when the first words are there."""
    process = subprocess.Popen(
        # What a shell runs in the background ignores Ctrl-C, and so would whatever it starts.
        [sys.executable, "-c", _HEEDING_CTRL_C, str(LLM), "prompt", "-m", "gateway", PROMPT],
        cwd=home,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    text = os.read(process.stdout.fileno(), 1_000).decode()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=_SECONDS_MAX)
    return Outcome(text, None, (), (), None)


def _read_log(home: Path) -> tuple[tuple[str, ...], tuple[tuple[int, int, int, int], ...]]:
    """Return id and usage of each answer from the command's log, read without the command."""
    with closing(sqlite3.connect(home / "logs.db")) as log:
        rows = log.execute(
            "SELECT response_json, input_tokens, output_tokens, token_details FROM turns"
            " ORDER BY id"
        ).fetchall()
    answers = tuple(str(json.loads(row[0])["id"]) for row in rows)
    return answers, tuple(_read_usage(*row[1:]) for row in rows)


def _read_usage(prompt: int, output: int, details: str | None) -> tuple[int, int, int, int]:
    found = json.loads(details or "{}")
    cached = found.get("prompt_tokens_details", {}).get("cached_tokens", 0)
    reasoning = found.get("completion_tokens_details", {}).get("reasoning_tokens", 0)
    return prompt - cached, cached, output - reasoning, reasoning


def _read_error(printed: str) -> dict[str, Any]:
    """Return the error in what the command prints: `Error code: 404 - its message`."""
    found = _ERROR.search(printed)
    if found is None:
        return {"status": None, "message": printed.strip()}
    return {"status": int(found[1]), "message": found[2]}
