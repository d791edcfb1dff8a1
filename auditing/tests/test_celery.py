"""The table of periodic work, and the embedded broker."""

from __future__ import annotations

import logging
import stat
from pathlib import Path

from auditing.celery import SCHEDULE, app, make_app


def test_every_scheduled_task_exists() -> None:
    app.loader.import_default_modules()

    assert SCHEDULE.keys() <= app.tasks.keys()


def test_a_run_that_waited_longer_than_its_period_is_dropped() -> None:
    schedule = app.conf.beat_schedule

    assert {name: entry["options"]["expires"] for name, entry in schedule.items()} == SCHEDULE


def test_the_folders_of_the_embedded_broker_are_made_for_its_owner_only(tmp_path: Path) -> None:
    celery = make_app()
    celery.conf.broker_transport_options = {
        "data_folder_in": str(tmp_path / "queue"),
        "data_folder_out": str(tmp_path / "queue"),
        "control_folder": str(tmp_path / "control"),
    }

    celery.on_after_configure.send(sender=celery)

    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {"queue": 0o700, "control": 0o700}


def test_celery_leaves_logging_alone() -> None:
    before = list(logging.getLogger().handlers)

    app.log.setup(loglevel=logging.DEBUG, redirect_stdouts=False)

    assert logging.getLogger().handlers == before
