"""Tests of the static files as they are collected."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from django.core.management import call_command
from django.test import Client
from pytest_django import Settings

SCRIPT = "let a = 1;\n//# sourceMappingURL=app.js.map\n"


@pytest.fixture
def source(tmp_path: Path, settings: Settings) -> Path:
    """Return a folder whose files are all that is collected."""
    settings.STATICFILES_DIRS = [tmp_path / "source"]
    settings.STATICFILES_FINDERS = ["django.contrib.staticfiles.finders.FileSystemFinder"]
    settings.STATIC_ROOT = tmp_path / "root"
    storage = {"BACKEND": "auditing.static_files.MaplessStorage"}
    settings.STORAGES = {**settings.STORAGES, "staticfiles": storage}
    (tmp_path / "source").mkdir()
    return tmp_path / "source"


def test_source_maps_are_neither_kept_nor_served(source: Path, settings: Settings) -> None:
    (source / "app.js").write_text(SCRIPT * 200)
    (source / "app.js.map").write_text('{"version": 3}' * 200)

    for _ in range(2):
        call_command("collectstatic", interactive=False, verbosity=0)

    names = sorted(path.name for path in settings.STATIC_ROOT.iterdir())
    assert len(names) == 5
    assert "app.js" in names
    assert "app.js.gz" in names
    assert not any(".map" in name for name in names)
    assert b"".join(Client().get("/static/app.js")).startswith(b"let a = 1;")
    assert Client().get("/static/app.js.map").status_code == 404
    assert Client().get("/static/../source/app.js").status_code == 404


def test_what_is_collected_may_be_read_by_a_web_server_of_another_user(
    source: Path, settings: Settings
) -> None:
    (source / "new").mkdir()
    (source / "new" / "app.css").write_text("a { color: red }\n" * 200)
    (source / "old").mkdir()
    (source / "old" / "app.css").write_text("b { color: red }\n" * 200)
    (settings.STATIC_ROOT / "old").mkdir(mode=0o700, parents=True)
    settings.STATIC_ROOT.chmod(0o700)

    before = os.umask(0o077)
    try:
        call_command("collectstatic", interactive=False, verbosity=0)
    finally:
        os.umask(before)

    found = [settings.STATIC_ROOT, *settings.STATIC_ROOT.rglob("*")]
    assert len(found) == 12
    assert {path.stat().st_mode & 0o777 for path in found if path.is_dir()} == {0o755}
    assert {path.stat().st_mode & 0o777 for path in found if path.is_file()} == {0o644}
