"""Programs kept alive and ended together, with real processes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from apps.proxy.supervisor import Program, Supervisor
from tests.support.processes import until

WAIT_SECONDS = 10.0
# Reports its process id, then ends politely on SIGTERM. It sleeps a little at a time: a signal that
# came just before a long wait would be heard only after it.
POLITE = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
with open(sys.argv[1], "a") as file:
    file.write(f"{os.getpid()} {os.getpgrp()}\\n")
while True:
    time.sleep(0.05)
"""
# Reports its process id and does not end on SIGTERM.
STUBBORN = POLITE.replace("lambda *_: sys.exit(0)", "signal.SIG_IGN")
SUPERVISE = """
import asyncio, sys, pathlib
from apps.proxy.supervisor import Program, Supervisor
program = Program(name="p", command=(sys.executable, "-c", sys.argv[1], sys.argv[2]),
                  environment={}, directory=pathlib.Path("/"))
async def nothing(): pass
asyncio.run(Supervisor([program], say=print).run(nothing))
"""
ROOT = Path(__file__).parent.parent.parent.parent


async def do_nothing() -> None:
    """Stand in for what runs beside the programs."""


def make_program(path: Path, source: str = POLITE, **options: object) -> Program:
    """Return a program that appends its process id to the file."""
    given: dict[str, object] = {"name": path.name, **options}
    return Program(
        command=(sys.executable, "-c", source, str(path)),
        environment={},
        directory=path.parent,
        **given,  # type: ignore[arg-type]  # The fields of Program, chosen by each test.
    )


def read_pids(path: Path) -> list[int]:
    """Return the process ids that were reported, oldest first."""
    return [int(line.split()[0]) for line in _lines(path)]


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def is_alive(pid: int) -> bool:
    """Return whether the process runs; one that ended and was not yet asked about does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except FileNotFoundError:
        return False


async def test_a_signal_ends_every_program_and_the_supervisor(tmp_path: Path) -> None:
    files = [tmp_path / "one", tmp_path / "two"]
    supervisor = Supervisor([make_program(file) for file in files], say=lambda line: None)
    running = asyncio.create_task(supervisor.run(do_nothing))
    await until(lambda: all(read_pids(file) for file in files))
    pids = [read_pids(file)[0] for file in files]

    os.kill(os.getpid(), signal.SIGTERM)

    assert await asyncio.wait_for(running, WAIT_SECONDS) == 0
    assert [is_alive(pid) for pid in pids] == [False, False]


async def test_nobody_has_to_read_what_is_said(tmp_path: Path) -> None:
    """As in `make run | head`: who dies is started again, and one signal ends all."""

    def say(line: str) -> None:
        raise BrokenPipeError

    file = tmp_path / "one"
    supervisor = Supervisor([make_program(file)], say=say)
    running = asyncio.create_task(supervisor.run(do_nothing))
    await until(lambda: len(read_pids(file)) == 1)
    os.kill(read_pids(file)[0], signal.SIGKILL)
    await until(lambda: len(read_pids(file)) == 2)

    os.kill(os.getpid(), signal.SIGTERM)

    assert await asyncio.wait_for(running, WAIT_SECONDS) == 0
    assert not is_alive(read_pids(file)[1])


async def test_all_programs_stay_in_the_process_group(tmp_path: Path) -> None:
    file = tmp_path / "one"
    supervisor = Supervisor([make_program(file)], say=lambda line: None)
    running = asyncio.create_task(supervisor.run(do_nothing))
    await until(lambda: bool(read_pids(file)))

    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(running, WAIT_SECONDS)

    assert _lines(file)[0].split()[1] == str(os.getpgrp())


async def test_an_interrupt_of_the_whole_group_reaches_the_programs_as_a_request_to_stop(
    tmp_path: Path,
) -> None:
    # Without a handler of its own the program would die of SIGINT.
    file = tmp_path / "one"
    ends = tmp_path / "ends"
    source = POLITE.replace(
        "sys.exit(0)", f"(open({str(ends)!r}, 'a').write('asked'), sys.exit(0))"
    )
    running = asyncio.create_task(
        Supervisor([make_program(file, source)], say=lambda line: None).run(do_nothing)
    )
    await until(lambda: bool(read_pids(file)))

    os.kill(read_pids(file)[0], signal.SIGINT)
    os.kill(os.getpid(), signal.SIGINT)
    await asyncio.wait_for(running, WAIT_SECONDS)

    assert ends.read_text() == "asked"


async def test_a_program_that_dies_is_started_again(tmp_path: Path) -> None:
    file = tmp_path / "one"
    said: list[str] = []
    supervisor = Supervisor([make_program(file)], say=said.append)
    running = asyncio.create_task(supervisor.run(do_nothing))
    await until(lambda: len(read_pids(file)) == 1)

    os.kill(read_pids(file)[0], signal.SIGKILL)
    await until(lambda: len(read_pids(file)) == 2)
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(running, WAIT_SECONDS)

    assert said[0] == "one ended with status -9; starting it again in 1 s."
    assert len(read_pids(file)) == 2


async def test_a_second_signal_kills_what_does_not_stop(tmp_path: Path) -> None:
    file = tmp_path / "stubborn"
    program = make_program(file, STUBBORN, stop_seconds=1000.0)
    supervisor = Supervisor([program], say=lambda line: None)
    running = asyncio.create_task(supervisor.run(do_nothing))
    await until(lambda: bool(read_pids(file)))

    os.kill(os.getpid(), signal.SIGINT)
    await until(lambda: supervisor.is_stopping)
    os.kill(os.getpid(), signal.SIGINT)

    assert await asyncio.wait_for(running, WAIT_SECONDS) == 0
    assert not is_alive(read_pids(file)[0])


async def test_a_program_of_a_lower_rank_has_ended_before_the_next_is_told(tmp_path: Path) -> None:
    ends = tmp_path / "ends"
    source = POLITE.replace(
        "sys.exit(0)", f"(open({str(ends)!r}, 'a').write(sys.argv[1] + '\\n'), sys.exit(0))"
    )
    files = [tmp_path / "last", tmp_path / "first"]
    programs = [
        make_program(files[0], source, stop_rank=1),
        make_program(files[1], source, stop_rank=0),
    ]
    running = asyncio.create_task(Supervisor(programs, say=lambda line: None).run(do_nothing))
    await until(lambda: all(read_pids(file) for file in files))

    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(running, WAIT_SECONDS)

    assert ends.read_text().splitlines() == [str(files[1]), str(files[0])]


async def test_an_essential_program_that_is_misconfigured_ends_everything(tmp_path: Path) -> None:
    file = tmp_path / "other"
    refusing = make_program(tmp_path / "refusing", "raise SystemExit(2)", is_essential=True)
    supervisor = Supervisor([make_program(file), refusing], say=lambda line: None)

    status = await asyncio.wait_for(supervisor.run(do_nothing), WAIT_SECONDS)

    assert status == 2
    assert not any(is_alive(pid) for pid in read_pids(file))


async def test_a_killed_supervisor_takes_its_programs_along(tmp_path: Path) -> None:
    file = tmp_path / "stubborn"
    supervisor = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", SUPERVISE, STUBBORN, str(file)), cwd=ROOT
    )
    await until(lambda: bool(read_pids(file)))

    supervisor.kill()
    await supervisor.wait()

    await until(lambda: not is_alive(read_pids(file)[0]))
