"""Gateways whose wall clock jumps, differs, or passes a special moment (F90 to F92)."""

from __future__ import annotations

import itertools
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from apps.ai_models.models import AIModel, PriceVersion
from apps.audit.models import APIRequest
from apps.billing.models import Incarnation
from tests.e2e.answers import ask as ask_plainly
from tests.faults.crowd import Outcome
from tests.faults.keyed import charges, post
from tests.faults.load import steady_calls
from tests.faults.machine import FakeClock, needs_faketime
from tests.faults.rest import ask, sign_in
from tests.faults.site import INPUT_NANOS, OUTPUT_NANOS, PROMPT_TOKENS, SHORT_LEASE, Site, chat
from tests.support.gateway import GatewayProcess
from tests.support.people import PASSWORD, make_admin
from tests.support.processes import wait_until
from tests.support.prometheus import parse
from tests.support.redis import RedisServer, is_installed

pytestmark = needs_faketime
HOUR, DAY = 3_600, 86_400
STEP_SECONDS = 2.0
JUMPS = (HOUR, -HOUR, DAY, 0, 300, -300, 0)
CHARGE = PROMPT_TOKENS * INPUT_NANOS + 5 * OUTPUT_NANOS
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


def make_old_model(site: Site, wishes: str) -> AIModel:
    """Make a model whose price is old: a gateway that is behind does not know newer ones yet."""
    model = site.make_model(wishes, prices=None)
    million = 1_000_000
    PriceVersion.objects.create(
        model=model,
        effective_at=LONG_AGO,
        input_nanos=INPUT_NANOS * million,
        output_nanos=OUTPUT_NANOS * million,
    )
    return model


def read_offset(gateway: GatewayProcess) -> float:
    """Return how far its clock is ahead of the database's, as its metrics tell."""
    told = ask_plainly(gateway, "GET", "/metrics").body.decode()
    return parse(told)[1]["gateway_clock_offset_seconds"]


def test_a_clock_that_jumps_ends_no_hold_and_changes_no_amount(site: Site, tmp_path: Path) -> None:
    payer = site.make_payer()
    quick = make_old_model(site, "tokens=5")
    streaming = make_old_model(site, "tokens=150,pace=0.1")
    clock = FakeClock(tmp_path / "clock")
    (gateway,) = site.start_gateways("a", plant=[SHORT_LEASE], environment=clock.environment)
    others = () if site.database.server is None else site.start_gateways("b", plant=[SHORT_LEASE])
    site.crowd.call(gateway.url, payer.key, chat(streaming, stream=True), count=20)
    wait_until(lambda: site.crowd.streaming == 20, timeout_seconds=20, what="the streams")

    with steady_calls(site, [gateway, *others], payer, quick, 3) as outcomes:
        for offset in JUMPS:
            clock.set_offset(offset)
            time.sleep(STEP_SECONDS)
    streams = site.crowd.wait(60)
    healed_at = time.monotonic()

    assert {one.status for one in outcomes} == {200}
    assert [one.is_whole for one in streams] == [True] * 20
    assert Incarnation.objects.filter(ended_at=None).count() == 1 + len(others)
    rows = APIRequest.objects.filter(model_id=quick.pk)
    assert set(rows.values_list("charge_nanos", flat=True)) == {CHARGE}
    moments = set(rows.values_list("started_at__date", flat=True))
    assert len(moments) > 1
    # The order of the chain is that of the database and of no clock.
    for incarnation in Incarnation.objects.all():
        numbers = APIRequest.objects.filter(incarnation_id=incarnation.pk).order_by("sequence")
        found = list(numbers.values_list("sequence", flat=True))
        assert found == list(range(1, len(found) + 1))
    site.check_books(
        f"F90 {len(JUMPS)} jumps of the clock by up to a day",
        [*streams, *outcomes],
        healed_at=healed_at,
        faults=len(JUMPS),
    )


def test_an_idempotency_key_is_used_once_whatever_the_clock_of_a_gateway_says(
    site: Site, tmp_path: Path
) -> None:
    payer, model = site.make_payer(), make_old_model(site, "tokens=5")
    clock = FakeClock(tmp_path / "clock")
    (wrong,) = site.start_gateways("wrong", environment=clock.environment)
    others = () if site.database.server is None else site.start_gateways("right")
    answers: list[bytes] = []

    # Kept for a day: by a clock that is a day behind, or ahead, it would be over at once.
    for first, then in ((-DAY, 0), (0, DAY), (DAY, 0)):
        clock.set_offset(first)
        time.sleep(STEP_SECONDS)
        key = f"{first} {then}"
        made = post(wrong, payer, model, key)
        clock.set_offset(then)
        time.sleep(STEP_SECONDS)
        repeats = [post(gateway, payer, model, key) for gateway in (wrong, *others)]
        assert [repeat.body for repeat in repeats] == [made.body] * len(repeats)
        assert {repeat.headers.get("idempotent-replayed") for repeat in repeats} == {"true"}
        answers.append(made.body)

    assert len(set(answers)) == 3
    assert charges(payer) == [-CHARGE] * 3
    site.check_books(
        "F90 idempotency keys and a clock that is a day off", [], healed_at=time.monotonic()
    )


@pytest.mark.postgres
def test_a_gateway_whose_host_is_a_day_behind_says_so_and_when_it_is_over(
    site: Site, tmp_path: Path
) -> None:
    payer, new, old = site.make_payer(), site.make_model("tokens=5"), make_old_model(site, "")
    clock = FakeClock(tmp_path / "clock")
    clock.set_offset(-DAY)

    (gateway,) = site.start_gateways("a", plant=[SHORT_LEASE], environment=clock.environment)
    site.crowd.call(gateway.url, payer.key, chat(new))
    site.crowd.call(gateway.url, payer.key, chat(old))
    behind = site.crowd.wait(30)
    wait_until(
        lambda: f"{DAY} s behind that of the database" in gateway.log(),
        timeout_seconds=30,
        what="the line about the clock",
    )
    offset = read_offset(gateway)
    clock.set_offset(0)
    wait_until(
        lambda: "agree again" in gateway.log(), timeout_seconds=30, what="the line about its end"
    )
    site.crowd.call(gateway.url, payer.key, chat(new))
    right = site.crowd.wait(30)

    # A price that begins tomorrow is none yet: E32.
    assert [one.status for one in behind] == [503, 200]
    assert offset == pytest.approx(-DAY, abs=1.0)
    assert [one.status for one in right] == [200]
    assert gateway.log().count("the clock of this host") == 2
    site.check_books(
        "F90 a host that is a day behind", [*behind, *right], healed_at=time.monotonic()
    )


@pytest.mark.postgres
@pytest.mark.redis
@pytest.mark.skipif(not is_installed(), reason="redis-server is not installed")
def test_two_gateways_whose_clocks_differ_share_limits_and_sessions_within_a_minute(
    site: Site, tmp_path: Path
) -> None:
    make_admin(username="root", password=PASSWORD)
    quick = make_old_model(site, "tokens=5")
    payer = site.make_payer(rpm=12)
    clock = FakeClock(tmp_path / "clock")
    folder = tmp_path / "redis"
    folder.mkdir()
    redis_server = RedisServer.start(folder)
    try:
        environment = {"REDIS_URL": redis_server.url}
        (right,) = site.start_gateways("right", environment=environment)
        (wrong,) = site.start_gateways("wrong", environment=environment | clock.environment)
        found: dict[float, tuple[int, int]] = {}
        for offset in (5, -5, 50, HOUR):
            clock.set_offset(offset)
            time.sleep(1.5)
            token = sign_in(wrong)
            back = sign_in(right)
            found[offset] = (
                ask(right, "GET", "/api/user/profile/", token)[0],
                ask(wrong, "GET", "/api/user/profile/", back)[0],
            )
        clock.set_offset(5)
        outcomes: list[Outcome] = []
        for gateway in itertools.islice(itertools.cycle((right, wrong)), 30):
            site.crowd.call(gateway.url, payer.key, chat(quick))
            outcomes += site.crowd.wait(30)
    finally:
        redis_server.stop()

    # A token of the future is refused, and one that has run out; both by more than the leeway.
    assert found == {5: (200, 200), -5: (200, 200), 50: (200, 200), HOUR: (401, 401)}
    assert sum(one.status == 200 for one in outcomes) == 12
    assert {one.status for one in outcomes} == {200, 429}
    site.check_books(
        "F91 clocks 5 s apart: 12 calls a minute over both", outcomes, healed_at=time.monotonic()
    )


MOMENTS = {
    "the end of a month": datetime(2026, 12, 31, 23, 59, 57, tzinfo=UTC),
    "the end of 32 bits": datetime(2038, 1, 19, 3, 14, 5, tzinfo=UTC),
    "a leap day": datetime(2028, 2, 28, 23, 59, 57, tzinfo=UTC),
    "clocks go back": datetime(2026, 10, 25, 0, 59, 57, tzinfo=UTC),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_calls_go_on_over_a_special_moment(site: Site, tmp_path: Path, moment: str) -> None:
    payer = site.make_payer()
    quick = make_old_model(site, "tokens=5")
    clock = FakeClock(tmp_path / "clock")
    # In a zone that has a summer.
    environment = {**clock.environment, "TZ": "Europe/Paris"}
    (gateway,) = site.start_gateways("a", environment=environment)
    clock.set_time(MOMENTS[moment])

    with steady_calls(site, [gateway], payer, quick, 2) as outcomes:
        time.sleep(6.0)

    assert {one.status for one in outcomes} == {200}
    rows = APIRequest.objects.filter(model_id=quick.pk)
    assert {row.charge_nanos for row in rows} == {CHARGE}
    limit = MOMENTS[moment] + timedelta(seconds=3)
    before = rows.filter(started_at__lt=limit).count()
    assert 0 < before < rows.count()
    assert rows.filter(settled_at__gte=MOMENTS[moment] - timedelta(minutes=1)).count() > 0
    site.check_books(f"F92 {moment}", outcomes, healed_at=time.monotonic(), faults=0)
