"""Bodies of calls, for those who may see them.

Other people's bodies are open to whom `PAYLOAD_READERS` names, and every look at one is on record;
one's own are one's own.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import zstandard
from django.conf import settings
from django.contrib.auth.base_user import AbstractBaseUser
from django.db import transaction
from django.http import HttpRequest

from apps.audit.events import record_event
from apps.audit.models import APIRequest, Payload
from apps.audit.payloads import open_body, payload_digest
from apps.core.domain_errors import DomainError

_READERS: Final = {
    "nobody": frozenset[str](),
    "admin": frozenset({"admin"}),
    "analyst": frozenset({"admin", "analyst"}),
}


class PayloadsClosed(DomainError):
    """The deployment does not let this role read other people's bodies."""

    status_code = 403
    code = "payloads_closed"
    message = "The bodies of other people's calls are not open to your role."


class PayloadNotKept(DomainError):
    """Bodies were switched off when the call was made."""

    status_code = 404
    code = "payload_not_kept"
    message = "The bodies of this call were not kept."


class PayloadErased(DomainError):
    """There was a payload, and it was erased since."""

    status_code = 404
    code = "payload_erased"
    message = "The bodies of this call have been erased."


class PayloadDamaged(DomainError):
    """What is stored cannot be read back."""

    status_code = 409
    code = "payload_damaged"
    message = "The stored bodies of this call are damaged."


@dataclass(frozen=True, slots=True)
class Body:
    """A stored body, ready to be shown."""

    content_type: str  # a guess from its first bytes
    encoding: str  # text or base64
    content: str
    stored_bytes: int
    is_truncated: bool


@dataclass(frozen=True, slots=True)
class OpenPayload:
    """The bodies of a call."""

    request_id: UUID
    is_intact: bool  # they are those whose digest is in the chained record
    request: Body
    response: Body


def check_payloads_open(role: str) -> None:
    """Raise PayloadsClosed unless a role may read other people's bodies."""
    if role not in _READERS.get(settings.PAYLOAD_READERS, frozenset()):
        raise PayloadsClosed


def view_payload(
    *, row: APIRequest, actor: AbstractBaseUser, request: HttpRequest | None
) -> OpenPayload:
    """Return the bodies of somebody's call and record who looked.

    Raises PayloadNotKept, PayloadErased and PayloadDamaged; then nothing was seen.
    """
    with transaction.atomic():
        found = read_payload(row)
        record_event(actor=actor, action="payload.viewed", subject=row, request=request)
    return found


def read_payload(row: APIRequest) -> OpenPayload:
    """Return the bodies of a call. Raises PayloadNotKept, PayloadErased and PayloadDamaged."""
    stored = Payload.objects.filter(pk=row.pk).first()
    if stored is None:
        raise PayloadNotKept if row.payload_digest is None else PayloadErased
    sealed = bytes(stored.request_body), bytes(stored.response_body)
    if not any(sealed):
        raise PayloadNotKept  # Only sizes and digests were.
    try:
        asked, answered = (open_body(body) for body in sealed)
    except zstandard.ZstdError as error:
        raise PayloadDamaged from error
    digest = payload_digest(bytes(stored.salt), asked, answered)
    return OpenPayload(
        request_id=row.pk,
        is_intact=digest == bytes(row.payload_digest or b""),
        request=_show(asked, is_truncated=stored.is_request_truncated),
        response=_show(answered, is_truncated=stored.is_response_truncated),
    )


def _show(body: bytes, *, is_truncated: bool) -> Body:
    text = _find_text(body, is_truncated=is_truncated)
    return Body(
        content_type=_guess_type(body, is_text=text is not None),
        encoding="base64" if text is None else "text",
        content=base64.b64encode(body).decode() if text is None else text,
        stored_bytes=len(body),
        is_truncated=is_truncated,
    )


def _find_text(body: bytes, *, is_truncated: bool) -> str | None:
    """Return the body as text; a cut may have gone through its last character."""
    for missing in range(4 if is_truncated else 1):
        try:
            return body[: len(body) - missing].decode()
        except UnicodeDecodeError:
            continue
    return None


def _guess_type(body: bytes, *, is_text: bool) -> str:
    if not is_text:
        return "application/octet-stream"
    start = body[:64].lstrip()
    if start.startswith((b"data:", b"event:", b":")):
        return "text/event-stream"
    return "application/json" if start.startswith((b"{", b"[")) else "text/plain"
