"""Joins the three logs, call by call, and explains each nano that they disagree about.

What the provider counted (tokens delivered, at the models' price) against what was charged. Pure.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import Any, Final
from uuid import UUID

from tests.faults.site import INPUT_NANOS, OUTPUT_NANOS
from tests.nemesis.seen import IN_THE_STREAM, Seen
from tests.nemesis.surfaces import dialect_of

EXACT: Final = "exact"
LOST_ATTEMPT: Final = "an attempt lost to a failover"
# What the id that the provider sends with an answer ends with.
_ID_LENGTH: Final = 29
# The misbehaviour of answering everybody with one id.
_SAME_ID: Final = "dup_id"
# What comes behind the end of a stream is not read: usage, or more text.
_BEHIND_THE_END: Final = frozenset({"usage_after_finish", "late_after_done"})
# What is reported there cannot be true: it is no number, or far too much, or far too little.
_BELIED_USAGE: Final = frozenset({"bad_usage", "big_body", "huge_line", "inflated_usage"})
# Where usage was none, or not to be believed or read, a call is charged an estimate.
_SPOILT_USAGE: Final = _BEHIND_THE_END | _BELIED_USAGE | {"no_usage"}
# Dialects that report usage from the first event on; the others do it once, at the end.
_REPORTED_EARLY: Final = frozenset({"anthropic", "gemini"})
# The one that tells with each piece how much it has been so far.
_TOLD_AS_IT_GOES: Final = frozenset({"gemini"})
_BY_REAPER: Final = frozenset({"interrupted"})
# A hold that was placed with a quote was spent or has lapsed, or ended with its gateway.
_QUOTE_STATES: Final = _BY_REAPER | {"voided"}
# How a call that ended early is explained, by its state.
_ENDED_EARLY: Final = {
    "client_disconnected": "the client left",
    "upstream_interrupted": "the provider broke off",
    "limit_exceeded": "ended at a limit",
    "gateway_drained": "ended by a restart",
}


@dataclass(frozen=True, slots=True)
class Upstream:
    """One call as the provider saw it."""

    started_at: float
    input_tokens: int
    output_tokens: int
    has_usage: bool  # it reported usage to its end
    response_id: str
    model: str
    fault: str
    dialect: str = "openai"

    @property
    def nanos(self) -> int:
        """What its tokens cost a client."""
        return self.input_tokens * INPUT_NANOS + self.output_tokens * OUTPUT_NANOS


@dataclass(frozen=True, slots=True)
class Recorded:
    """One call as the database has it."""

    state: str
    usage_source: str
    is_suspect: bool
    charge_nanos: int
    hold_nanos: int
    attempt_count: int
    error_code: str
    late_nanos: int = 0
    attempt_ids: tuple[str, ...] = ()  # the provider's ids, "" where it told none
    attempt_models: tuple[str, ...] = ()  # the provider's names
    user_id: int = 0
    key: str = ""  # idempotency key
    is_made_again: bool = False  # by a repeat with its key, which was charged
    is_unfinished: bool = False  # its client was told so inside the answer, or had left by then
    late_source: str = ""  # of the usage that it was settled late by

    @property
    def paid_nanos(self) -> int:
        """What has been taken for it in all."""
        return self.charge_nanos + self.late_nanos


@dataclass(slots=True)
class Joined:
    """What came out of joining the logs."""

    charged_nanos: int = 0
    counted_nanos: int = 0
    calls: Counter[str] = field(default_factory=Counter)  # by explanation
    nanos: Counter[str] = field(default_factory=Counter)  # charged beyond what was counted
    problems: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Return the table of differences."""
        difference = self.charged_nanos - self.counted_nanos
        lines = [
            f"charged {self.charged_nanos} nanos, the provider counted {self.counted_nanos}, "
            f"difference {difference}:"
        ]
        for reason, nanos in sorted(self.nanos.items(), key=lambda item: -abs(item[1])):
            if not nanos:
                continue
            lines.append(f"  {nanos:+16d}  {self.calls[reason]:6d} x {reason}")
        exact = sum(count for reason, count in self.calls.items() if not self.nanos[reason])
        lines.append(f"  {0:+16d}  {exact:6d} x {EXACT}, or nothing at all")
        return lines


def join(
    seen: Iterable[Seen],
    upstream: Mapping[UUID, Sequence[Upstream]],
    recorded: Mapping[UUID, Recorded],
) -> Joined:
    """Join the logs and return what they say together."""
    joined, seen = Joined(), list(seen)
    unfinished = {one.request_id for one in seen if one.error == IN_THE_STREAM or one.has_left}
    for request_id in upstream.keys() | recorded.keys():
        calls, row = upstream.get(request_id, ()), recorded.get(request_id)
        if row is None:
            joined.problems.append(f"{request_id} reached the provider and is not on record")
            continue
        row = replace(row, is_unfinished=str(request_id) in unfinished)
        _explain_call(request_id, calls, row, joined)
    for one in seen:
        if one.request_id:
            identifier = UUID(one.request_id)
            problem = check_view(one, recorded.get(identifier), upstream.get(identifier, ()))
            if problem:
                joined.problems.append(f"{one.request_id} ({one.client}, {one.model}): {problem}")
        joined.problems += [f"{one.request_id} ({one.client}): {text}" for text in one.problems]
    joined.problems += check_quotes(seen, recorded)
    return joined


def _explain_call(
    request_id: UUID, calls: Sequence[Upstream], row: Recorded, joined: Joined
) -> None:
    counted = sum(call.nanos for call in calls)
    joined.charged_nanos += row.paid_nanos
    joined.counted_nanos += counted
    for reason, nanos in explain(calls, row):
        joined.calls[reason] += 1
        joined.nanos[reason] += nanos
        if reason.startswith("?"):
            joined.problems.append(f"{request_id}: {reason}: {nanos} nanos, {row}, {calls}")
    if len(calls) > row.attempt_count and row.state not in _BY_REAPER:
        joined.problems.append(f"{request_id}: more calls than attempts, {row}, {calls}")
    known = {identifier[-_ID_LENGTH:] for identifier in row.attempt_ids}
    unknown = {call.response_id for call in calls if call.fault != _SAME_ID} - known
    # Of an attempt that never answered nobody knows the provider's id.
    if len(unknown) > row.attempt_ids.count("") and row.state not in _BY_REAPER:
        joined.problems.append(f"{request_id}: no attempt has {unknown}, {row}")


def explain(calls: Sequence[Upstream], row: Recorded) -> list[tuple[str, int]]:
    """Return reasons and nanos that sum to what was charged less what the provider counted.

    A reason that begins with `?` explains nothing: it is a finding.
    """
    parts: list[tuple[str, int]] = []
    last = find_last(calls, row)
    counted = sum(call.nanos for call in calls)
    lost = counted - (last.nanos if last else 0)
    if lost:
        is_possible = row.attempt_count >= len(calls) or row.state in _BY_REAPER
        parts.append((LOST_ATTEMPT if is_possible else "?more calls than attempts", -lost))
    difference = row.paid_nanos - counted + lost
    parts.append((_explain_last(difference, last, row), difference))
    return parts


def find_last(calls: Sequence[Upstream], row: Recorded) -> Upstream | None:
    """Return the call of the last attempt. One that was given up may arrive later than it did.

    Where that one's id is not known (Google tells it in the answer alone), it is none of which
    the id is known, and was made by the name that the attempt says.
    """
    known = [identifier[-_ID_LENGTH:] for identifier in row.attempt_ids]
    answered = [call for call in calls if known and call.response_id == known[-1]]
    unknown = [
        call
        for call in calls
        if call.response_id not in known and call.model == (row.attempt_models or ("",))[-1]
    ]
    found = answered or unknown or calls
    return found[-1] if found else None


def _explain_last(difference: int, last: Upstream | None, row: Recorded) -> str:
    if not difference:
        return EXACT
    if row.paid_nanos and last is None:
        return "?charged without a call"
    if row.usage_source != "reported" and row.charge_nanos > row.hold_nanos:
        return "?more than the hold without a report"
    if row.paid_nanos > max(row.hold_nanos, last.nanos if last else 0):
        return "?more than the hold and than what the provider counted"
    if row.state in _BY_REAPER:
        return _explain_interrupted(difference, last, row)
    if row.late_nanos:
        return "?late, and no reaper came before"
    if row.state == "failed":
        return "failed before any content" if not row.paid_nanos else "?a failure was charged"
    if row.is_suspect:
        is_belied = last is not None and last.fault in _BELIED_USAGE
        why = "usage that cannot be true: cut at the hold"
        return why if is_belied else f"?{why}, and nothing was wrong with it"
    if row.state == "completed":
        assert last is not None
        if last.fault in _BEHIND_THE_END:
            return "more came behind the end"
        if row.usage_source == "estimated" and not last.has_usage:
            return "no usage from the provider: estimated"
        return f"?completed by {row.usage_source} usage"
    early = _ENDED_EARLY.get(row.state)
    if early is None:
        return f"?{row.state}"
    if row.usage_source == "reported":
        # What was sent and not read any more had been counted by the provider, and not told.
        is_part = last is not None and last.dialect in _TOLD_AS_IT_GOES and difference < 0
        return f"{early}: what was told by then" if is_part else f"?{early}, and usage was reported"
    return f"{early}: {row.usage_source}"


def _explain_interrupted(difference: int, last: Upstream | None, row: Recorded) -> str:
    """Explain a call that others ended, and that its owner may have settled late."""
    if row.late_nanos:
        is_told = last is not None and last.has_usage and last.fault not in _SPOILT_USAGE
        # What the provider sent may have been lost on its way, or nobody waited for it any more:
        # then its owner estimated, too, and a token more than there were is no report.
        is_estimate = row.is_unfinished or row.late_source == "estimated"
        if difference > 0 and is_told and not is_estimate:
            # Only the difference to what was charged before may be posted.
            return "?late, beyond what the provider reported"
        return "settled late by the owner: estimated"
    if difference > 0:
        if row.usage_source != "checkpoint":
            return "?the gateway died: charged without a checkpoint"
        return "the gateway died: a checkpoint above what was reported later"
    return f"the gateway died: {row.usage_source}"


def check_view(one: Seen, row: Recorded | None, calls: Sequence[Upstream]) -> str:
    """Return how a client's view of a call contradicts its record, "" where it does not."""
    if row is None:
        is_missed = one.status == 200 or one.is_after_hold
        return f"an answer of {one.status}, and no record of it" if is_missed else ""
    if one.status not in (0, 200):
        return f"{one.status} was charged {row}" if one.is_free and row.paid_nanos else ""
    if one.is_quote:
        is_one = row.state in _QUOTE_STATES and not row.paid_nanos and not calls
        return "" if is_one else f"a quote is on record as {row}, {calls}"
    if not one.is_whole:
        return ""
    if row.state == "completed":
        return ""
    if row.state in _BY_REAPER and _is_paid(row, find_last(calls, row)):
        return ""
    return f"the client saw the end of a call that was not completed: {row}, {calls}"


def _is_paid(row: Recorded, last: Upstream | None) -> bool:
    """Return whether a call is paid whose owner had been frozen: others ended it, and it has paid
    the rest, if there was any.
    """
    if row.is_made_again:
        return True
    if last is not None and last.fault in _SPOILT_USAGE:
        return row.paid_nanos > 0
    least = last.nanos if last else 0
    # Of a checkpoint that was above what the provider reported in the end nothing is given back.
    is_above = row.usage_source == "checkpoint" and not row.late_nanos and row.paid_nanos >= least
    return row.paid_nanos == least or is_above


def check_quotes(seen: Iterable[Seen], recorded: Mapping[UUID, Recorded]) -> list[str]:
    """Return where the hold of a quote was spent more than once, or is not on record as spent."""
    spent: defaultdict[str, set[str]] = defaultdict(set)
    for one in seen:
        if one.quote_id and one.status == 200:
            spent[one.quote_id].add(one.request_id)
    problems = [f"{quote} was spent by {ids}" for quote, ids in spent.items() if len(ids) > 1]
    for quote in spent:
        row = recorded.get(UUID(quote))
        if row is None or row.error_code != "quote_spent":
            problems.append(f"{quote} was spent, and is on record as {row}")
    return problems


def mark_repeats(recorded: Mapping[UUID, Recorded]) -> dict[UUID, Recorded]:
    """Return the records, with those marked that a repeat with their key has taken the place of:
    their owner was taken for dead, and what it settled later was not charged.
    """
    charged = {row.key for row in recorded.values() if row.key and row.paid_nanos}
    return {
        request_id: replace(
            row,
            is_made_again=row.key in charged and row.state in _BY_REAPER and not row.paid_nanos,
        )
        for request_id, row in recorded.items()
    }


def check_keys(
    answered: Mapping[str, AbstractSet[str]], recorded: Mapping[UUID, Recorded]
) -> list[str]:
    """Return where an idempotency key was charged twice, or has two answers.

    `answered` are the calls that a client saw whole, by their key.
    """
    charged: defaultdict[str, list[UUID]] = defaultdict(list)
    for request_id, row in recorded.items():
        if row.key and row.paid_nanos:
            charged[row.key].append(request_id)
    problems = [f"the key {key} was charged for {ids}" for key, ids in charged.items()
                if len(ids) > 1]  # fmt: skip
    for key, ids in answered.items():
        rows = {one: recorded.get(UUID(one)) for one in ids}
        final = [one for one, row in rows.items() if row is None or not row.is_made_again]
        if len(final) > 1:
            problems.append(f"the key {key} has several answers: {rows}")
    return problems


def read_upstream(calls: Iterable[Mapping[str, Any]]) -> dict[UUID, list[Upstream]]:
    """Return the provider's log by the gateway's request ids, each in the order of its calls.

    Questions about answers that are kept are no calls: they are not on record.
    """
    found: dict[UUID, list[Upstream]] = {}
    made = (call for call in calls if call["method"] == "POST")
    for call in sorted(made, key=lambda call: call["started_at"]):
        dialect = dialect_of(call["path"])
        # What is reported early has been told to its end where all was sent.
        is_told = dialect not in _REPORTED_EARLY or call["ended"] == "done"
        found.setdefault(UUID(call["request_headers"]["x-request-id"]), []).append(
            Upstream(
                started_at=call["started_at"],
                input_tokens=call["input_tokens"],
                output_tokens=call["output_tokens"],
                has_usage=call["usage_sent"] and is_told,
                response_id=call["response_id"],
                model=call["model"] or "",
                fault=call["fault"],
                dialect=dialect,
            )
        )
    return found
