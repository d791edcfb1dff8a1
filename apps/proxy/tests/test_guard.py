"""Rules before a call is planned: what is looked at where, within which bounds."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from ipaddress import ip_network
from typing import Any, Final

import pytest

from apps.core.errors import GatewayError
from apps.core.ids import new_uuid7
from apps.proxy import guard as guard_module
from apps.proxy.dialects.surfaces import parse_request
from apps.proxy.guard import (
    COMPARED_IN_LOOP_MAX,
    SCANNED_IN_LOOP_MAX,
    SCANS_MAX,
    Circumstances,
    Guard,
)
from apps.proxy.tests.values import MODEL, NOW, make_caller, make_snapshot
from apps.risk.findings import CallFinding
from apps.risk.matchers import Matcher, match_pattern, match_words
from apps.risk.rules import Reach, Rule, RuleBook

CALLER: Final = make_caller()
SNAPSHOT: Final = make_snapshot(b"digest")


def _rule(number: int = 1, *, is_blocking: bool = True, **values: Any) -> Rule:
    return Rule(number, f"rule {number}", is_blocking, values.pop("message", ""), Reach(), **values)


def _words(number: int = 1, **values: Any) -> Rule:
    return _rule(number, contents=(match_words(["bomb"], are_whole=False),), **values)


class _Probe:
    """Looks for a bomb as an expression does, and notes where; it waits until it may go on."""

    def __init__(self) -> None:
        self.threads: list[threading.Thread] = []
        self.go = threading.Event()
        self.go.set()

    def search(self, text: bytes, start: int, end: int) -> int | None:
        """Return where it is, None where it is not."""
        self.threads.append(threading.current_thread())
        assert self.go.wait(30)
        found = text.find(b"bomb", start, end)
        return None if found < 0 else found


class _Noting(Guard):
    """Its findings wait for a database that is not asked here."""

    def __init__(self) -> None:
        super().__init__(lambda: 0.0)

    @property
    def noted(self) -> list[CallFinding]:
        """What was found."""
        return list(self.findings.waiting)

    async def look(self, rules: RuleBook, said: str = "a bomb", **values: Any) -> None:
        """Check a chat that says something."""
        body = {"model": "gpt", "messages": [{"role": "user", "content": said}]}
        around = Circumstances(new_uuid7(), "192.0.2.7", b"curl/8", len(said), NOW)
        request = parse_request("chat/completions", "openai", {**body, **values})
        await self.check(rules, SNAPSHOT, CALLER, request, around)


async def test_what_blocks_by_its_origin_is_told_before_what_blocks_by_its_content() -> None:
    guard = _Noting()
    origin = _rule(1, networks=(ip_network("192.0.2.0/24"),), message="Go away.")
    rules = RuleBook((_rule(3, is_blocking=False), origin), (_words(2),))

    with pytest.raises(GatewayError) as raised:
        await guard.look(rules)

    assert (raised.value.row, raised.value.message) == ("E25", "Go away.")
    assert [(found.rule_id, found.action) for found in guard.noted] == [(3, "record"), (1, "block")]
    assert guard.matches.counts == {("3", "record"): 1, ("1", "block"): 1}


async def test_a_content_rule_concerns_only_what_it_names() -> None:
    guard = _Noting()
    elsewhere = _words(1, networks=(ip_network("198.51.100.0/24"),))
    others = _words(2, operations=frozenset({"embeddings"}))

    await guard.look(RuleBook((), (elsewhere, others)))
    with pytest.raises(GatewayError) as raised:
        await guard.look(RuleBook((), (elsewhere, _words(3, user_agent=match_pattern("^curl")))))

    assert (raised.value.row, raised.value.param) == ("E26", None)
    assert [found.rule_id for found in guard.noted] == [3]
    assert guard.noted[0].requested_model == "gpt"


async def test_a_model_that_cannot_be_called_is_not_told_apart() -> None:
    guard = _Noting()
    hidden = replace(
        SNAPSHOT, catalogue=replace(SNAPSHOT.catalogue, models={"gpt": replace(MODEL, groups=())})
    )
    request = parse_request(
        "chat/completions", "openai", {"model": "gpt", "messages": [{"role": "user"}]}
    )
    around = Circumstances(new_uuid7(), "192.0.2.7", b"", 1, NOW)

    with pytest.raises(GatewayError) as raised:
        await guard.check(RuleBook((_rule(),)), hidden, CALLER, request, around)

    assert raised.value.row == "E07"
    assert guard.noted == []


@pytest.mark.parametrize(
    ("count", "words", "size", "is_in_loop"),
    [
        (1, 1, SCANNED_IN_LOOP_MAX, True),
        (1, 1, SCANNED_IN_LOOP_MAX + 1, False),
        (2, 50, COMPARED_IN_LOOP_MAX // 100, True),
        (2, 50, COMPARED_IN_LOOP_MAX // 100 + 1, False),
        (1, 0, 10, False),
    ],
)
async def test_what_takes_longer_is_looked_through_in_a_thread(
    count: int, words: int, size: int, is_in_loop: bool
) -> None:
    guard, probe = _Noting(), _Probe()
    rules = [_rule(number, contents=(Matcher(probe, words),)) for number in range(count)]

    with pytest.raises(GatewayError) as raised:
        await guard.look(RuleBook((), tuple(rules)), "bomb".rjust(size))

    assert raised.value.row == "E26"
    (thread,) = probe.threads
    assert (thread is threading.main_thread()) is is_in_loop


async def test_what_cannot_be_looked_through_in_time_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(guard_module, "SCAN_SECONDS_MAX", -1.0)
    guard = _Noting()
    large = "x" * (SCANNED_IN_LOOP_MAX + 1)

    with pytest.raises(GatewayError) as raised:
        await guard.look(RuleBook((), (_words(1),)), large)
    await guard.look(RuleBook((), (_words(1, is_blocking=False),)), large)

    assert raised.value.row == "E37"
    assert guard.noted == []


async def test_too_many_large_texts_at_once_are_refused() -> None:
    guard, probe = _Noting(), _Probe()
    probe.go.clear()
    rules = RuleBook((), (_rule(contents=(Matcher(probe, 0),)),))
    running = [asyncio.create_task(guard.look(rules, "nothing")) for _ in range(SCANS_MAX)]
    await asyncio.sleep(0)

    with pytest.raises(GatewayError) as raised:
        await guard.look(rules, "nothing")
    probe.go.set()

    assert raised.value.row == "E37"
    assert await asyncio.gather(*running) == [None] * SCANS_MAX
    await guard.look(rules, "nothing")
