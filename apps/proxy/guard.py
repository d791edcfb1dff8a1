"""Holds calls against the risk rules before anything is held: E25 for where a call comes from, E26
for what it says.

Short texts are looked through on the event loop, all others in threads of this module, in pieces
between which the loop gets on. What cannot be looked through in time is refused (E37) where a rule
that blocks is left, and passes where rules would only have noted it.

Bounds: SCANS_MAX texts at once and waiting, SCAN_SECONDS_MAX for one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

from apps.core.errors import GatewayError
from apps.core.instruments import Counter
from apps.proxy.admission import get_model
from apps.proxy.dialects.parsed_request import ParsedRequest
from apps.proxy.request_texts import has_token_ids, list_texts
from apps.proxy.rule_findings import RuleFindings
from apps.proxy.snapshot import Caller, Model, Snapshot
from apps.risk.findings import CallFinding
from apps.risk.rules import (
    Origin,
    Rule,
    RuleBook,
    ScanTooLong,
    Subject,
    Verdict,
    judge_origin,
    judge_texts,
)

# A body that is looked through on the loop, and its bytes times the words that are looked for: each
# takes a millisecond to four.
SCANNED_IN_LOOP_MAX: Final = 32 << 10
COMPARED_IN_LOOP_MAX: Final = 1 << 20
SCAN_THREADS: Final = 2
SCANS_MAX: Final = 64
SCAN_SECONDS_MAX: Final = 10.0


class Circumstances(NamedTuple):
    """What is known of a call beside the request."""

    request_id: UUID
    address: str
    user_agent: bytes
    body_bytes: int
    now: datetime


class Guard:
    """The rules at work in one process. Belongs to the event loop."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self.matches = Counter()  # calls that a rule found, by its id and action
        self.findings = RuleFindings(monotonic)
        self._threads = ThreadPoolExecutor(SCAN_THREADS, thread_name_prefix="contents")
        self._scans = 0

    async def stop(self) -> None:
        """Write what was found and take no more."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        await self.findings.stop()

    async def check(
        self,
        rules: RuleBook,
        snapshot: Snapshot,
        caller: Caller,
        request: ParsedRequest,
        around: Circumstances,
    ) -> None:
        """Let a call pass that no rule blocks, and note what rules found.

        Raises E07, E25, E26, and E37 where its texts cannot be looked through in time.
        """
        model, _ = get_model(snapshot, caller, request.model, around.now)
        subject = Subject(
            user_id=caller.member.id,
            user_group_id=caller.member.user_group_id,
            api_key_id=caller.key.id,
            model_id=model.id,
            model_group_ids=[group.id for group in model.groups],
        )
        origin = Origin(around.address, around.user_agent, request.endpoint)
        verdict = judge_origin(rules.requests, subject, origin)
        self._note(verdict, caller, model, request, around)
        if verdict.blocked_by is not None:
            raise GatewayError("E25", message=verdict.blocked_by.message or None)
        concerned = [rule for rule in rules.contents if rule.concerns(subject, origin)]
        if not concerned:
            return
        is_unreadable = has_token_ids(request)
        if is_unreadable:
            verdict = Verdict((), next((rule for rule in concerned if rule.is_blocking), None))
        else:
            verdict = await self._judge(concerned, request, around.body_bytes)
        self._note(verdict, caller, model, request, around)
        if verdict.blocked_by is None:
            return
        if is_unreadable:
            raise GatewayError(
                "E26", param="prompt", message="Send the prompt as text: tokens are not read here."
            )
        raise GatewayError("E26", message=verdict.blocked_by.message or None)

    async def _judge(
        self, rules: Sequence[Rule], request: ParsedRequest, body_bytes: int
    ) -> Verdict:
        words = [rule.words for rule in rules]
        if (
            body_bytes <= SCANNED_IN_LOOP_MAX
            and None not in words
            and body_bytes * sum(count or 0 for count in words) <= COMPARED_IN_LOOP_MAX
        ):
            return judge_texts(rules, list_texts(request))
        if self._scans >= SCANS_MAX:
            raise GatewayError("E37")
        self._scans += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, _judge_in_thread, rules, request)
        except ScanTooLong:
            raise GatewayError("E37") from None
        finally:
            self._scans -= 1

    def _note(
        self,
        verdict: Verdict,
        caller: Caller,
        model: Model,
        request: ParsedRequest,
        around: Circumstances,
    ) -> None:
        for rule in _found(verdict):
            action = "block" if rule.is_blocking else "record"
            self.matches.add(str(rule.id), action)
            self.findings.add(
                CallFinding(
                    request_id=around.request_id,
                    rule_id=rule.id,
                    rule_name=rule.name,
                    kind="content" if rule.contents else "request",
                    action=action,
                    user_id=caller.member.id,
                    user_name=caller.member.name,
                    api_key_id=caller.key.id,
                    api_key_name=caller.key.name,
                    model_id=model.id,
                    requested_model=model.name,
                    operation=request.endpoint,
                    ip_address=around.address,
                    user_agent=around.user_agent.decode("latin-1"),
                    created_at=around.now,
                )
            )


def _found(verdict: Verdict) -> Iterable[Rule]:
    yield from verdict.noted
    if verdict.blocked_by is not None:
        yield verdict.blocked_by


def _judge_in_thread(rules: Sequence[Rule], request: ParsedRequest) -> Verdict:
    until = time.monotonic() + SCAN_SECONDS_MAX
    return judge_texts(rules, list_texts(request), until=until, pause=time.sleep)
