"""What the environment may say, and what stops the start with one clear line."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from auditing.environment import read_environment

ROOT = Path(__file__).parents[2]
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
    "database without an address": ({"DATABASE_URL": "postgres"}, "DATABASE_URL must start with"),
    "database that cannot be read": (
        {"DATABASE_URL": "postgresql://u:canary@h:port/d"},
        "DATABASE_URL cannot be read. Write it as postgresql://",
    ),
    "database without a name": ({"DATABASE_URL": "postgresql://h"}, "DATABASE_URL names no"),
    "workers on sqlite": ({"WORKERS": "2"}, "WORKERS above 1 needs PostgreSQL"),
    "no number": ({"PORT": "http"}, "PORT must be a whole number from 1 to 65535"),
    "a digit that is no number": (
        {"PORT": "\u00b2"},
        "PORT must be a whole number from 1 to 65535",
    ),
    "port out of range": ({"PORT": "70000"}, "PORT must be a whole number from 1 to 65535"),
    "part of a dollar": (
        {"ADJUSTMENT_USD_ALONE": "1.5"},
        "ADJUSTMENT_USD_ALONE must be a whole number from 0 to 9000000",
    ),
    "short secret": ({"SECRET_KEY": "short"}, "SECRET_KEY must have at least 32"),
    "dull secret": ({"SECRET_KEY": "a" * 40}, "SECRET_KEY must be random"),
    "django's default secret": (
        {"SECRET_KEY": "django-insecure-0123456789abcdefghijklmnop"},
        "SECRET_KEY must be random",
    ),
    "dull encryption key": ({"ENCRYPTION_KEY": "00" * 32}, "ENCRYPTION_KEY must be random"),
    "dull second encryption key": (
        {"ENCRYPTION_KEY": f"{GOOD_KEY},{'A' * 43}="},
        "ENCRYPTION_KEY must be random",
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
    "short metrics token": (
        {"METRICS_TOKEN": "0123456789abcde"},
        "METRICS_TOKEN must be 16 to 256",
    ),
    "metrics token that no header can hold": (
        {"METRICS_TOKEN": "0123456789 abcdef"},
        "METRICS_TOKEN must be 16 to 256",
    ),
    "no e-mail": ({"ADMIN_EMAIL": "root"}, "ADMIN_EMAIL must be an e-mail address"),
}


@pytest.mark.parametrize(("text", "dollars"), [("", None), ("0", 0), ("100", 100)])
def test_no_second_administrator_is_something_else_than_always_one(
    monkeypatch: pytest.MonkeyPatch, text: str, dollars: int | None
) -> None:
    monkeypatch.setenv("ADJUSTMENT_USD_ALONE", text)

    assert read_environment().adjustment_usd_alone == dollars


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
    assert "canary" not in str(raised.value)


def test_a_data_directory_that_cannot_be_made_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "file" / "data"))

    with pytest.raises(ImproperlyConfigured) as raised:
        read_environment()

    assert str(raised.value) == (
        f"DATA_DIR {tmp_path / 'file' / 'data'} cannot be used: Not a directory. Name a directory "
        "that the gateway's user may write to."
    )


@pytest.mark.parametrize(
    ("command", "url", "reason"),
    [
        ("migrate", "sqlite:///{}/no/db.sqlite3", "unable to open database file."),
        ("migrate", "postgresql://u:canary@127.0.0.1:1/d", "connection failed: "),
        (
            "verify_ledger",
            "sqlite:///{}/db.sqlite3",
            "no such table: billing_verifiedhead. Run manage.py migrate first.",
        ),
    ],
)
def test_a_database_that_cannot_be_used_is_one_line(
    tmp_path: Path, command: str, url: str, reason: str
) -> None:
    variables = {
        "PATH": os.environ["PATH"],
        "DATA_DIR": str(tmp_path / "data"),
        "DATABASE_URL": url.format(tmp_path),
    }

    ended = subprocess.run(
        [sys.executable, "manage.py", command],
        cwd=ROOT,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"error: the database of DATABASE_URL: {reason}")
    assert "canary" not in line


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


def test_a_dollar_is_a_letter_like_others(monkeypatch: pytest.MonkeyPatch) -> None:
    secret_key = "$HOME-of-32-letters-and-a-few-more"
    monkeypatch.setenv("SECRET_KEY", secret_key)
    monkeypatch.setenv("ADMIN_PASSWORD", "$ADMIN_PASSWORD")

    found = read_environment()

    assert (found.secret_key, found.admin_password) == (secret_key, "$ADMIN_PASSWORD")


def test_what_is_secret_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://gateway:canary-one@localhost/gateway")
    monkeypatch.setenv("REDIS_URL", "redis://:canary-two@localhost/0")
    monkeypatch.setenv("ADMIN_PASSWORD", "canary-three")
    monkeypatch.setenv("DEMO_API_KEY", "sk-canary-four")
    found = read_environment()

    shown = repr(found)

    assert "canary" not in shown
    assert found.secret_key not in shown
    assert found.encryption_key not in shown
    assert "port=8000" in shown


def test_an_embedded_database_is_made_for_its_owner_only(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    variables = {"PATH": os.environ["PATH"], "DATA_DIR": str(folder), "DATABASE_URL": ""}

    # In a process of its own: this one has its database.
    subprocess.run(
        ["bash", "-c", f"umask 022; exec {sys.executable} manage.py migrate audit 0001"],
        cwd=ROOT,
        env=variables,
        capture_output=True,
        check=True,
        timeout=60,
    )

    modes = {found.name: stat.S_IMODE(found.stat().st_mode) for found in folder.iterdir()}
    assert (folder / "db.sqlite3").stat().st_size > 0
    assert set(modes.values()) == {0o600}, modes


def test_every_setting_is_in_the_example_file() -> None:
    example = (ROOT / ".env.example").read_text()

    missing = [
        name.upper()
        for name in type(read_environment()).__dataclass_fields__
        if f"{name.upper()}=" not in example
    ]

    assert missing == []
