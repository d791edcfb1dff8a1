"""What the environment may say, and what stops the start with one clear line."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from auditing.environment import read_environment

GOOD_KEY = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (
        "DATABASE_URL", "REDIS_URL", "WORKERS", "PORT", "SECRET_KEY", "ENCRYPTION_KEY",
        "PRIVATE_UPSTREAMS", "ALLOWED_HOSTS", "CORS_ALLOWED_ORIGINS", "TRUSTED_PROXIES", "PAYLOADS",
        "DEMO_API_KEY", "ADMIN_PASSWORD", "ADMIN_EMAIL",
    ):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))


BAD = {
    "mysql": ({"DATABASE_URL": "mysql://u@h/d"}, "DATABASE_URL: MySQL is not supported yet"),
    "unknown database": ({"DATABASE_URL": "oracle://x"}, "DATABASE_URL must start with"),
    "workers on sqlite": ({"WORKERS": "2"}, "WORKERS above 1 needs PostgreSQL"),
    "no number": ({"PORT": "http"}, "PORT must be a whole number from 1 to 65535"),
    "port out of range": ({"PORT": "70000"}, "PORT must be a whole number from 1 to 65535"),
    "short secret": ({"SECRET_KEY": "short"}, "SECRET_KEY must have at least 32"),
    "dull secret": ({"SECRET_KEY": "a" * 40}, "SECRET_KEY must be random"),
    "django's default secret": (
        {"SECRET_KEY": "django-insecure-0123456789abcdefghijklmnop"},
        "SECRET_KEY must be random",
    ),
    "bad encryption key": ({"ENCRYPTION_KEY": "not a key"}, "ENCRYPTION_KEY: "),
    "one secret for both": (
        {"SECRET_KEY": GOOD_KEY, "ENCRYPTION_KEY": GOOD_KEY},
        "SECRET_KEY and ENCRYPTION_KEY must differ",
    ),
    "any host": ({"ALLOWED_HOSTS": "*"}, "ALLOWED_HOSTS must name hosts"),
    "any origin": ({"CORS_ALLOWED_ORIGINS": "*"}, "CORS_ALLOWED_ORIGINS must name origins"),
    "no origin": ({"CORS_ALLOWED_ORIGINS": "example.com"}, "is not an origin"),
    "no network": ({"PRIVATE_UPSTREAMS": "everything"}, "PRIVATE_UPSTREAMS: "),
    "no proxy": ({"TRUSTED_PROXIES": "nginx"}, "TRUSTED_PROXIES: 'nginx' is no network"),
    "no redis": ({"REDIS_URL": "http://h"}, "REDIS_URL must start with redis://"),
    "unknown payload mode": ({"PAYLOADS": "some"}, "PAYLOADS must be one of"),
    "demo key of another kind": ({"DEMO_API_KEY": "key-1"}, "DEMO_API_KEY must be sk-"),
    "short password": ({"ADMIN_PASSWORD": "12345"}, "ADMIN_PASSWORD must have at least 8"),
    "no e-mail": ({"ADMIN_EMAIL": "root"}, "ADMIN_EMAIL must be an e-mail address"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_setting_that_cannot_be_right_stops_the_start(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    values, message = BAD[case]
    for name, value in values.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(ImproperlyConfigured) as raised:
        read_environment()

    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_secrets_are_made_once_and_only_their_owner_reads_them(tmp_path: Path) -> None:
    first = read_environment()

    second = read_environment()

    path = tmp_path / "data" / "secrets.env"
    assert (first.secret_key, first.encryption_key) == (second.secret_key, second.encryption_key)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_secrets_that_others_can_read_stop_the_start(tmp_path: Path) -> None:
    read_environment()
    (tmp_path / "data" / "secrets.env").chmod(0o644)

    with pytest.raises(ImproperlyConfigured) as raised:
        read_environment()

    assert "chmod 600" in str(raised.value)


def test_two_installations_have_different_secrets(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = read_environment()
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "other"))

    second = read_environment()

    assert first.secret_key != second.secret_key
    assert first.encryption_key != second.encryption_key


def test_every_setting_is_in_the_example_file() -> None:
    example = (Path(__file__).parents[2] / ".env.example").read_text()

    missing = [
        name.upper()
        for name in type(read_environment()).__dataclass_fields__
        if f"{name.upper()}=" not in example
    ]

    assert missing == []
