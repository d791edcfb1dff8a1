"""A gateway that is stopped while nothing can be settled: no database, no room in the journal."""

from __future__ import annotations

import signal
import time

import pytest

from apps.audit.models import APIRequest
from tests.faults.site import Site, chat

STOP_SECONDS_MAX = 20
FULL_JOURNAL = "tests.faults.planted:full_journal"


@pytest.mark.sqlite
def test_calls_that_cannot_be_settled_end_as_documented(site: Site) -> None:
    answered, stalled = site.make_model("tokens=5,latency=1"), site.make_model("fault=stall_after")
    streamed = site.make_model("tokens=600,pace=0.1")
    payer = site.make_payer()
    (gateway,) = site.start_gateways("a", plant=[FULL_JOURNAL])
    for body in (chat(answered), chat(stalled), chat(streamed, stream=True)):
        site.crowd.call(gateway.url, payer.key, body)
    time.sleep(0.6)

    other = site.database.connect()
    other.execute("BEGIN IMMEDIATE")
    try:
        time.sleep(1.0)
        gateway.process.send_signal(signal.SIGTERM)
        outcomes = site.crowd.wait(STOP_SECONDS_MAX)
        gateway.process.wait(STOP_SECONDS_MAX)
    finally:
        other.execute("ROLLBACK")
        other.close()
    stopped_at = time.monotonic()
    site.start_gateways("a")

    # What may have been charged is not tried again, what was not is, and no stream ends cleanly.
    assert [(one.status, one.kind) for one in outcomes] == [
        (500, "server_error"),
        (503, "server_error"),
        (200, ""),
    ]
    assert [one.is_whole for one in outcomes] == [False] * 3
    assert "Traceback" not in gateway.log()
    site.check_books("stopped without a place to settle", outcomes, healed_at=stopped_at)
    assert sum(row.charge_nanos for row in APIRequest.objects.filter(model_id=stalled.pk)) == 0
