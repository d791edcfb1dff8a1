"""Signatures of requests to AWS: Signature Version 4, by botocore's signer.

botocore is imported when the first AWS key is loaded: nobody else pays for it (docs/decisions,
"signed requests"). Of it only the signer and the parser of event streams are used: no sessions, no
configuration of the machine, no calls.

Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from apps.providers.identities import AwsKey

_TIMESTAMP: Final = "%Y%m%dT%H%M%SZ"
_ALGORITHM: Final = "AWS4-HMAC-SHA256"
# The name under which a service checks signatures, by how its host begins; all other hosts of
# Bedrock are "bedrock". Source: https://docs.aws.amazon.com/bedrock/latest/userguide/bedrock-mantle.html
_SERVICES: Final = {"bedrock-mantle.": "bedrock-mantle"}
_SERVICE: Final = "bedrock"


class _Credentials(NamedTuple):
    access_key: str
    secret_key: str
    token: str | None


@functools.cache
def load_signer() -> tuple[Any, Any]:
    """Import the signer and its request, once in a process; some 50 ms."""
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest

    return SigV4Auth, AWSRequest


def service_of(host: str) -> str:
    """Return the name of the service that a host belongs to."""
    return next((name for start, name in _SERVICES.items() if host.startswith(start)), _SERVICE)


def digest_of(body: bytes) -> str:
    """Return the digest of a body, as it is signed."""
    return hashlib.sha256(body).hexdigest()


def sign(
    key: AwsKey,
    *,
    method: str,
    url: str,
    headers: Mapping[str, str],
    digest: str,
    service: str,
    now: datetime,
) -> dict[str, str]:
    """Return the headers that a request has to carry beside `headers`, all of which are signed.

    `url` and `headers` (by lower-case name, `host` among them) are as they are sent.
    """
    signer_class, request_class = load_signer()
    credentials = _Credentials(key.access_key_id, key.secret_access_key, key.session_token or None)
    signer = signer_class(credentials, service, key.region)
    added = {"x-amz-date": now.astimezone(UTC).strftime(_TIMESTAMP), "x-amz-content-sha256": digest}
    if key.session_token:
        added["x-amz-security-token"] = key.session_token
    request = request_class(method=method, url=url, headers={**headers, **added})
    request.context["timestamp"] = added["x-amz-date"]
    # `add_auth` does the same by the machine's clock, which may be the one that is wrong.
    to_sign = signer.string_to_sign(request, signer.canonical_request(request))
    signature = signer.signature(to_sign, request)
    names = signer.signed_headers(signer.headers_to_sign(request))
    added["authorization"] = (
        f"{_ALGORITHM} Credential={signer.scope(request)}, SignedHeaders={names}, "
        f"Signature={signature}"
    )
    return added
