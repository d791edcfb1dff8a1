"""Changes the encryption key of stored provider keys while gateways run.

The first key of ENCRYPTION_KEY seals, all of them open: so a value sealed with either key is
readable at every moment, and a gateway that polls its configuration reads the new value like any
other change. A secret that somebody replaces meanwhile is left as it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from django.conf import settings
from django.db import transaction

from apps.audit.events import record_event
from apps.core.crypto import SecretUnreadable, Vault, key_id, parse_encryption_keys, sealing_key_id
from apps.providers.models import ProviderKey

# Keys in one transaction: on SQLite it must end within milliseconds.
BATCH_ROWS: Final = 50
_NAMED_MAX: Final = 20


class KeysUnreadable(Exception):
    """Some stored secrets open with none of the keys at hand; nothing was changed."""


@dataclass(frozen=True, slots=True)
class Rotation:
    """What a rotation did."""

    resealed: int
    skipped: int  # changed by somebody else in the meantime


def first_key_id() -> str:
    """Return the short name of the key that seals now."""
    return key_id(parse_encryption_keys(settings.ENCRYPTION_KEY)[0])


def count_keys_in_use() -> Counter[str]:
    """Return key id → provider keys sealed with it. What is no sealed value counts as ""."""
    rows = ProviderKey.objects.values_list("sealed_secret", flat=True)
    return Counter(sealing_key_id(sealed) for sealed in rows.iterator(chunk_size=2_000))


def reseal_provider_keys(*, batch_rows: int = BATCH_ROWS) -> Rotation:
    """Seal every provider key with the first encryption key that is sealed with another one.

    Opens all of them before it changes any. Each batch is a transaction with its event. Raises
    KeysUnreadable.
    """
    vault = Vault(parse_encryption_keys(settings.ENCRYPTION_KEY))
    _check_all_open(vault)
    resealed = skipped = 0
    for batch in _list_batches(batch_rows):
        done, passed = _reseal(batch, vault)
        resealed += done
        skipped += passed
    return Rotation(resealed, skipped)


def _check_all_open(vault: Vault) -> None:
    unreadable = [
        key.pk
        for key in ProviderKey.objects.order_by("pk").iterator(chunk_size=2_000)
        if not _opens(vault, key)
    ]
    if unreadable:
        named = ", ".join(str(pk) for pk in unreadable[:_NAMED_MAX])
        more = f" and {len(unreadable) - _NAMED_MAX} more" if len(unreadable) > _NAMED_MAX else ""
        raise KeysUnreadable(
            f"{len(unreadable)} provider keys open with none of the keys in ENCRYPTION_KEY "
            f"(ids {named}{more}). Add the key that sealed them, or store their secrets again."
        )


def _opens(vault: Vault, key: ProviderKey) -> bool:
    try:
        vault.open(key.sealed_secret, context=key.seal_context)
    except SecretUnreadable:
        return False
    return True


def _list_batches(rows: int) -> Iterator[list[ProviderKey]]:
    last = 0
    while batch := list(ProviderKey.objects.filter(pk__gt=last).order_by("pk")[:rows]):
        yield batch
        last = batch[-1].pk


def _reseal(batch: list[ProviderKey], vault: Vault) -> tuple[int, int]:
    """Return how many were sealed anew and how many somebody else changed meanwhile."""
    wanted = key_id(vault.keys[0])
    changes = [
        (key, vault.seal(_open(vault, key), context=key.seal_context))
        for key in batch
        if sealing_key_id(key.sealed_secret) != wanted
    ]
    if not changes:
        return 0, 0
    with transaction.atomic():
        # The old value is the condition: of two writers the one with the newer secret wins.
        done = [
            key
            for key, sealed in changes
            if ProviderKey.objects.filter(pk=key.pk, sealed_secret=key.sealed_secret).update(
                sealed_secret=sealed
            )
        ]
        if done:
            record_event(
                actor=None,
                action="provider_key.resealed",
                subject=None,
                before={"encryption_keys": sorted({sealing_key_id(k.sealed_secret) for k in done})},
                after={"encryption_key": wanted, "provider_keys": [key.pk for key in done]},
                reason="rotate_encryption_key",
            )
    return len(done), len(changes) - len(done)


def _open(vault: Vault, key: ProviderKey) -> str:
    try:
        return vault.open(key.sealed_secret, context=key.seal_context)
    except SecretUnreadable as error:
        raise KeysUnreadable(
            f"Provider key {key.pk} was changed meanwhile and opens with none of the keys in "
            "ENCRYPTION_KEY. What was sealed anew before it stays so; run this again."
        ) from error
