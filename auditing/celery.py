"""Celery: the application and the whole table of periodic work.

The embedded broker (folders in DATA_DIR) does not deliver a task again after a crash; so every task
here is periodic, safe to repeat, and no money depends on one.
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from celery import Celery
from celery.signals import beat_embedded_init, setup_logging

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "auditing.settings")

_PR_SET_PDEATHSIG: Final = 1

# task → seconds between two runs
SCHEDULE: Final = {
    "billing.anchor_heads": 30.0,
    "billing.reap": 15.0,
    "billing.end_orphaned_keys": 30.0,
    "billing.expire_adjustments": 3600.0,
    "billing.verify_recent": 300.0,
    "billing.verify_full": 3600.0,  # where none was done for a day
    "providers.check_keys": 15.0,
    "proxy.check_resting": 15.0,
    "proxy.prune_stored_answers": 3600.0,
    "analytics.roll_up": 60.0,
    "audit.make_partitions": 12 * 3600.0,
    "audit.erase_payloads": 900.0,
    "audit.prune_idempotency_keys": 900.0,
    "audit.prune_refusals": 3600.0,
    "users.prune_sessions": 6 * 3600.0,
    "quotas.end_expired": 300.0,
    "quotas.prune_idempotency_keys": 3600.0,
    "risk.prune_findings": 6 * 3600.0,
}


def _defaults() -> dict[str, Any]:
    return {
        "timezone": "UTC",
        "task_serializer": "json",
        "accept_content": ["json"],
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        "beat_scheduler": "auditing.steady:SteadyScheduler",
        # A run that has waited longer than its period is dropped by the worker that takes it: the
        # next one does its work. Where no worker takes any, the scheduler bounds the queue.
        "beat_schedule": {
            task: {"task": task, "schedule": seconds, "options": {"expires": seconds}}
            for task, seconds in SCHEDULE.items()
        },
    }


def make_app() -> Celery:
    """Return the application, configured by Django's settings."""
    celery = Celery("auditing")
    celery.config_from_object("django.conf:settings", namespace="CELERY")
    # Defaults and not `conf.update`, which would read the settings as soon as this is imported.
    celery.add_defaults(_defaults)
    celery.on_after_configure.connect(make_broker_folders)
    # By name: only workers need to import it.
    celery.steps["worker"].update(("auditing.beat:BeatWatch", "auditing.idleness:IdleWatch"))
    celery.autodiscover_tasks()
    return celery


def make_broker_folders(sender: Celery, **_: object) -> None:
    """Make the folders of the embedded broker; a broker elsewhere has none."""
    options: Mapping[str, str] = sender.conf.broker_transport_options
    for name, folder in options.items():
        if "folder" in name:
            Path(folder).mkdir(parents=True, exist_ok=True, mode=0o700)


@setup_logging.connect
def keep_django_logging(**_: object) -> None:
    """Leave logging to Django's settings: a receiver of this signal takes it from Celery."""


@beat_embedded_init.connect
def end_with_the_worker(**_: object) -> None:
    """Make the kernel end the beat process when its worker dies, however it dies."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


app = make_app()
