"""Half of the capacity for a long time: memory stays, everything else comes back, money is right.

SOAK_SECONDS says for how long; a minute shows that it works, twenty show that nothing grows.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Final

from apps.ai_models.models import Route
from apps.api_keys.models import APIKey
from apps.model_groups.models import ModelGroup
from apps.quotas.allowances import create_quota
from apps.users.models import User
from apps.users.tokens import open_session
from tests.faults.site import PROMPT_TOKENS, Site, chat
from tests.nemesis.surfaces import ANTHROPIC, GEMINI, OPENAI
from tests.soak.gauges import (
    GROWTH_MAX,
    SLACK,
    Reading,
    by_fifths,
    growth,
    is_back,
    read,
    row,
    wait_until_back,
)
from tests.soak.traffic import Call, Chat, Errand, Kind, Read, Traffic
from tests.support.gateway import GatewayProcess
from tests.support.people import make_admin

SECONDS: Final = float(os.environ.get("SOAK_SECONDS") or "60")
CAPACITY_SECONDS: Final = 15.0
CLIENTS: Final = 32
SHARE: Final = 0.5
SAMPLE_SECONDS: Final = min(5.0, SECONDS / 50)
# Longer than the gateway keeps connections to providers, and its clients theirs.
QUIET_SECONDS: Final = 40.0
# An access token is good for 15 minutes.
SESSION_SECONDS: Final = 600.0

Readings = list[list[Reading]]  # one a gateway, at each moment


def make_kinds(site: Site) -> list[Kind]:
    """Make what is called and who calls; weights are per cent."""
    quick, failing = site.make_model("tokens=20"), site.make_model("fault=status(500)")
    slow = site.make_model("tokens=40,pace=0.05")
    failover = site.make_model("fault=status(503)")
    Route.objects.create(
        model=failover,
        provider=failover.routes.get().provider,
        upstream_name=f"demo-chat:prompt={PROMPT_TOKENS},tokens=20",
        priority=1,
    )
    key, poor = site.make_payer(10**15).key, site.make_payer(1).key
    refused = {**chat(quick), "model": "no-such-model"}
    messages, contents = (
        site.make_model("tokens=20", provider=site.make_provider(dialect=dialect)).name
        for dialect in ("anthropic", "gemini")
    )
    server_errors = frozenset(range(500, 505))
    return [
        Chat("whole answer", 22, key, chat(quick)),
        Chat("stream", 18, key, chat(quick, stream=True)),
        Chat("slow stream", 3, key, chat(slow, stream=True)),
        Chat("client that leaves", 6, key, chat(slow, stream=True), leaves=True),
        Chat("failover", 8, key, chat(failover)),
        Chat("provider that fails", 4, key, chat(failing), server_errors),
        Chat("bad key", 5, "sk-audit-nobody", chat(quick), frozenset({401})),
        Chat("unknown model", 4, key, refused, frozenset({404})),
        Chat("empty wallet", 4, poor, chat(quick), frozenset({429})),
        Call("capped key with a quota", 4, make_capped(site), quick.name),
        Call("quoted call", 2, key, quick.name, is_quoted=True),
        Call("Anthropic client", 3, key, messages, ANTHROPIC),
        Call("Gemini stream", 3, key, contents, GEMINI, is_stream=True),
        Call("converted answer", 2, key, quick.name, ANTHROPIC),
        Call("converted stream", 2, key, messages, OPENAI, is_stream=True),
        Read("models", 5, key, "/v1/models"),
        Read("usage", 5, key, "/v1/usage"),
    ]


def make_capped(site: Site) -> str:
    """Make a key with a cap, of somebody who has a quota beside the wallet, and return it."""
    payer = site.make_payer(10**15)
    APIKey.objects.filter(user_id=payer.user_id).update(cap_nanos=10**15)
    create_quota(
        user=User.objects.get(pk=payer.user_id),
        model_group=ModelGroup.objects.get(name="public"),
        total_nanos=10**12,
    )
    return payer.key


def make_errands() -> Callable[[int], Errand]:
    """Return what an administrator does: reads, and edits that every gateway has to learn of."""
    (key_id, *_) = APIKey.objects.order_by("pk").values_list("pk", flat=True)
    reads = (
        Errand("GET", "/api/admin/requests/?page_size=20"),
        Errand("GET", "/api/admin/keys/"),
        Errand("GET", "/api/admin/ledger/entries/?page_size=20"),
    )

    def errand(number: int) -> Errand:
        if number % 2:
            return reads[number // 2 % len(reads)]
        return Errand("PATCH", f"/api/admin/keys/{key_id}/", {"name": f"key {number}"})

    return errand


def watch(
    site: Site, gateways: list[GatewayProcess], traffic: Traffic, admin: User, rate: float
) -> Readings:
    """Make calls at a rate for SECONDS and return how the gateways were meanwhile."""
    readings: Readings = []
    session_at = 0.0
    running = traffic.make_calls(rate, SECONDS)
    while not running.done():
        begun = time.monotonic()
        if begun > session_at:
            traffic.admin_token = open_session(user=admin, request=None).access
            session_at = begun + SESSION_SECONDS
        readings.append([read(gateway, site.database) for gateway in gateways])
        time.sleep(max(0.0, begun + SAMPLE_SECONDS - time.monotonic()))
    running.result()
    return readings


def come_to_rest(site: Site, gateways: list[GatewayProcess], traffic: Traffic) -> list[Reading]:
    """Return how the gateways are when nobody has called them for a while."""
    traffic.disconnect()
    time.sleep(QUIET_SECONDS)
    return [read(gateway, site.database) for gateway in gateways]


def test_nothing_grows_at_half_of_the_capacity(site: Site, report: Callable[[str], None]) -> None:
    kinds, errands = make_kinds(site), make_errands()
    names = ("a",) if site.database.server is None else ("a", "b")
    gateways = site.start_gateways(*names)
    admin = make_admin(username="root")
    traffic = Traffic([gateway.url for gateway in gateways], kinds, errands)
    try:
        traffic.admin_token = open_session(user=admin, request=None).access
        capacity = traffic.measure(CAPACITY_SECONDS, CLIENTS)
        before = come_to_rest(site, gateways, traffic)

        readings = watch(site, gateways, traffic, admin, SHARE * capacity)
        traffic.disconnect()
        after = wait_until_back(gateways, site.database, before)
    finally:
        traffic.stop()

    report(
        f"soak on {site.database.engine}: {SECONDS:.0f} s at {SHARE * capacity:.0f} calls/s, "
        f"half of {capacity:.0f}; {traffic.seen.total()} calls, {traffic.left_out} left out, "
        f"{traffic.refused} refused with 503, {traffic.wrong.total()} answered wrongly"
    )
    for position, name in enumerate(names):
        _tell(report, name, before[position], after[position], [one[position] for one in readings])
    assert max(growth(_sizes(one)) for one in zip(*readings, strict=True)) <= GROWTH_MAX
    assert all(map(is_back, before, after))
    warnings = "".join(_warnings(gateway) for gateway in gateways)
    assert traffic.wrong == {}, warnings
    # Also on a machine that others use: half of what was measured there just before is not much.
    assert (traffic.left_out, traffic.refused) == (0, 0), warnings
    assert {kind.name for kind in kinds} <= traffic.seen.keys()
    site.check_books("  books", traffic.outcomes, healed_at=time.monotonic(), faults=0)


def _warnings(gateway: GatewayProcess) -> str:
    """Return the last lines of the log that are not about a provider that was to fail."""
    lines = [line for line in gateway.log().splitlines(True) if "no provider" not in line]
    return "".join(lines[-30:])


def _sizes(readings: Sequence[Reading]) -> list[int]:
    return [reading.resident_bytes for reading in readings]


def _tell(
    report: Callable[[str], None],
    name: str,
    before: Reading,
    after: Reading,
    readings: Sequence[Reading],
) -> None:
    sizes = _sizes(readings)
    fifths = " ".join(f"{mebibytes:.1f}" for mebibytes in by_fifths(sizes))
    most = {key: max(reading.values()[key] for reading in readings) for key in SLACK}
    report(f"  gateway {name}: MiB by fifths {fifths}; last to second {growth(sizes):.3f}")
    report(row("", lambda key: key))
    report(row("before", lambda key: before.values()[key]))
    report(row("most", lambda key: most[key]))
    report(row("after", lambda key: after.values()[key]))
