"""What a broken attempt means."""

from __future__ import annotations

import errno
import socket

import pytest

from apps.proxy.http_client import BadAnswer, ConnectFailed, ConnectionClosed
from apps.proxy.upstream import failure_of


@pytest.mark.parametrize(
    ("error", "row", "text"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), "E47", "ConnectionRefusedError"),
        (ConnectFailed("TimeoutError"), "E47", "ConnectFailed"),
        (ConnectionClosed(), "E47", "ConnectionClosed"),
        (BadAnswer("html"), "E47", "BadAnswer"),
    ],
)
def test_a_provider_that_cannot_be_asked_failed(error: Exception, row: str, text: str) -> None:
    failure = failure_of(error, None)

    assert (failure.error.row, failure.text) == (row, text)


def test_what_kept_a_connection_from_being_made_is_named() -> None:
    error = ConnectFailed("gaierror")
    error.__cause__ = socket.gaierror(socket.EAI_NONAME, "no such name")

    failure = failure_of(error, None)

    assert (failure.error.row, failure.text) == ("E47", "gaierror")


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_no_provider_is_to_blame_where_this_process_can_open_no_more(number: int) -> None:
    error = ConnectFailed("OSError")
    error.__cause__ = OSError(number, "no more")

    failure = failure_of(error, None)

    assert (failure.error.row, failure.error.status) == ("E37", 503)


def test_a_provider_that_breaks_off_after_its_head_failed() -> None:
    failure = failure_of(ConnectionClosed(), 200)

    assert (failure.error.row, failure.status_code) == ("E46", 200)
