"""The keys of a provider as calls use them: opened, without those that are out of use."""

from __future__ import annotations

import logging
from typing import Final

from apps.core.crypto import SecretUnreadable, Vault
from apps.providers.aws_signing import load_signer
from apps.providers.identities import AwsKey, KeyUnusable, read_identity
from apps.providers.models import DisabledReason, Provider
from apps.proxy.scopes import scope_of
from apps.proxy.snapshot import Credential

# What a refused key is called in errors.md, and the other way round.
ROWS: Final = {DisabledReason.AUTH: "E41", DisabledReason.BALANCE: "E42"}
REASONS: Final = {row: reason for reason, row in ROWS.items()}

logger = logging.getLogger(__name__)


def open_keys(provider: Provider, vault: Vault) -> tuple[tuple[Credential, ...], str]:
    """Return the keys that can be used, and the row of the error where all were refused.

    The row is "" where there is a key, or where none was disabled automatically.
    """
    found, disabled = [], set()
    for key in provider.keys_by_age:
        if not key.is_active:
            continue
        if key.disabled_at is not None:
            disabled.add(ROWS[DisabledReason(key.disabled_reason)])
            continue
        try:
            secret = vault.open(key.sealed_secret, context=key.seal_context)
            identity = read_identity(secret, provider.key_header)
        except (SecretUnreadable, KeyUnusable) as error:
            logger.error("a key of provider %s is left out: %s", provider.name, error)
            continue
        if isinstance(identity, AwsKey):
            load_signer()  # Here, where no call waits for it.
        found.append(
            Credential(
                id=key.pk,
                weight=key.weight,
                secret=secret,
                scope=scope_of(f"provider_key:{key.pk}", key.rpm, key.tpm, key.concurrency),
                daily_cost_nanos=key.daily_cost_nanos,
                identity=identity,
            )
        )
    # An empty account outlasts a wrong key: it is the better word for both.
    return tuple(found), "" if found or not disabled else max(disabled)
