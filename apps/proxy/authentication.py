"""Who is calling, and whether his key may do that: decided on the Snapshot alone. Pure."""

from __future__ import annotations

from datetime import datetime
from ipaddress import ip_address
from typing import Final

from apps.core.crypto import keyed_digest
from apps.core.errors import GatewayError
from apps.proxy.operations import Operation
from apps.proxy.snapshot import Caller, Key, Snapshot

KEY_BYTES_MAX: Final = 255
_KEY_HEADERS: Final = (b"x-api-key", b"x-goog-api-key")


def read_credential(headers: dict[bytes, bytes], query_key: bytes | None = None) -> str:
    """Return the API key that a request carries. Raises E01, E02 and E03.

    `query_key` is one that stands in the address, where its dialect has it there.
    """
    found: list[bytes] = [] if query_key is None else [query_key]
    authorization = headers.get(b"authorization")
    if authorization is not None:
        scheme, _, value = authorization.partition(b" ")
        value = value.strip()
        if scheme.lower() != b"bearer" or not value:
            raise GatewayError("E02")
        found.append(value)
    for name in _KEY_HEADERS:
        if name in headers:
            found.append(headers[name].strip())
    if not found:
        raise GatewayError("E01")
    if len(found) > 1 and any(value != found[0] for value in found):
        raise GatewayError("E03")
    if len(found[0]) > KEY_BYTES_MAX:
        raise GatewayError("E02")
    return found[0].decode("latin-1")


def authenticate(
    snapshot: Snapshot,
    headers: dict[bytes, bytes],
    *,
    pepper: bytes,
    address: str,
    now: datetime,
    query_key: bytes | None = None,
) -> Caller:
    """Return who is calling. Raises E01 to E06; what is wrong with a key is told only to its
    holder.
    """
    digest = keyed_digest(pepper, read_credential(headers, query_key))
    key = snapshot.keys.get(digest)
    member = snapshot.members.get(key.user_id) if key is not None else None
    if key is None or member is None:
        raise GatewayError("E02")
    if not key.is_active:
        raise GatewayError("E04", code="api_key_disabled")
    if key.expires_at is not None and key.expires_at <= now:
        raise GatewayError("E04", code="api_key_expired")
    if not member.is_active:
        raise GatewayError("E05")
    if key.allowed_networks and not _is_allowed(address, key):
        raise GatewayError("E06")
    group = (
        snapshot.catalogue.user_groups.get(member.user_group_id)
        if member.user_group_id is not None
        else None
    )
    return Caller(key, member, group)


def check_operation(key: Key, operation: Operation) -> None:
    """Refuse what a key may not be used for. Raises E08."""
    if key.allowed_operations and operation.key_operation not in key.allowed_operations:
        raise GatewayError(
            "E08",
            message="The API key may not use this endpoint: its operations do not include "
            f"{operation.key_operation}.",
        )


def _is_allowed(address: str, key: Key) -> bool:
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in key.allowed_networks)
