"""The demo provider as a command, and where it refuses to listen."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import aiohttp
import pytest

from apps.providers.demo import DemoProvider, NotLoopback
from apps.providers.demo.faults import describe
from apps.providers.demo.tests.peer import MESSAGES, WAIT_SECONDS_MAX
from apps.providers.management.commands.demo_provider import Command

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "localhost.example"])  # noqa: S104 - refused
def test_only_loopback_is_served(host: str) -> None:
    with pytest.raises(NotLoopback):
        DemoProvider(host=host)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_the_module_serves_until_it_is_told_to_stop(number: int, tmp_path: Path) -> None:
    command = ["-m", "apps.providers.demo", "--port", "0", "--log", str(tmp_path / "log")]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    line = (await asyncio.wait_for(process.stdout.readline(), 20)).decode()
    address = line.removeprefix("listening on ").strip()

    async with aiohttp.ClientSession() as session:
        body = {"model": "m", "messages": MESSAGES}
        async with session.post(f"http://{address}/v1/chat/completions", json=body) as response:
            status = response.status
    process.send_signal(number)
    code = await asyncio.wait_for(process.wait(), WAIT_SECONDS_MAX)

    assert line.startswith("listening on 127.0.0.1:")
    assert (status, code) == (200, 0)
    assert len((tmp_path / "log").read_text().splitlines()) == 1


def test_the_management_command_lists_the_faults() -> None:
    text = Command().create_parser("manage.py", "demo_provider").format_help()

    assert describe().strip() in text
    assert "--api-key" in text
