"""The table of faults, and every fault on every endpoint of every dialect."""

from __future__ import annotations

import contextlib

import aiohttp
import pytest

from apps.providers.demo import DemoProvider
from apps.providers.demo.faults import FAULTS, describe
from apps.providers.demo.tests.peer import connect, ended, post
from apps.providers.demo.tests.spoken import SPOKEN
from tests.support.cases import for_all

# With their defaults these take long, or much memory.
_SMALL = {
    "slow_first": "(0)",
    "drip": "(1000000)",
    "huge_line": "(9999)",
    "big_body": "(9999)",
    "gzip_bomb": "(99999)",
    "late_after_done": "(1)",
}


async def test_the_table_of_faults_is_served(provider: DemoProvider) -> None:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{provider.port}/") as response,
    ):
        text = await response.text()

    assert text == describe()
    assert [name for name, fault in FAULTS.items() if fault.signature(name) not in text] == []


@pytest.mark.parametrize("spoken", SPOKEN)
@for_all("name", FAULTS)
async def test_no_fault_breaks_the_provider(provider: DemoProvider, name: str, spoken: str) -> None:
    provider.clear_calls()
    model = f"m:tokens=3,fault={name}{_SMALL.get(name, '')}"

    async with connect(provider) as peer:
        peer.writer.write(SPOKEN[spoken].render(model))
        if name in {"never_end", "stall_after"}:
            await peer.read_until(b"\r\n\r\n")
        else:
            with contextlib.suppress(ConnectionResetError):
                await peer.read_all()

    record = await ended(provider)
    assert (record["model"], record["fault"]) == (model, name)
    if FAULTS[name].is_answered and name != "flaky":
        assert record["ended"] == "done"
    else:
        assert record["ended"] in {"fault", "client_closed", "done"}
    status, _, _ = await post(provider, "m")
    assert status == 200
