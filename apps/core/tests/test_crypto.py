"""Secrets open only with the right key in the right place, and never show in text."""

from __future__ import annotations

import base64

import pytest

from apps.core.crypto import (
    EncryptionKeyMalformed,
    SecretUnreadable,
    Vault,
    derive_key,
    key_id,
    keyed_digest,
    parse_encryption_keys,
    redact,
    sealing_key_id,
)

OLD, NEW = bytes(range(32)), bytes(range(1, 33))


def test_a_sealed_secret_opens_in_its_place() -> None:
    vault = Vault((NEW,))

    sealed = vault.seal("sk-secret", context="row:1")

    assert vault.open(sealed, context="row:1") == "sk-secret"
    assert "sk-secret" not in sealed
    assert sealed.split(".")[:2] == ["v1", key_id(NEW)]


def test_a_secret_moved_to_another_row_does_not_open() -> None:
    vault = Vault((NEW,))
    sealed = vault.seal("sk-secret", context="row:1")

    with pytest.raises(SecretUnreadable):
        vault.open(sealed, context="row:2")


def test_one_changed_character_does_not_open() -> None:
    vault = Vault((NEW,))
    sealed = vault.seal("sk-secret", context="row:1")
    changed = sealed[:-6] + ("A" if sealed[-6] != "A" else "B") + sealed[-5:]

    with pytest.raises(SecretUnreadable):
        vault.open(changed, context="row:1")


def test_an_old_key_opens_and_the_first_one_seals() -> None:
    sealed_before = Vault((OLD,)).seal("sk-secret", context="row:1")
    rotated = Vault((NEW, OLD))

    assert rotated.open(sealed_before, context="row:1") == "sk-secret"
    assert rotated.seal("x", context="row:1").split(".")[1] == key_id(NEW)
    with pytest.raises(SecretUnreadable):
        Vault((NEW,)).open(sealed_before, context="row:1")


@pytest.mark.parametrize("damaged", ["", "v1", "v1.abc", "v2.x.y", "plain text", "v1..!"])
def test_what_is_no_sealed_value_is_unreadable(damaged: str) -> None:
    with pytest.raises(SecretUnreadable):
        Vault((NEW,)).open(damaged, context="row:1")


def test_keys_come_in_base64_or_hexadecimal() -> None:
    text = f"{NEW.hex()}, {base64.b64encode(OLD).decode()}"

    assert parse_encryption_keys(text) == (NEW, OLD)


@pytest.mark.parametrize("text", ["", " , ", "abc", "00" * 31, base64.b64encode(b"short").decode()])
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(EncryptionKeyMalformed):
        parse_encryption_keys(text)


def test_purposes_have_different_keys_and_digests_depend_on_them() -> None:
    one, other = derive_key(NEW, "one"), derive_key(NEW, "other")

    assert len(one) == 32
    assert one != other
    assert keyed_digest(one, "sk-1") != keyed_digest(other, "sk-1")
    assert keyed_digest(one, "sk-1") == keyed_digest(one, b"sk-1")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("key sk-abcdefghijklmnop is bad", "key [redacted] is bad"),
        ("Authorization: Bearer abcdefgh1234", "Authorization: [redacted]"),
        ("AIzaSyA1234567890abcdef", "[redacted]"),
        ('{"message": "keys:\\nsk-abcdefghijklmnop"}', '{"message": "keys:\\n[redacted]"}'),
        ("sk-audit-0123456789abcdefghijklmnopqrstuv", "[redacted]"),
        ("ask-me about risk-taking", "ask-me about risk-taking"),
    ],
)
def test_credentials_are_masked_in_text(text: str, expected: str) -> None:
    assert redact(text) == expected


def test_a_sealed_value_says_which_key_sealed_it() -> None:
    sealed = Vault((NEW, OLD)).seal("sk-secret", context="row:1")

    assert sealing_key_id(sealed) == key_id(NEW)


@pytest.mark.parametrize("text", ["", "v1", "v1.0123abcd", "v2.0123abcd.x", "v1.sk-in-clear.x"])
def test_what_is_not_sealed_names_no_key(text: str) -> None:
    assert sealing_key_id(text) == ""
