"""How often a gateway refused what, as its metrics tell."""

from __future__ import annotations

import re
from typing import Final

from tests.e2e.answers import ask
from tests.support.bench import Bench
from tests.support.prometheus import parse

Refusals = dict[tuple[str, str], float]  # by row and code
_SAMPLE: Final = re.compile(r'gateway_refusals_total\{row="(E\d+)",code="([a-z_]+)"\}')


def refusals(bench: Bench) -> Refusals:
    """Return what was refused since the gateway began."""
    _, samples = parse(ask(bench.gateway, "GET", "/metrics").body.decode())
    found = ((_SAMPLE.fullmatch(name), value) for name, value in samples.items())
    return {(match[1], match[2]): value for match, value in found if match is not None}


def subtract(after: Refusals, before: Refusals) -> Refusals:
    """Return what was refused in between."""
    return {key: made for key in after if (made := after[key] - before.get(key, 0))}
