"""A running demo provider, and the official SDK pointed at it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio
from openai import AsyncOpenAI

from apps.providers.demo import DemoProvider
from apps.providers.demo.tests.peer import (
    WAIT_SECONDS_MAX,
)


@pytest_asyncio.fixture
async def provider() -> AsyncIterator[DemoProvider]:
    demo = DemoProvider()
    await demo.start()
    yield demo
    await demo.stop()


@pytest_asyncio.fixture
async def client(provider: DemoProvider) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(
        api_key="sk-test", base_url=provider.base_url, max_retries=0, timeout=WAIT_SECONDS_MAX
    ) as sdk:
        yield sdk
