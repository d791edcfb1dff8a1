"""The embedded broker where files of it are not whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from kombu import Connection

from auditing.celery import app

pytestmark = pytest.mark.sqlite  # No database is asked.


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with room for tasks and exchanges."""
    (tmp_path / "queue").mkdir()
    (tmp_path / "control").mkdir()
    return tmp_path


@pytest.fixture
def connection(folder: Path) -> Iterator[Connection]:
    """Return a connection as workers make one."""
    options = {
        "data_folder_in": str(folder / "queue"),
        "data_folder_out": str(folder / "queue"),
        "control_folder": str(folder / "control"),
    }
    with app.connection(transport_options=options) as found:
        yield found


def test_tasks_that_are_not_whole_are_passed_over(connection: Connection, folder: Path) -> None:
    (folder / "queue" / "0_first.torn.msg").touch()
    (folder / "queue" / "1_second.torn.msg").write_text('{"body": ')

    with connection.SimpleQueue("torn") as queue:
        queue.put("whole")
        message = queue.get(block=False)
        with pytest.raises(queue.Empty):
            queue.get(block=False)

    assert message.payload == "whole"
    assert list((folder / "queue").iterdir()) == []


def test_an_exchange_of_which_nothing_was_written_is_written_anew(
    connection: Connection, folder: Path
) -> None:
    exchange = folder / "control" / "empty.exchange"
    exchange.touch()

    with connection.SimpleQueue("empty") as queue:
        queue.put("sent")
        message = queue.get(block=False)

    assert message.payload == "sent"
    assert exchange.read_text() == '[["empty", "", "empty"]]'
