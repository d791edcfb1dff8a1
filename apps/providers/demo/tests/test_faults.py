"""The table of faults, and every fault on every endpoint."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import aiohttp
import pytest

from apps.providers.demo import DemoProvider
from apps.providers.demo.faults import FAULTS, describe
from apps.providers.demo.tests.peer import MESSAGES, connect, ended, post


async def test_the_table_of_faults_is_served(provider: DemoProvider) -> None:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{provider.port}/") as response,
    ):
        text = await response.text()

    assert text == describe()
    assert [name for name, fault in FAULTS.items() if fault.signature(name) not in text] == []


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("path", ["chat", "chat stream", "completions", "embeddings", "models"])
async def test_no_fault_breaks_the_provider(provider: DemoProvider, name: str, path: str) -> None:
    small = {"slow_first": "(0)", "drip": "(1000000)", "huge_line": "(9999)", "big_body": "(9999)"}
    small |= {"gzip_bomb": "(99999)", "late_after_done": "(1)"}
    model = f"m:tokens=3,fault={name}{small.get(name, '')}"
    body: dict[str, Any] = {"model": model}
    route = "chat/completions" if path.startswith("chat") else path
    body |= {"messages": MESSAGES} if "chat" in path else {"prompt": "x", "input": "x"}
    body |= {"stream": True} if "stream" in path else {}
    content = b"" if path == "models" else json.dumps(body).encode()
    method, target = ("GET", f"models/{model}") if path == "models" else ("POST", route)
    lines = [f"{method} /v1/{target} HTTP/1.1", "connection: close"]
    head = "\r\n".join([*lines, f"content-length: {len(content)}", "", ""])

    async with connect(provider) as peer:
        peer.writer.write(head.encode() + content)
        if name in {"never_end", "stall_after"}:
            await peer.read_until(b"\r\n\r\n")
        else:
            with contextlib.suppress(ConnectionResetError):
                await peer.read_all()

    record = await ended(provider)
    assert record["fault"] == name
    if FAULTS[name].is_answered and name != "flaky":
        assert record["ended"] == "done"
    else:
        assert record["ended"] in {"fault", "client_closed", "done"}
    status, _, _ = await post(provider, "m")
    assert status == 200
