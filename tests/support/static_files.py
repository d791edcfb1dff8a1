"""Pages in tests without collected static files: links are plain, nothing has to be built first."""

from __future__ import annotations

import pytest
from pytest_django import Settings


@pytest.fixture(autouse=True)
def plain_static_files(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Serve from an empty directory and link without a manifest."""
    root = tmp_path_factory.getbasetemp() / "static"
    root.mkdir(exist_ok=True)
    settings.STATIC_ROOT = root
    plain = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
    settings.STORAGES = {**settings.STORAGES, "staticfiles": plain}
