"""Access tokens and clocks of one process, against a token endpoint that checks what it gets."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from apps.core.addresses import parse_private_upstreams
from apps.providers.aws_signing import digest_of
from apps.providers.identities import GOOGLE, AwsKey, ServiceAccount, keep_secret, read_identity
from apps.proxy import signing
from apps.proxy.http_client import Answer
from apps.proxy.signing import Signing, SigningFailed
from apps.proxy.upstream import failure_of
from tests.support.clocks import Clock
from tests.support.clouds import Cloud, make_private_key
from tests.support.gateway import DemoThread

pytestmark = pytest.mark.sqlite  # No database takes part.

PRIVATE: Final = parse_private_upstreams("127.0.0.0/8")


@pytest.fixture(scope="module")
def private_key() -> rsa.RSAPrivateKey:
    """Return a key, made once: that takes its time."""
    return make_private_key()


@pytest.fixture(scope="module")
def demo() -> Iterator[DemoThread]:
    """Run a demo provider."""
    provider = DemoThread()
    yield provider
    provider.stop()


@pytest.fixture
def cloud(demo: DemoThread, private_key: rsa.RSAPrivateKey) -> Iterator[Cloud]:
    """Run a token endpoint."""
    with Cloud(demo, private_key) as cloud:
        yield cloud


def account_of(cloud: Cloud, **changes: Any) -> ServiceAccount:
    """Return the service account whose tokens the cloud gives."""
    identity = read_identity(keep_secret(cloud.service_account(**changes), GOOGLE, PRIVATE), GOOGLE)
    assert isinstance(identity, ServiceAccount)
    return identity


async def test_many_that_wait_cause_one_token(cloud: Cloud) -> None:
    made, account = Signing(PRIVATE), account_of(cloud)

    found = await asyncio.gather(*(made.prepare(account, b"") for _ in range(200)))
    again = await made.prepare(account, b"")

    assert set(found) == {again} == set(cloud.tokens)
    assert len(cloud.tokens) == 1
    made.close()


async def test_who_leaves_takes_the_token_from_nobody(cloud: Cloud) -> None:
    made, account = Signing(PRIVATE), account_of(cloud)

    leaving = asyncio.create_task(made.prepare(account, b""))
    staying = asyncio.create_task(made.prepare(account, b""))
    await asyncio.sleep(0)
    leaving.cancel()

    assert [await staying] == cloud.tokens
    made.close()


async def become_idle(made: Signing) -> None:
    """Wait for the renewals that go on."""
    fetching = [held.fetching for held in made._held.values() if held.fetching is not None]
    await asyncio.wait(fetching)


async def test_a_token_is_renewed_before_its_end_while_the_old_one_serves(cloud: Cloud) -> None:
    clock = Clock()
    made, account = Signing(PRIVATE, monotonic=clock), account_of(cloud)
    first = await made.prepare(account, b"")

    clock.now += 3_299
    before = await made.prepare(account, b"")
    clock.now += 2  # five minutes before its end
    during = [await made.prepare(account, b"") for _ in range(5)]
    await become_idle(made)
    after = await made.prepare(account, b"")

    assert [before, *during] == [first] * 6
    assert cloud.tokens == [first, after]
    made.close()


async def test_a_token_that_is_over_is_waited_for_once(cloud: Cloud) -> None:
    clock = Clock()
    made, account = Signing(PRIVATE, monotonic=clock), account_of(cloud)
    first = await made.prepare(account, b"")

    clock.now += 3_571  # half a minute before its end
    found = await asyncio.gather(*(made.prepare(account, b"") for _ in range(50)))

    assert set(found) == {cloud.tokens[1]}
    assert len(cloud.tokens) == 2
    assert first not in found
    made.close()


async def test_an_endpoint_that_fails_costs_no_call_while_the_old_token_is_good(
    cloud: Cloud,
) -> None:
    clock = Clock()
    made, account = Signing(PRIVATE, monotonic=clock), account_of(cloud)
    first = await made.prepare(account, b"")
    cloud.token_refusal = (503, {"error": "internal_failure"})

    clock.now += 3_400
    found = [await made.prepare(account, b"")]
    await become_idle(made)
    found += [await made.prepare(account, b"") for _ in range(5)]
    asked_once = list(cloud.refused)
    clock.now += 5
    found.append(await made.prepare(account, b""))
    await become_idle(made)
    asked_again = list(cloud.refused)
    clock.now += 190
    with pytest.raises(SigningFailed) as raised:
        await made.prepare(account, b"")

    assert found == [first] * 7
    assert (asked_once, asked_again) == ([503], [503, 503])
    assert (raised.value.row, raised.value.status) == ("E47", None)
    made.close()


async def test_a_refused_account_is_a_refused_key(cloud: Cloud) -> None:
    made = Signing(PRIVATE)
    cloud.token_refusal = (400, {"error": "invalid_grant", "error_description": "No such account"})

    with pytest.raises(SigningFailed) as raised:
        await made.prepare(account_of(cloud), b"")

    failure = failure_of(raised.value, None)
    assert (failure.error.row, failure.status_code) == ("E41", 401)
    assert failure.text == "the token endpoint refused the key: invalid_grant"
    made.close()


async def test_a_claim_signed_with_another_key_is_refused(cloud: Cloud) -> None:
    made, account = Signing(PRIVATE), account_of(cloud)
    cloud.private_key = make_private_key()

    with pytest.raises(SigningFailed) as raised:
        await made.prepare(account, b"")

    assert (raised.value.row, cloud.tokens, cloud.refused) == ("E41", [], [400])
    made.close()


@pytest.mark.parametrize(
    "refusal",
    [
        (500, {"error": "internal_failure"}),
        (429, {"error": "rate_limit_exceeded"}),
        (400, {"error": "invalid_request"}),
        (400, {"what": "ever"}),
        (302, {}),
        (200, {"access_token": "x", "token_type": "Bearer"}),
        (200, {"access_token": "x", "token_type": "mac", "expires_in": 3_600}),
        (200, {"access_token": "two words", "token_type": "Bearer", "expires_in": 3_600}),
        (200, {"access_token": "x", "token_type": "Bearer", "expires_in": True}),
        (200, {"access_token": "x", "token_type": "Bearer", "expires_in": 0}),
    ],
)
async def test_any_other_trouble_says_nothing_about_the_key(
    cloud: Cloud, refusal: tuple[int, dict[str, Any]]
) -> None:
    made = Signing(PRIVATE)
    cloud.token_refusal = refusal

    with pytest.raises(SigningFailed) as raised:
        await made.prepare(account_of(cloud), b"")

    assert (raised.value.row, raised.value.status) == ("E47", None)
    made.close()


async def test_a_wrong_clock_says_nothing_about_the_key(cloud: Cloud) -> None:
    made = Signing(PRIVATE)
    cloud.clock = timedelta(hours=2)

    with pytest.raises(SigningFailed, match="The clock of this machine is wrong") as raised:
        await made.prepare(account_of(cloud), b"")

    assert raised.value.row == "E47"
    made.close()


async def test_no_address_but_googles_is_asked_where_private_ones_are_not_allowed(
    cloud: Cloud,
) -> None:
    made, account = Signing(()), account_of(cloud)

    with pytest.raises(SigningFailed, match="not allowed"):
        await made.prepare(account, b"")

    assert (cloud.tokens, cloud.refused) == ([], [])
    made.close()


def refusal(status: int, date: str = "") -> Answer:
    """Return an answer that refuses a token."""
    answer = Answer(None)  # type: ignore[arg-type]  # Nothing is read of it.
    answer.status = status
    if date:
        answer.headers[b"date"] = date.encode()
    return answer


async def test_a_token_that_was_revoked_is_taken_for_no_word_about_the_key_once(
    cloud: Cloud,
) -> None:
    clock = Clock()
    made, account = Signing(PRIVATE, monotonic=clock), account_of(cloud)
    first = await made.prepare(account, b"")
    clock.now += 60

    assert made.learn(account, first, host="x", answer=refusal(401))
    second = await made.prepare(account, b"")
    assert second != first
    assert not made.learn(account, second, host="x", answer=refusal(401))
    assert not made.learn(account, second, host="x", answer=refusal(403))
    made.close()


async def test_large_bodies_are_digested_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[str] = []

    def watched(body: bytes) -> str:
        threads.append(threading.current_thread().name)
        return digest_of(body)

    monkeypatch.setattr(signing, "digest_of", watched)
    made, key = Signing(PRIVATE), AwsKey("AKIAIOSFODNN7EXAMPLE", "us-east-1", "secret")

    small = await made.prepare(key, b"x" * signing.DIGESTED_BYTES)
    large = await made.prepare(key, b"x" * (signing.DIGESTED_BYTES + 1))

    assert [name.partition("_")[0] for name in threads] == ["MainThread", "digests"]
    assert (len(small), len(large)) == (64, 64)
    made.close()


HOST: Final = "bedrock-runtime.us-east-1.amazonaws.com"
AWS_KEY: Final = AwsKey("AKIAIOSFODNN7EXAMPLE", "us-east-1", "secret")


def told(**offset: int) -> str:
    """Return a date as a provider tells it whose clock is so far ahead."""
    return format_datetime(datetime.now(UTC) + timedelta(**offset), usegmt=True)


@pytest.mark.parametrize("offset", [{"minutes": -5}, {"minutes": 5}, {"hours": -23}])
async def test_a_clock_that_is_off_is_followed_and_followed_back(offset: dict[str, int]) -> None:
    made = Signing(PRIVATE)
    prepared = await made.prepare(AWS_KEY, b"")

    assert made.learn(AWS_KEY, prepared, host=HOST, answer=refusal(403, told(**offset)))
    # By the clock that it was given the key is wrong.
    assert not made.learn(AWS_KEY, prepared, host=HOST, answer=refusal(403, told(**offset)))
    assert made.learn(AWS_KEY, prepared, host=HOST, answer=refusal(403, told()))
    made.close()


@pytest.mark.parametrize(
    ("status", "offset"),
    [
        (403, {"minutes": 0}),
        (403, {"minutes": 3}),
        (403, {"hours": 25}),
        (403, {"hours": -25}),
        (400, {"hours": 1}),
        (429, {"hours": 1}),
        (500, {"hours": 1}),
    ],
)
async def test_no_other_refusal_is_about_the_clock(status: int, offset: dict[str, int]) -> None:
    made = Signing(PRIVATE)

    assert not made.learn(AWS_KEY, "", host=HOST, answer=refusal(status, told(**offset)))
    made.close()


@pytest.mark.parametrize("date", ["", "yesterday", "Sun, 29 Nov 2020 12:00:00"])
async def test_a_clock_that_cannot_be_read_is_none(date: str) -> None:
    made = Signing(PRIVATE)

    assert not made.learn(AWS_KEY, "", host=HOST, answer=refusal(403, date))
    made.close()
