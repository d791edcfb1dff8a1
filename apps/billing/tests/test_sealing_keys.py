"""The operator sees which encryption key may go, and which is still needed for what (C2)."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from pytest_django import Settings

from apps.billing.anchors import append_anchor
from apps.billing.sealing_keys import KeyUse, list_key_uses
from apps.billing.verification import anchors_path
from apps.core.crypto import key_id
from apps.providers.credentials import add_key, open_secret
from apps.providers.models import Provider, ProviderKey

OLD, NEW = bytes(range(32)), bytes(range(1, 33))


@pytest.fixture
def sealed(db: None, data_dir: Path, settings: Settings) -> ProviderKey:
    """A provider key and an anchor from before the new key came."""
    settings.ENCRYPTION_KEY = OLD.hex()
    provider = Provider.objects.create(name="somewhere", base_url="https://api.example.com/v1")
    key = add_key(provider=provider, secret="sk-secret-0123456789")
    append_anchor(anchors_path(), datetime.now(UTC))
    settings.ENCRYPTION_KEY = f"{NEW.hex()},{OLD.hex()}"
    return key


def rotate(*arguments: str) -> list[str]:
    out = io.StringIO()
    call_command("rotate_encryption_key", *arguments, stdout=out)
    return out.getvalue().splitlines()


def test_a_check_changes_nothing_and_fails_while_the_old_key_seals(
    sealed: ProviderKey, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        call_command("rotate_encryption_key", "--check")

    assert raised.value.code == 1
    assert capsys.readouterr().out.splitlines() == [
        f"key {key_id(NEW)} (seals): 0 provider keys, 0 anchors",
        f"key {key_id(OLD)} (opens only): 1 provider keys, 1 anchors",
    ]


def test_after_the_rotation_the_old_key_seals_nothing(
    sealed: ProviderKey, settings: Settings
) -> None:
    said = rotate()

    assert said[0] == f"sealed anew with {key_id(NEW)}: 1 provider keys"
    assert rotate("--check") == [
        f"key {key_id(NEW)} (seals): 1 provider keys, 0 anchors",
        f"key {key_id(OLD)} (opens only): 0 provider keys, 1 anchors",
    ]
    settings.ENCRYPTION_KEY = NEW.hex()
    assert open_secret(ProviderKey.objects.get(pk=sealed.pk)) == "sk-secret-0123456789"


def test_a_key_that_is_missing_is_named(sealed: ProviderKey, settings: Settings) -> None:
    settings.ENCRYPTION_KEY = NEW.hex()

    with pytest.raises(CommandError, match="1 provider keys open with none of the keys"):
        rotate()

    assert list_key_uses(anchors_path()) == [
        KeyUse(key_id(NEW), 0, 0, 0),
        KeyUse(key_id(OLD), None, 1, 1),
    ]
