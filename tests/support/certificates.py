"""Certificates for tests: authorities, and the servers on loopback that they vouch for."""

from __future__ import annotations

import ipaddress
import itertools
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_PEM: Final = serialization.Encoding.PEM
_SIGNS_OTHERS: Final = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)


class Authority:
    """Signs certificates. Who has `path` as SSL_CERT_FILE trusts them, and nobody else does.

    They carry what RFC 5280 asks for: from Python 3.13 on, others are not accepted.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(exist_ok=True)
        self._directory = directory
        self._numbers = itertools.count(1)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _call("An authority of the tests")
        certificate = _sign(
            self._name,
            self._key,
            self._name,
            self._key,
            x509.BasicConstraints(ca=True, path_length=None),
            _SIGNS_OTHERS,
        )
        self.path: Final = directory / "authority.pem"
        self.path.write_bytes(certificate)

    def context_for(
        self, host: str, *, days: int = 1, is_self_signed: bool = False
    ) -> ssl.SSLContext:
        """Return the context of a server whose certificate is for a name or an address.

        It ends in so many `days`, or did where they are negative. Who signs for itself has no
        authority.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _call(host)
        issuer, issuer_key = (subject, key) if is_self_signed else (self._name, self._key)
        names = x509.SubjectAlternativeName([_alternative(host)])
        path = self._directory / f"server-{next(self._numbers)}.pem"
        path.write_bytes(
            _sign(subject, key, issuer, issuer_key, names, days=days)
            + key.private_bytes(
                _PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context


def _call(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _sign(
    subject: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Name,
    issuer_key: ec.EllipticCurvePrivateKey,
    *extensions: x509.ExtensionType,
    days: int = 1,
) -> bytes:
    ends_at = datetime.now(UTC) + timedelta(days=days)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(ends_at - timedelta(days=2))
        .not_valid_after(ends_at)
    )
    identifiers: tuple[x509.ExtensionType, ...] = (
        x509.SubjectKeyIdentifier.from_public_key(key.public_key()),
        x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
    )
    for extension in (*extensions, *identifiers):
        is_critical = isinstance(extension, x509.BasicConstraints | x509.KeyUsage)
        builder = builder.add_extension(extension, critical=is_critical)
    return builder.sign(issuer_key, hashes.SHA256()).public_bytes(_PEM)
