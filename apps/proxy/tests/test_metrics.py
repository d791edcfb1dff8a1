"""Who may read the metrics, and what the list of them must be like."""

from __future__ import annotations

import re
from typing import Any

import pytest

from apps.proxy.counts import Counts
from apps.proxy.gateway import Gateway
from apps.proxy.metrics import METRICS, _lines, may_read

TOKEN = "0123456789abcdef"
GOOD = (b"authorization", b"Bearer 0123456789abcdef")


def _scope(peer: str | None, *headers: tuple[bytes, bytes], method: str = "GET") -> dict[str, Any]:
    client = None if peer is None else (peer, 50_000)
    return {"method": method, "client": client, "headers": list(headers)}


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
def test_without_a_token_who_is_on_this_machine_may_read(peer: str) -> None:
    assert may_read(_scope(peer), "")


@pytest.mark.parametrize(
    "scope",
    [
        _scope("10.0.0.7"),
        _scope("203.0.113.9", (b"x-forwarded-for", b"127.0.0.1")),
        # A proxy on this machine passes on what comes from elsewhere.
        _scope("127.0.0.1", (b"x-forwarded-for", b"127.0.0.1")),
        _scope("127.0.0.1", (b"forwarded", b"for=127.0.0.1")),
        _scope(None),
        _scope("unix"),
        _scope("127.0.0.1", method="POST"),
        _scope("10.0.0.7", GOOD),
    ],
)
def test_without_a_token_nobody_else_may(scope: dict[str, Any]) -> None:
    assert not may_read(scope, "")


@pytest.mark.parametrize("peer", ["127.0.0.1", "203.0.113.9"])
def test_with_a_token_whoever_sends_it_may_read(peer: str) -> None:
    assert may_read(_scope(peer, GOOD, (b"x-forwarded-for", b"198.51.100.4")), TOKEN)


@pytest.mark.parametrize(
    "value",
    [None, b"", b"Bearer ", b"Bearer 0123456789abcdeF", b"Basic 0123456789abcdef", b"Bearer \xff"],
)
def test_with_a_token_nobody_else_may_not_even_on_this_machine(value: bytes | None) -> None:
    headers = [] if value is None else [(b"authorization", value)]

    assert not may_read(_scope("127.0.0.1", *headers), TOKEN)


def test_circuits_are_told_by_route_and_key() -> None:
    gateway = Gateway()
    gateway.monotonic = lambda: 100.0
    circuits = gateway.health.circuits
    circuits.rest((7, 3), 95.0, 10)
    circuits.rest((8, 0), 80.0, 10)
    for _ in range(5):
        circuits.fail((9, 0), 60.0, begun=60.0)

    def lines_of(name: str) -> list[str]:
        (metric,) = (one for one in METRICS if one.name == name)
        return [line for line in _lines(metric, gateway) if not line.startswith("#")]

    assert lines_of("gateway_circuits_open") == ["gateway_circuits_open 1"]
    assert lines_of("gateway_circuit_state") == [
        'gateway_circuit_state{route="7",provider_key="3"} 2',
        'gateway_circuit_state{route="8",provider_key="0"} 0',
        'gateway_circuit_state{route="9",provider_key="0"} 1',
    ]
    assert lines_of("gateway_provider_keys_unreported") == ["gateway_provider_keys_unreported 0"]


def test_every_metric_is_named_typed_and_explained_once() -> None:
    names = [metric.name for metric in METRICS]

    assert len(set(names)) == len(names)
    for metric in METRICS:
        assert re.fullmatch(r"(gateway|process)_[a-z_]+", metric.name)
        assert metric.name.endswith("_total") == (metric.kind == "counter"), metric.name
        assert metric.meaning
        assert not set("\\\n|") & set(metric.meaning + metric.alert)


def test_a_settled_call_is_counted_by_endpoint_state_and_class_of_status() -> None:
    counts = Counts()

    counts.note_call("embeddings", "completed", 200, 0.2, None)
    counts.note_call("chat/completions", "client_disconnected", 499, 3.0, 120)

    assert counts.calls.counts == {
        ("embeddings", "completed", "2xx"): 1,
        ("chat/completions", "client_disconnected", "4xx"): 1,
    }
    assert sum(counts.durations.counts) == 2
    assert counts.durations.total == 3.2
    assert sum(counts.first_tokens.counts) == 1
    assert counts.first_tokens.total == 0.12
