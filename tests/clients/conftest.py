"""One gateway and one demo provider for the tests of a module, and the clients of other people."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.clients.client import COMMANDS, Client, start_client
from tests.clients.llm_command import LlmCommand
from tests.e2e.conftest import (
    bench,
    demo,
    module_bench,
    pytest_runtest_teardown,
)

__all__ = ["bench", "demo", "module_bench", "pytest_runtest_teardown"]

# Those that chat with OpenAI's Chat Completions.
CHATS = ("python", "node", "langchain", "llm")


@pytest.fixture(scope="session")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Client]]:
    """Start every client."""
    started: dict[str, Client] = {
        name: start_client(name, tmp_path_factory.mktemp(name)) for name in COMMANDS
    }
    started["llm"] = LlmCommand(tmp_path_factory.mktemp("llm"))
    yield started
    for client in started.values():
        client.stop()


@pytest.fixture(params=CHATS)
def client(request: pytest.FixtureRequest, clients: dict[str, Client]) -> Client:
    """Return each of the clients of Chat Completions in turn."""
    return clients[str(request.param)]
