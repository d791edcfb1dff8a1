"""The image and the compose file fit each other and the settings. Read, not built."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import yaml

from auditing.environment import Environment

ROOT = Path(__file__).parent.parent
IMAGE = (ROOT / "docker" / "Dockerfile").read_text()
COMPOSE = (ROOT / "docker" / "compose.yml").read_text()
# What the compose file decides itself: one gateway process, its volume, and no demonstration.
DECIDED = {"WORKERS", "DATA_DIR", "DEMO_API_KEY"}


def test_the_programs_for_backups_are_of_the_server_s_version() -> None:
    programs = re.findall(r"postgresql-client-(\d+)", IMAGE)
    server = re.findall(r"image: postgres:(\d+)\n", COMPOSE)

    assert programs == server == ["17"]


def test_every_setting_can_be_made_in_the_compose_file() -> None:
    names = {field.name.upper() for field in fields(Environment)} - DECIDED

    missing = {
        name for name in names if f"  {name}: " not in COMPOSE and f"{{{name}:" not in COMPOSE
    }

    assert missing == set()


def test_who_has_calls_running_is_stopped_ten_seconds_after_they_were_to_end() -> None:
    services = yaml.safe_load(COMPOSE)["services"]

    # Durations are summed: 30s10s is 40 seconds.
    assert [services[name]["stop_grace_period"] for name in ("gateway", "web", "nginx")] == [
        "${DRAIN_SECONDS:-30}s10s"
    ] * 3


def test_whatever_ends_is_started_again() -> None:
    services = yaml.safe_load(COMPOSE)["services"]

    restarts = {name: service["restart"] for name, service in services.items()}

    # It ends when its work is done.
    assert restarts.pop("setup") == "on-failure"
    assert set(restarts.values()) == {"unless-stopped"}
