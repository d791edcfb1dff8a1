"""Signatures for AWS: the tests' own check against AWS's vectors, and ours against the check."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.providers.aws_signing import digest_of, service_of, sign
from apps.providers.identities import AwsKey
from tests.support.clouds import ACCESS_KEY_ID, REGION, SECRET_ACCESS_KEY
from tests.support.sigv4 import SignatureRefused, Signed, signature_of, verify

NOW: Final = datetime(2026, 11, 29, 12, 30, 15, tzinfo=UTC)
# AWS's published suite: https://github.com/awslabs/aws-c-auth/tree/main/tests/aws-signing-test-suite
SECRET: Final = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
HOST: Final = ("Host", "example.amazonaws.com")
DATE: Final = ("X-Amz-Date", "20150830T123600Z")
SPACED: Final = ("My-Header2", ' "a   b   c"')
FORM: Final = ("Content-Type", "application/x-www-form-urlencoded")
VECTORS: Final = {
    "get-vanilla": (
        Signed("GET", "/", [HOST, DATE], b""),
        "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
    ),
    "get-vanilla-query-order-key-case": (
        Signed("GET", "/?Param2=value2&Param1=value1", [HOST, DATE], b""),
        "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
    ),
    "get-utf8": (
        Signed("GET", "/ሴ", [HOST, DATE], b""),
        "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85",
    ),
    "get-space": (
        Signed("GET", "/example space/", [HOST, DATE], b""),
        "652487583200325589f1fba4c7e578f72c47cb61beeca81406b39ddec1366741",
    ),
    "get-header-value-trim": (
        Signed("GET", "/", [HOST, ("My-Header1", " value1"), SPACED, DATE], b""),
        "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
    ),
    "post-vanilla": (
        Signed("POST", "/", [HOST, DATE], b""),
        "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
    ),
    "post-x-www-form-urlencoded": (
        Signed("POST", "/", [FORM, HOST, DATE], b"Param1=value1"),
        "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", VECTORS)
def test_the_check_agrees_with_the_vectors_that_aws_publishes(name: str) -> None:
    request, expected = VECTORS[name]
    names = sorted(header.lower() for header, _ in request.headers)

    found = signature_of(
        request, names, secret=SECRET, date=DATE[1], region="us-east-1", service="service"
    )

    assert found == expected


KEY: Final = AwsKey(ACCESS_KEY_ID, REGION, SECRET_ACCESS_KEY)
TARGET: Final = "/model/anthropic.claude-sonnet-4-20250514-v1%3A0/invoke?b=2&a=%7E"
HEADERS: Final = {
    "host": "bedrock-runtime.eu-central-1.amazonaws.com",
    "content-type": "application/json",
    "accept": "*/*",
    "x-team": "a  b   c",
    "accept-encoding": "identity",
    "content-length": "11",
}


def signed(
    body: bytes = b'{"a": "b"}', key: AwsKey = KEY, *, target: str = TARGET, now: datetime = NOW
) -> Signed:
    """Return a request as we sign it."""
    proof = sign(
        key,
        method="POST",
        url=f"https://{HEADERS['host']}{target}",
        headers=HEADERS,
        digest=digest_of(body),
        service="bedrock",
        now=now,
    )
    return Signed("POST", target, [*HEADERS.items(), *proof.items()], body)


def check(request: Signed, *, tokens: Sequence[str] = (), now: datetime = NOW) -> str:
    """Return the id of the key, or raise what AWS would say."""
    return verify(
        request,
        secrets={ACCESS_KEY_ID: SECRET_ACCESS_KEY},
        tokens=dict.fromkeys([ACCESS_KEY_ID], *tokens) if tokens else {},
        region=REGION,
        service="bedrock",
        now=now,
    )


def test_a_request_is_signed_with_all_of_its_headers() -> None:
    assert check(signed()) == ACCESS_KEY_ID


def test_a_session_token_is_sent_and_signed() -> None:
    key = AwsKey(ACCESS_KEY_ID, REGION, SECRET_ACCESS_KEY, "a-session-token==")

    assert check(signed(key=key), tokens=["a-session-token=="]) == ACCESS_KEY_ID
    with pytest.raises(SignatureRefused, match="security token"):
        check(signed(key=key), tokens=["another"])
    with pytest.raises(SignatureRefused, match="security token"):
        check(signed(), tokens=["a-session-token=="])


def test_a_signature_counts_for_five_minutes_on_either_side() -> None:
    request = signed()

    assert check(request, now=NOW + timedelta(minutes=5)) == ACCESS_KEY_ID
    assert check(request, now=NOW - timedelta(minutes=5)) == ACCESS_KEY_ID
    with pytest.raises(SignatureRefused, match="Signature expired"):
        check(request, now=NOW + timedelta(minutes=5, seconds=1))
    with pytest.raises(SignatureRefused, match="not yet current"):
        check(request, now=NOW - timedelta(minutes=5, seconds=1))


@pytest.mark.parametrize("name", [*HEADERS, "x-amz-date", "x-amz-content-sha256", "authorization"])
def test_whatever_is_changed_on_the_way_is_noticed(name: str) -> None:
    request = signed()
    changed = [(one, f"{value}0" if one == name else value) for one, value in request.headers]

    with pytest.raises(SignatureRefused):
        check(Signed(request.method, request.target, changed, request.body))


def test_another_body_method_or_address_is_noticed() -> None:
    good = signed()
    for request in (
        Signed(good.method, good.target, good.headers, good.body + b" "),
        Signed("PUT", good.target, good.headers, good.body),
        Signed(good.method, good.target.replace("b=2", "b=3"), good.headers, good.body),
        Signed(good.method, good.target.replace("%3A", ":"), good.headers, good.body),
    ):
        with pytest.raises(SignatureRefused):
            check(request)


def test_a_wrong_secret_is_refused() -> None:
    with pytest.raises(SignatureRefused, match="does not match"):
        check(signed(key=AwsKey(ACCESS_KEY_ID, REGION, "another-secret-0123456789")))


@given(
    body=st.binary(max_size=300),
    model=st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=126), min_size=1),
)
def test_any_body_and_any_model_are_signed_as_they_are_sent(body: bytes, model: str) -> None:
    from urllib.parse import quote

    if model in {".", ".."}:
        return  # No part of a path.

    assert check(signed(body, target=f"/model/{quote(model, safe='')}/invoke")) == ACCESS_KEY_ID


@pytest.mark.parametrize(
    ("host", "service"),
    [
        ("bedrock-runtime.us-east-1.amazonaws.com", "bedrock"),
        ("bedrock.us-east-1.amazonaws.com", "bedrock"),
        ("bedrock-mantle.us-east-1.api.aws", "bedrock-mantle"),
        ("127.0.0.1", "bedrock"),
    ],
)
def test_the_service_is_told_by_the_host(host: str, service: str) -> None:
    assert service_of(host) == service
