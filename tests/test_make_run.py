"""What `make run` starts: `manage.py up` in a copy of the repository, as a new user has it."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import stat
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests.support.processes import children_of, free_port, until

pytestmark = [pytest.mark.long, pytest.mark.sqlite]

ROOT = Path(__file__).parent.parent
WAIT_SECONDS = 60.0


@dataclass(slots=True)
class Running:
    """A supervisor with all its programs, which are its process group."""

    process: asyncio.subprocess.Process
    output: list[str] = field(default_factory=list)

    async def read_until(self, text: str) -> None:
        """Read what it says until a line has the text."""
        assert self.process.stdout is not None
        async with asyncio.timeout(WAIT_SECONDS):
            while not self.output or text not in self.output[-1]:
                line = await self.process.stdout.readline()
                assert line, "".join(self.output)
                self.output.append(line.decode())

    def find_line(self, start: str) -> str:
        """Return the one line that starts so."""
        (line,) = [line for line in self.output if line.startswith(start)]
        return line.strip()

    async def interrupt(self) -> int:
        """Press Ctrl-C, which a terminal sends to the whole group, and return the status."""
        os.killpg(self.process.pid, signal.SIGINT)
        return await self.end()

    async def end(self) -> int:
        """Wait for the supervisor and return its status."""
        return await asyncio.wait_for(self.process.wait(), WAIT_SECONDS)


@dataclass(slots=True)
class Installation:
    """A copy of the repository without any data."""

    directory: Path
    port: int
    started: list[Running] = field(default_factory=list)

    @property
    def data_dir(self) -> Path:
        """Where its state is."""
        return self.directory / "data"

    @property
    def url(self) -> str:
        """Where it serves."""
        return f"http://127.0.0.1:{self.port}"

    async def up(self, **variables: str) -> Running:
        """Start it and return without waiting; standard error goes to a file."""
        with (self.directory / "errors.log").open("ab") as errors:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "manage.py", "up"),
                cwd=self.directory,
                env={"PATH": os.environ["PATH"], "PORT": str(self.port), **variables},
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )
        running = Running(process)
        self.started.append(running)
        return running

    async def up_and_serving(self) -> Running:
        """Start it and wait for its welcome."""
        running = await self.up()
        await running.read_until("Kept in ")
        return running

    def errors(self) -> list[str]:
        """Return the lines of standard error so far."""
        return (self.directory / "errors.log").read_text().splitlines()


@pytest.fixture
async def installation(tmp_path: Path) -> AsyncIterator[Installation]:
    """Copy what the gateway consists of; end whatever the test started and did not end."""
    directory = tmp_path / "repository"
    directory.mkdir()
    for name in ("apps", "auditing"):
        shutil.copytree(ROOT / name, directory / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "manage.py", directory)
    copy = Installation(directory, free_port())
    yield copy
    for running in copy.started:
        for pid in list_group(running.process.pid):
            os.kill(pid, signal.SIGKILL)
        await running.process.wait()


def list_group(group: int) -> list[int]:
    """Return the processes of a process group that have not ended."""
    members = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, process_group = path.read_text().rpartition(") ")[2].split()[:3]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(process_group) == group and state != "Z":
            members.append(int(path.parent.name))
    return members


def find_program(group: int, argument: str) -> tuple[int, list[str]]:
    """Return the process id and arguments of the one program with that argument."""
    found = []
    for pid in list_group(group):
        arguments = Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0").split("\0")
        if argument in arguments:
            found.append((pid, arguments))
    (program,) = found
    return program


async def run_in_bash(line: str) -> str:
    """Return what a pasted line prints."""
    shell = await asyncio.create_subprocess_exec("bash", "-c", line, stdout=asyncio.subprocess.PIPE)
    output, _ = await asyncio.wait_for(shell.communicate(), WAIT_SECONDS)
    assert shell.returncode == 0
    return output.decode()


async def test_the_printed_line_works_and_data_outlives_a_restart(
    installation: Installation,
) -> None:
    first = await installation.up_and_serving()
    async with httpx.AsyncClient(base_url=installation.url) as client:
        ready = await client.get("/readyz")
        models = await client.get(
            "/v1/models", headers={"Authorization": first.find_line("Demo key: ").split()[-1]}
        )
    answer = await run_in_bash(first.find_line("curl "))
    first_programs = list_group(first.process.pid)

    status = await first.interrupt()

    assert ready.status_code == 200
    assert models.status_code == 401  # Without "Bearer" the key is no credential.
    assert answer.rstrip().endswith("data: [DONE]")
    assert stat.S_IMODE((installation.data_dir / "first-run.txt").stat().st_mode) == 0o600
    assert len(first_programs) == 5  # Supervisor, gateway, worker, its beat, demo provider.
    assert status == 0
    assert list_group(first.process.pid) == []

    second = await installation.up_and_serving()
    headers = {"Authorization": f"Bearer {second.find_line('Demo key: ').split()[-1]}"}
    async with httpx.AsyncClient(base_url=installation.url, headers=headers) as client:
        models = await client.get("/v1/models")
        usage = await client.get("/v1/usage")
    await second.interrupt()

    assert second.find_line("Demo key: ") == first.find_line("Demo key: ")
    assert second.output[0] == "\n"  # Nothing was migrated or collected again.
    assert models.json()["data"][0]["id"] == "demo-chat"
    assert usage.json()["requests"] == 1


async def test_nothing_outlives_a_killed_supervisor_and_it_starts_again(
    installation: Installation,
) -> None:
    first = await installation.up_and_serving()

    first.process.kill()
    await first.end()
    await until(lambda: list_group(first.process.pid) == [])

    second = await installation.up_and_serving()
    answer = await run_in_bash(second.find_line("curl "))
    assert answer.rstrip().endswith("data: [DONE]")


async def test_a_worker_whose_beat_dies_is_replaced_with_it(installation: Installation) -> None:
    running = await installation.up_and_serving()
    programs = list_group(running.process.pid)
    # Of the four programs, the worker is the one that has a child.
    (beat,) = [
        child for pid in programs if pid != running.process.pid for child in children_of(pid)
    ]

    os.kill(beat, signal.SIGKILL)
    await running.read_until("worker ended with status 1; starting it again in 1 s.")

    await until(lambda: len(list_group(running.process.pid)) == 5)


async def test_a_program_that_dies_is_replaced(installation: Installation) -> None:
    running = await installation.up_and_serving()
    gateway, _ = find_program(running.process.pid, "serve")

    os.kill(gateway, signal.SIGKILL)
    await running.read_until("gateway 1 ended with status -9")
    async with httpx.AsyncClient(base_url=installation.url, timeout=WAIT_SECONDS) as client:
        async with asyncio.timeout(WAIT_SECONDS):
            while (await client.get("/readyz")).status_code != 200:  # noqa: ASYNC110  As above.
                await asyncio.sleep(0.05)

    answer = await run_in_bash(running.find_line("curl "))
    assert answer.rstrip().endswith("data: [DONE]")


async def test_a_second_start_on_the_same_data_is_refused_in_one_line(
    installation: Installation,
) -> None:
    first = await installation.up_and_serving()
    before = len(installation.errors())

    second = await installation.up(PORT=str(free_port()))

    assert await second.end() == 2
    (line,) = [line for line in installation.errors()[before:] if not line.startswith("{")]
    assert line.startswith("error: A gateway already runs on DATA_DIR ")
    assert f"(process {first.process.pid})" in line


async def test_a_taken_port_is_refused_in_one_line(installation: Installation) -> None:
    with socket.create_server(("127.0.0.1", installation.port)):
        running = await installation.up()
        status = await running.end()

    assert status == 2
    assert installation.errors() == [
        f"error: PORT {installation.port} is in use; stop what listens there, or set another PORT."
    ]


async def test_a_taken_port_of_the_demo_provider_is_given_up(installation: Installation) -> None:
    first = await installation.up_and_serving()
    _, arguments = find_program(first.process.pid, "apps.providers.demo")
    demo_port = int(arguments[-1])
    await first.interrupt()

    with socket.create_server(("127.0.0.1", demo_port)):
        second = await installation.up_and_serving()
        answer = await run_in_bash(second.find_line("curl "))

    assert answer.rstrip().endswith("data: [DONE]")


async def test_a_setting_that_makes_no_sense_is_one_line(installation: Installation) -> None:
    running = await installation.up(WORKERS="2")

    assert await running.end() == 2
    assert installation.errors() == [
        "error: WORKERS above 1 needs PostgreSQL: SQLite takes one gateway process."
    ]
