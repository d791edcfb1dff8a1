"""The operator sees which encryption key may go, and which is still needed for what (C2)."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from pytest_django import Settings

from apps.audit.models import AdminEvent
from apps.billing.anchors import append_anchor
from apps.billing.sealing_keys import KeyUse, list_key_uses
from apps.billing.verification import anchors_path, report
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


def test_a_check_changes_nothing_and_fails_while_the_old_key_is_needed(
    sealed: ProviderKey, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = anchors_path().read_bytes()

    with pytest.raises(SystemExit) as raised:
        call_command("rotate_encryption_key", "--check")

    assert raised.value.code == 1
    assert anchors_path().read_bytes() == lines
    assert capsys.readouterr().out.splitlines() == [
        f"key {key_id(NEW)} (seals): 0 provider keys, 0 anchors",
        f"key {key_id(OLD)} (opens only): 1 provider keys, 1 anchors",
    ]


def test_after_the_rotation_the_old_key_can_go(sealed: ProviderKey, settings: Settings) -> None:
    said = rotate()

    assert said[:2] == [
        f"sealed anew with {key_id(NEW)}: 1 provider keys",
        f"vouched with {key_id(NEW)} for the anchors up to 1",
    ]
    assert rotate("--check") == [
        f"key {key_id(NEW)} (seals): 1 provider keys, 1 anchors",
        f"key {key_id(OLD)} (opens only): 0 provider keys, 0 anchors",
    ]
    settings.ENCRYPTION_KEY = NEW.hex()
    assert open_secret(ProviderKey.objects.get(pk=sealed.pk)) == "sk-secret-0123456789"
    assert report(is_full=True, anchors_path=anchors_path(), now=datetime.now(UTC)).is_clean
    event = AdminEvent.objects.get(action="anchors.vouched")
    assert event.after is not None
    assert (event.after["encryption_key"], event.after["last"]) == (key_id(NEW), 1)


def test_a_second_rotation_writes_nothing(sealed: ProviderKey) -> None:
    rotate()
    lines = anchors_path().read_bytes()

    rotate()

    assert anchors_path().read_bytes() == lines


def test_a_worker_that_still_signs_with_the_old_key_is_noticed(
    sealed: ProviderKey, settings: Settings
) -> None:
    rotate()
    settings.ENCRYPTION_KEY = f"{OLD.hex()},{NEW.hex()}"
    append_anchor(anchors_path(), datetime.now(UTC))
    settings.ENCRYPTION_KEY = f"{NEW.hex()},{OLD.hex()}"

    with pytest.raises(SystemExit):
        rotate("--check")
    rotate()

    assert [use.anchors for use in list_key_uses(anchors_path())] == [2, 0]


def test_anchors_that_do_not_verify_are_not_vouched_for(
    sealed: ProviderKey, settings: Settings
) -> None:
    settings.ENCRYPTION_KEY = OLD.hex()
    append_anchor(anchors_path(), datetime.now(UTC))
    settings.ENCRYPTION_KEY = f"{NEW.hex()},{OLD.hex()}"
    lines = anchors_path().read_bytes().splitlines(keepends=True)
    anchors_path().write_bytes(lines[1])

    with pytest.raises(CommandError, match="The anchors do not verify"):
        rotate()

    assert anchors_path().read_bytes() == lines[1]
    assert [use.anchors for use in list_key_uses(anchors_path())] == [0, 1]


def test_a_key_that_is_missing_is_named(sealed: ProviderKey, settings: Settings) -> None:
    settings.ENCRYPTION_KEY = NEW.hex()

    with pytest.raises(CommandError, match="1 provider keys open with none of the keys"):
        rotate()

    assert list_key_uses(anchors_path()) == [
        KeyUse(key_id(NEW), 0, 0, 0),
        KeyUse(key_id(OLD), None, 1, 1),
    ]
