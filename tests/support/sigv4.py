"""Checks AWS signatures as AWS does, written from its documentation: not with the signer's library.

Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

# A signature counts for so long, before and after.
WINDOW: Final = timedelta(minutes=5)
_UNRESERVED: Final = frozenset(
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
)
_AUTHORIZATION: Final = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<id>[^/]+)/(?P<date>[0-9]{8})/(?P<region>[^/]+)/"
    r"(?P<service>[^/]+)/aws4_request, SignedHeaders=(?P<names>[a-z0-9;-]+), "
    r"Signature=(?P<signature>[0-9a-f]{64})"
)
_EMPTY: Final = hashlib.sha256(b"").hexdigest()


class SignatureRefused(Exception):
    """The signature does not prove who asks; the name is AWS's for it."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


@dataclass(frozen=True, slots=True)
class Signed:
    """A request as it arrived; headers in their order, each with its name as it was sent."""

    method: str
    target: str
    headers: Sequence[tuple[str, str]]
    body: bytes

    def values(self, name: str) -> list[str]:
        """The values of a header, by its lower-case name."""
        return [value for sent, value in self.headers if sent.lower() == name]


def canonical_request(request: Signed, names: Sequence[str]) -> str:
    """Return the canonical request, with the headers of these names signed."""
    path, _, query = request.target.partition("?")
    pairs = [part.partition("=")[::2] for part in query.split("&") if part]
    lines = [
        request.method,
        _encode(path.encode(), keeps=b"/") or "/",
        "&".join(f"{name}={value}" for name, value in sorted(pairs)),
        *(f"{name}:{_folded(request.values(name))}" for name in names),
        "",
        ";".join(names),
        hashlib.sha256(request.body).hexdigest(),
    ]
    return "\n".join(lines)


def signature_of(
    request: Signed, names: Sequence[str], *, secret: str, date: str, region: str, service: str
) -> str:
    """Return the signature that belongs to a request; `date` as in `x-amz-date`."""
    canonical = hashlib.sha256(canonical_request(request, names).encode()).hexdigest()
    scope = f"{date[:8]}/{region}/{service}/aws4_request"
    key = f"AWS4{secret}".encode()
    for part in (date[:8], region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    to_sign = f"AWS4-HMAC-SHA256\n{date}\n{scope}\n{canonical}"
    return hmac.digest(key, to_sign.encode(), "sha256").hex()


def verify(
    request: Signed,
    *,
    secrets: Mapping[str, str],
    tokens: Mapping[str, str],
    region: str,
    service: str,
    now: datetime,
    unsigned: frozenset[str] = frozenset(),
) -> str:
    """Return the id of the key that signed a request. `secrets` and session `tokens` by key id.

    All headers have to be signed, but for those that are `unsigned`. Raises SignatureRefused.
    """
    found = _AUTHORIZATION.fullmatch("".join(request.values("authorization")))
    dates = request.values("x-amz-date")
    if found is None or len(dates) != 1:
        raise SignatureRefused("MissingAuthenticationTokenException", "Missing token.")
    if found["id"] not in secrets:
        message = "The security token included in the request is invalid."
        raise SignatureRefused("UnrecognizedClientException", message)
    if (found["region"], found["service"], found["date"]) != (region, service, dates[0][:8]):
        raise SignatureRefused("InvalidSignatureException", "Credential should be scoped.")
    names = found["names"].split(";")
    sent = {name.lower() for name, _ in request.headers} - {"authorization"} - unsigned
    if names != sorted(names) or not sent <= set(names):
        raise SignatureRefused("InvalidSignatureException", f"Not signed: {sent - set(names)}.")
    if request.values("x-amz-security-token") != (
        [tokens[found["id"]]] if found["id"] in tokens else []
    ):
        message = "The security token included in the request is invalid."
        raise SignatureRefused("UnrecognizedClientException", message)
    digest = hashlib.sha256(request.body).hexdigest()
    if request.values("x-amz-content-sha256") not in ([], [digest]):
        raise SignatureRefused("InvalidSignatureException", "The digest is another one.")
    expected = signature_of(
        request,
        names,
        secret=secrets[found["id"]],
        date=dates[0],
        region=region,
        service=service,
    )
    if not hmac.compare_digest(expected, found["signature"]):
        message = "The request signature we calculated does not match the signature you provided."
        raise SignatureRefused("InvalidSignatureException", message)
    _check_date(dates[0], now)
    return found["id"]


def _check_date(text: str, now: datetime) -> None:
    signed_at = datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    clock = f"{now:%Y%m%dT%H%M%SZ}"
    if signed_at < now - WINDOW:
        edge = f"{now - WINDOW:%Y%m%dT%H%M%SZ} ({clock} - 5 min.)"
        message = f"Signature expired: {text} is now earlier than {edge}"
        raise SignatureRefused("InvalidSignatureException", message)
    if signed_at > now + WINDOW:
        edge = f"{now + WINDOW:%Y%m%dT%H%M%SZ} ({clock} + 5 min.)"
        message = f"Signature not yet current: {text} is still later than {edge}"
        raise SignatureRefused("InvalidSignatureException", message)


def _folded(values: Sequence[str]) -> str:
    return ",".join(" ".join(value.split()) for value in values)


def _encode(text: bytes, *, keeps: bytes) -> str:
    return "".join(
        chr(byte) if byte in _UNRESERVED or byte in keeps else f"%{byte:02X}" for byte in text
    )
