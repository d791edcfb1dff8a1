"""Secrets at rest: in no dump, no argument, no message; and no start with insecure settings."""

from __future__ import annotations

import ast
import base64
import io
import re
import sqlite3
import subprocess
import tarfile
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as configured
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from kombu.utils.json import dumps
from pytest_django import Settings

from apps.api_keys.issue import issue_key
from apps.audit.models import APIRequest, Payload
from apps.audit.payloads import seal_payload
from apps.audit.retention import Selection, erase_payloads
from apps.billing.anchors import append_anchor
from apps.billing.ledger.commands import Held, PayloadRecord
from apps.billing.ledger.store import Engine, flush
from apps.billing.tests.backup_kit import pg_bin
from apps.billing.verification import anchors_path, report
from apps.core.crypto import SecretUnreadable, Vault
from apps.providers.credentials import add_key, open_secret
from apps.providers.models import Provider, ProviderKey
from apps.providers.rotation import reseal_provider_keys
from apps.proxy.loader import apply_delta, load_delta, load_snapshot
from apps.proxy.snapshot import Catalogue
from apps.users.tokens import open_session
from auditing.celery import SCHEDULE, app
from auditing.environment import read_environment
from tests.e2e.dump import find_text
from tests.support.databases import Database
from tests.support.people import make_admin
from tests.support.world import Gateway, make_world

PROVIDER_KEY = "canaryproviderkey5d1c0b9a8e7f6a5b"
PASSWORD = "canary-password-5d1c0b9a8e7f6a5b"
ROOT = Path(__file__).resolve().parents[1]
OLD, NEW = bytes(range(32)), bytes(range(1, 33))


@dataclass(frozen=True, slots=True)
class Planted:
    """Secrets that are in use."""

    secrets: dict[str, str]
    database: Database


@pytest.fixture
def planted(committed_db: Database, data_dir: Path) -> Planted:
    """Use one of each."""
    provider = Provider.objects.create(name="somewhere", base_url="https://api.example.com/v1")
    add_key(provider=provider, secret=PROVIDER_KEY)
    user = make_admin(username="root", password=PASSWORD)
    _, api_key = issue_key(user=user, name="mine")
    tokens = open_session(user=user, request=None)
    signing_key = str(configured.SIMPLE_JWT["SIGNING_KEY"])
    secrets = {
        "provider key": PROVIDER_KEY,
        "password": PASSWORD,
        "API key": api_key,
        "access token": tokens.access,
        "refresh token": tokens.refresh,
        "signing key": signing_key,
        "secret key": configured.SECRET_KEY,
        "encryption key": configured.ENCRYPTION_KEY,
    }
    return Planted(secrets, committed_db)


def dump(database: Database, folder: Path) -> bytes:
    """Return the database as its own programs write it out: as text, and as files."""
    if database.server is None:
        with closing(sqlite3.connect(database.name)) as connection:
            text = "\n".join(connection.iterdump())
        files = [Path(database.name), Path(f"{database.name}-wal")]
        return text.encode() + b"".join(path.read_bytes() for path in files if path.exists())
    target = folder / "dump.sql"
    parameters = database.server.parameters(database.name)
    url = "postgresql://{user}@{host}:{port}/{dbname}".format(**parameters)
    subprocess.run([pg_bin() / "pg_dump", f"--file={target}", url], check=True)
    return target.read_bytes()


def forms_of(secret: str) -> list[bytes]:
    """Return how a secret may stand in a dump: as text, in hexadecimal, in base64."""
    raw = secret.encode()
    return [raw, raw.hex().encode(), raw.hex().upper().encode(), base64.b64encode(raw)[:-4]]


def test_a_dump_of_the_database_holds_no_secret_in_clear(planted: Planted, tmp_path: Path) -> None:
    dumped = dump(planted.database, tmp_path)

    sealed = ProviderKey.objects.get().sealed_secret.encode()
    found = {
        name
        for name, secret in planted.secrets.items()
        if any(form in dumped for form in forms_of(secret)) or find_text(planted.database, secret)
    }
    assert sealed in dumped  # The dump is one: what is stored stands in it.
    assert found == set()


def test_a_backup_without_secrets_holds_none(planted: Planted, tmp_path: Path) -> None:
    target = tmp_path / "backup.tar.gz"
    call_command("backup", str(target), "--pg-bin", str(pg_bin()), stdout=io.StringIO())

    with tarfile.open(target) as archive:
        files = [archive.extractfile(member) for member in archive.getmembers()]
        everything = b"".join(file.read() for file in files if file is not None)

    assert [
        name
        for name, secret in planted.secrets.items()
        if any(form in everything for form in forms_of(secret))
    ] == []


def test_one_flipped_byte_anywhere_in_a_sealed_secret_is_noticed(planted: Planted) -> None:
    key = ProviderKey.objects.get()
    version, name, encoded = key.sealed_secret.split(".")
    raw = base64.b64decode(encoded)
    opened, complaints = 0, ""

    for position in range(len(raw)):
        changed = bytearray(raw)
        changed[position] ^= 1
        key.sealed_secret = f"{version}.{name}.{base64.b64encode(changed).decode()}"
        try:
            open_secret(key)
            opened += 1
        except SecretUnreadable as error:
            complaints += str(error)

    assert (opened, len(raw)) == (0, 12 + len(PROVIDER_KEY) + 16)
    assert PROVIDER_KEY not in complaints


def test_the_wrong_encryption_key_is_a_clear_error_that_tells_no_secret(
    planted: Planted, settings: Settings
) -> None:
    settings.ENCRYPTION_KEY = NEW.hex()

    with pytest.raises(SecretUnreadable) as raised:
        open_secret(ProviderKey.objects.get())

    assert str(raised.value).startswith("no key of ENCRYPTION_KEY opens ")
    assert NEW.hex() not in str(raised.value)
    assert raised.value.__cause__ is None


def test_a_gateway_that_runs_reads_every_secret_throughout_a_rotation(
    committed_db: Database, settings: Settings
) -> None:
    settings.ENCRYPTION_KEY = OLD.hex()
    provider = make_world().provider
    for number in range(3):
        add_key(provider=provider, secret=f"sk-number-{number}-0123456789")
    # The gateway was restarted with both keys before; it has the old seals in memory.
    settings.ENCRYPTION_KEY = f"{NEW.hex()},{OLD.hex()}"
    snapshot = load_snapshot()
    before = _secrets(snapshot.catalogue)

    reseal_provider_keys(batch_rows=2)
    delta = load_delta(snapshot.version)
    assert delta is not None
    apply_delta(snapshot, delta)

    assert delta.catalogue is not None
    assert _secrets(snapshot.catalogue) == before
    assert before == {f"sk-number-{number}-0123456789" for number in range(3)}


def _secrets(catalogue: Catalogue) -> set[str]:
    return {
        credential.secret
        for model in catalogue.models.values()
        for route in model.routes
        for credential in route.provider.credentials
    }


def test_after_bodies_were_erased_the_ledger_still_proves_itself(
    committed_db: Database, data_dir: Path, ledger_connect: Any
) -> None:
    engine: Engine = ledger_connect()
    gateway = Gateway(make_world(), engine)
    for number in range(3):
        held = gateway.hold(5_000)
        assert isinstance(held, Held)
        settle_with_bodies(gateway, held, f"prompt {number}".encode())
    append_anchor(anchors_path(), datetime.now(UTC))
    assert Payload.objects.count() == 3
    columns = ("pk", "charge_nanos", "payload_digest", "hash")
    before = list(APIRequest.objects.order_by("pk").values_list(*columns))

    done = erase_payloads(Selection(before=datetime.now(UTC) + timedelta(minutes=1)), reason="test")

    found = report(is_full=True, anchors_path=anchors_path(), now=datetime.now(UTC))
    assert done.count == 3
    assert Payload.objects.count() == 0
    assert list(APIRequest.objects.order_by("pk").values_list(*columns)) == before
    assert (found.is_clean, found.requests, found.findings) == (True, 3, ())


def settle_with_bodies(gateway: Gateway, held: Held, body: bytes) -> None:
    """Charge a hold for three tokens and store its bodies, as a gateway does."""
    sealed = seal_payload(body, b"answer", is_response_truncated=False, keeps_bodies=True)
    command = gateway.resolution(held, 3, payload_digest=sealed.digest)._replace(
        payload=PayloadRecord(
            salt=sealed.salt,
            request_body=sealed.request_body,
            response_body=sealed.response_body,
            is_request_truncated=False,
            is_response_truncated=False,
        ),
    )
    flush(
        gateway.engine,
        gateway.batch(resolves=(command,)),
        incarnation_id=gateway.incarnation_id,
    )


def test_scheduled_messages_carry_no_arguments_at_all() -> None:
    app.loader.import_default_modules()

    for name, entry in app.conf.beat_schedule.items():
        assert set(entry) == {"task", "schedule", "options"}, name
        assert set(entry["options"]) == {"expires"}, name
        # What a message could be given, a caller could put a secret into.
        assert app.tasks[name].run.__code__.co_argcount == 0, name
    assert SCHEDULE["audit.erase_payloads"] <= 900
    assert PROVIDER_KEY not in dumps(app.conf.beat_schedule)


@pytest.fixture
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An environment that says nothing but where DATA_DIR is."""
    for name in ("SECRET_KEY", "ENCRYPTION_KEY", "DATABASE_URL"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "fresh"))
    return tmp_path / "fresh"


INSECURE = {
    "zero length": ("SECRET_KEY=\nENCRYPTION_KEY=\n", "SECRET_KEY must have at least 32"),
    "one is missing": ("SECRET_KEY=" + "a1b2c3d4" * 6 + "\n", "is damaged"),
    "nothing": ("", "is damaged"),
    "short encryption key": (
        "SECRET_KEY=" + "a1b2c3d4" * 6 + "\nENCRYPTION_KEY=c2hvcnQ=\n",
        "ENCRYPTION_KEY: an encryption key has 5 bytes instead of 32",
    ),
    "one key for both": (
        "SECRET_KEY=" + "a1b2c3d4" * 8 + "\nENCRYPTION_KEY=" + "a1b2c3d4" * 8 + "\n",
        "SECRET_KEY and ENCRYPTION_KEY must differ",
    ),
}


@pytest.mark.parametrize("case", INSECURE)
def test_stored_secrets_that_cannot_be_right_stop_the_start(
    bare_environment: Path, case: str
) -> None:
    text, message = INSECURE[case]
    bare_environment.mkdir()
    (bare_environment / "secrets.env").write_text(text)
    (bare_environment / "secrets.env").chmod(0o600)

    with pytest.raises(ImproperlyConfigured) as raised:
        read_environment()

    assert message in str(raised.value)
    assert "a1b2c3d4" not in str(raised.value)


@pytest.mark.parametrize("name", ["DEBUG", "DJANGO_DEBUG"])
def test_no_variable_turns_debugging_on(
    bare_environment: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "1")

    assert not hasattr(read_environment(), "debug")
    assert configured.DEBUG is False
    assert configured.ALLOWED_HOSTS != ["*"]


def test_every_purpose_has_a_key_of_its_own_of_256_bits() -> None:
    signing = bytes.fromhex(str(configured.SIMPLE_JWT["SIGNING_KEY"]))
    sealing = Vault.from_text(configured.ENCRYPTION_KEY).keys[0]

    assert {len(key) for key in (signing, sealing, configured.API_KEY_PEPPER)} == {32}
    assert len({signing, sealing, configured.API_KEY_PEPPER}) == 3
    assert configured.SECRET_KEY.encode() not in (signing, sealing)


def test_every_event_that_the_code_writes_is_in_the_operators_table() -> None:
    table = (ROOT / "docs" / "operations.md").read_text()
    documented = set(re.findall(r"`([a-z_]+(?:\.(?:[a-z_]+|\*))?)`", table))

    missing = {
        name
        for name in _event_names()
        if name not in documented and f"{name.partition('.')[0]}.*" not in documented
    }

    assert missing == set()
    assert {"sign_in.failed", "access.denied", "backup.made"} <= documented


def _event_names() -> set[str]:
    """Return the actions that are written out in calls of `record_event`."""
    return {
        keyword.value.value
        for path in (ROOT / "apps").rglob("*.py")
        if "tests" not in path.parts
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "record_event"
        for keyword in node.keywords
        if keyword.arg == "action"
        and isinstance(keyword.value, ast.Constant)
        and isinstance(keyword.value.value, str)
    }
