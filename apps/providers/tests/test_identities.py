"""Keys that requests are signed with: what is taken, what is kept, and what is said of the rest."""

from __future__ import annotations

from typing import Any, Final

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from apps.core.addresses import parse_private_upstreams
from apps.providers.identities import (
    AWS,
    GOOGLE,
    AwsKey,
    KeyUnusable,
    ServiceAccount,
    keep_secret,
    may_ask_for_tokens,
    read_identity,
    shown_part,
)
from tests.support.cases import for_all

PRIVATE: Final = parse_private_upstreams("127.0.0.0/8")
AWS_KEY: Final = {
    "access_key_id": "AKIAIOSFODNN7EXAMPLE",
    "secret_access_key": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    "region": "us-east-1",
}


def pem(key: Any) -> str:
    """Return a private key as text."""
    made: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return made.decode()


PEM: Final = pem(rsa.generate_private_key(public_exponent=65_537, key_size=2_048))
SHORT: Final = pem(rsa.generate_private_key(public_exponent=65_537, key_size=1_024))  # noqa: S505  # refused
ACCOUNT: Final = {
    "type": "service_account",
    "project_id": "a-project",
    "private_key_id": "0123456789abcdef0123456789abcdef01234567",
    "private_key": PEM,
    "client_email": "gateway@a-project.iam.gserviceaccount.com",
    "client_id": "1",
    "auth_uri": "https://accounts.google.com/o/oauth2/auth",
    "token_uri": "https://oauth2.googleapis.com/token",
    "universe_domain": "googleapis.com",
}


def typed(members: dict[str, Any], **changes: Any) -> str:
    """Return a key as it is typed, with changed members; None leaves one out."""
    changed = {name: value for name, value in {**members, **changes}.items() if value is not None}
    return orjson.dumps(changed, option=orjson.OPT_INDENT_2).decode()


def test_of_a_service_account_only_what_is_needed_is_kept() -> None:
    kept = keep_secret(typed(ACCOUNT), GOOGLE, ())

    assert read_identity(kept, GOOGLE) == ServiceAccount(
        "gateway@a-project.iam.gserviceaccount.com",
        "0123456789abcdef0123456789abcdef01234567",
        PEM,
        "https://oauth2.googleapis.com/token",
    )
    assert "client_id" not in kept
    assert shown_part(kept) == "4567"


def test_an_aws_key_may_have_a_session_token() -> None:
    kept = keep_secret(typed(AWS_KEY), AWS, ())
    with_token = keep_secret(typed(AWS_KEY, session_token="abc+/=="), AWS, ())

    key = AwsKey("AKIAIOSFODNN7EXAMPLE", "us-east-1", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
    assert read_identity(kept, AWS) == key
    identity = read_identity(with_token, AWS)
    assert isinstance(identity, AwsKey)
    assert identity.session_token == "abc+/=="
    assert shown_part(kept) == "MPLE"


def test_no_representation_shows_what_is_secret() -> None:
    key = read_identity(keep_secret(typed(AWS_KEY, session_token="canary"), AWS, ()), AWS)
    account = read_identity(keep_secret(typed(ACCOUNT), GOOGLE, ()), GOOGLE)

    assert "bPxRfi" not in repr(key)
    assert "canary" not in repr(key)
    assert "PRIVATE" not in repr(account)


@for_all(
    ("changes", "said"),
    [
        ({"type": "authorized_user"}, '"type"'),
        ({"type": None}, '"type"'),
        ({"universe_domain": "evil.example.com"}, '"universe_domain"'),
        ({"client_email": None}, 'no "client_email"'),
        ({"client_email": "no address"}, '"client_email"'),
        ({"private_key_id": None}, 'no "private_key_id"'),
        ({"private_key_id": 'x"\r\n'}, '"private_key_id"'),
        ({"private_key": None}, 'no "private_key"'),
        ({"private_key": 7}, '"private_key"'),
        ({"private_key": "-----BEGIN PRIVATE KEY-----\ncanary\n"}, "RSA key of 2048 bits"),
        ({"private_key": pem(ec.generate_private_key(ec.SECP256R1()))}, "RSA key of 2048 bits"),
        ({"private_key": SHORT}, "RSA key of 2048 bits"),
        ({"token_uri": "https://evil.example.com/token"}, '"token_uri"'),
        ({"token_uri": "https://oauth2.googleapis.com.evil.example/token"}, '"token_uri"'),
        ({"token_uri": "https://oauth2.googleapis.com@evil.example/token"}, '"token_uri"'),
        ({"token_uri": "http://oauth2.googleapis.com/token"}, '"token_uri"'),
        ({"token_uri": "http://169.254.169.254/computeMetadata/v1"}, '"token_uri"'),
        ({"token_uri": "http://127.0.0.1:1/token"}, '"token_uri"'),
    ],
)
def test_what_is_wrong_with_a_service_account_is_said(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(KeyUnusable) as raised:
        keep_secret(typed(ACCOUNT, **changes), GOOGLE, ())

    assert said in str(raised.value)
    assert "canary" not in str(raised.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"region": None}, 'no "region"'),
        ({"region": "US East"}, '"region"'),
        ({"region": "../x"}, '"region"'),
        ({"access_key_id": None}, 'no "access_key_id"'),
        ({"access_key_id": "short"}, '"access_key_id"'),
        ({"access_key_id": "AKIAIOSFODNN7\r\nX: y"}, '"access_key_id"'),
        ({"secret_access_key": None}, 'no "secret_access_key"'),
        ({"secret_access_key": "canary\nin two lines"}, '"secret_access_key"'),
        ({"session_token": "two words"}, '"session_token"'),
        ({"session_token": 7}, '"session_token"'),
        ({"role_arn": "arn:aws:iam::1:role/x"}, "has these members"),
    ],
)
def test_what_is_wrong_with_an_aws_key_is_said(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(KeyUnusable) as raised:
        keep_secret(typed(AWS_KEY, **changes), AWS, ())

    assert said in str(raised.value)
    assert "canary" not in str(raised.value)


@pytest.mark.parametrize("scheme", [AWS, GOOGLE])
@pytest.mark.parametrize("text", ["sk-plain-0123456789", "[]", "7", "{", "{" + " " * 8_192 + "}"])
def test_what_is_no_json_object_of_a_bounded_size_is_refused(scheme: str, text: str) -> None:
    with pytest.raises(KeyUnusable):
        keep_secret(text, scheme, ())


@pytest.mark.parametrize("text", [typed(AWS_KEY), typed(ACCOUNT), orjson.dumps(AWS_KEY).decode()])
def test_json_is_never_kept_as_a_plain_key(text: str) -> None:
    with pytest.raises(KeyUnusable, match="key_header must be"):
        keep_secret(text, "", ())


def test_a_key_of_another_kind_is_never_used() -> None:
    aws = keep_secret(typed(AWS_KEY), AWS, ())
    google = keep_secret(typed(ACCOUNT), GOOGLE, ())
    plain = keep_secret("sk-plain-0123456789", "", ())
    assert read_identity(plain, "") is None
    assert read_identity(plain, "x-api-key") is None

    for kept, scheme in (
        (aws, ""), (aws, "authorization"), (aws, GOOGLE),
        (google, ""), (google, "x-goog-api-key"), (google, AWS),
        (plain, AWS), (plain, GOOGLE),
    ):  # fmt: skip
        with pytest.raises(KeyUnusable):
            read_identity(kept, scheme)


def test_tokens_are_asked_of_google_or_of_a_private_address_that_is_allowed() -> None:
    assert may_ask_for_tokens("https://oauth2.googleapis.com/token", ())
    assert may_ask_for_tokens("http://127.0.0.1:4444/token", PRIVATE)
    assert not may_ask_for_tokens("http://127.0.0.1:4444/token", ())
    assert not may_ask_for_tokens("http://10.0.0.1/token", PRIVATE)
    assert not may_ask_for_tokens("https://evil.example.com/token", PRIVATE)
    assert not may_ask_for_tokens("https://8.8.8.8/token", PRIVATE)
    assert not may_ask_for_tokens("file:///etc/passwd", PRIVATE)
