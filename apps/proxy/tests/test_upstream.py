"""What a broken attempt means."""

from __future__ import annotations

import errno

import aiohttp
import pytest

from apps.proxy.upstream import failure_of


@pytest.mark.parametrize(
    ("error", "row", "text"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), "E47", "ConnectionRefusedError"),
        (aiohttp.ServerDisconnectedError(), "E47", "stale"),
        (aiohttp.ConnectionTimeoutError(), "E47", "ConnectionTimeoutError"),
        (TimeoutError(), "E48", "TimeoutError"),
    ],
)
def test_a_provider_that_cannot_be_asked_failed(error: Exception, row: str, text: str) -> None:
    failure = failure_of(error, None)

    assert (failure.error.row, failure.text) == (row, text)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_no_provider_is_to_blame_where_this_process_can_open_no_more(number: int) -> None:
    failure = failure_of(OSError(number, "no more"), None)

    assert (failure.error.row, failure.error.status) == ("E37", 503)


def test_a_provider_that_breaks_off_after_its_head_failed() -> None:
    failure = failure_of(ConnectionResetError(), 200)

    assert (failure.error.row, failure.status_code) == ("E46", 200)
