"""Tests of the static files as they are collected."""

from __future__ import annotations

from pathlib import Path

from django.core.management import call_command
from django.test import Client
from pytest_django import Settings

SCRIPT = "let a = 1;\n//# sourceMappingURL=app.js.map\n"


def test_source_maps_are_neither_kept_nor_served(tmp_path: Path, settings: Settings) -> None:
    source, root = tmp_path / "source", tmp_path / "root"
    source.mkdir()
    (source / "app.js").write_text(SCRIPT * 200)
    (source / "app.js.map").write_text('{"version": 3}' * 200)
    settings.STATICFILES_DIRS = [source]
    settings.STATICFILES_FINDERS = ["django.contrib.staticfiles.finders.FileSystemFinder"]
    settings.STATIC_ROOT = root
    storage = {"BACKEND": "auditing.static_files.MaplessStorage"}
    settings.STORAGES = {**settings.STORAGES, "staticfiles": storage}

    for _ in range(2):
        call_command("collectstatic", interactive=False, verbosity=0)

    names = sorted(path.name for path in root.iterdir())
    assert len(names) == 5
    assert "app.js" in names
    assert "app.js.gz" in names
    assert not any(".map" in name for name in names)
    assert b"".join(Client().get("/static/app.js")).startswith(b"let a = 1;")
    assert Client().get("/static/app.js.map").status_code == 404
    assert Client().get("/static/../source/app.js").status_code == 404
