"""Rules as gateways know them, and what they say of a call. Pure.

A rule concerns a call if everything that it names fits: whose call it is, for which model, from
where, by which program, at which endpoint. A content rule looks for something in the texts as well.
Rules are looked at in their order; the first that blocks ends it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Final, NamedTuple

from apps.risk.folding import fold_in_pieces
from apps.risk.matchers import PAUSE_SECONDS, Matcher, Pause

Network = IPv4Network | IPv6Network

# What is searched at once; between two of them others go on and the time is looked at.
WINDOW_BYTES: Final = 256 << 10
# The longest that a rule finds.
REACH_BYTES: Final = 16 << 10
# What is looked at beside a window, to see whether a word ends there.
_EDGE_BYTES: Final = 8
# What of a user agent is looked at; recorded are 256 characters of it.
_AGENT_BYTES_MAX: Final = 512
_PAUSE_BYTES: Final = 64 << 10


class ScanTooLong(Exception):
    """A text could not be looked through in time, and a rule that might block is left."""


class Subject(NamedTuple):
    """Whose call it is, and for which model."""

    user_id: int
    user_group_id: int | None
    api_key_id: int
    model_id: int
    model_group_ids: Collection[int]


class Origin(NamedTuple):
    """Where a call comes from and what for."""

    address: str
    user_agent: bytes
    operation: str


@dataclass(frozen=True, slots=True)
class Reach:
    """Whom and what a rule concerns; what is empty does not restrict."""

    users: frozenset[int] = frozenset()
    user_groups: frozenset[int] = frozenset()
    api_keys: frozenset[int] = frozenset()
    models: frozenset[int] = frozenset()
    model_groups: frozenset[int] = frozenset()

    def covers(self, subject: Subject) -> bool:
        """Return whether a call is among what is concerned."""
        return (
            (not self.users or subject.user_id in self.users)
            and (not self.user_groups or subject.user_group_id in self.user_groups)
            and (not self.api_keys or subject.api_key_id in self.api_keys)
            and (not self.models or subject.model_id in self.models)
            and (not self.model_groups or not self.model_groups.isdisjoint(subject.model_group_ids))
        )


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule that is in force."""

    id: int
    name: str
    is_blocking: bool  # else what it finds is only noted
    message: str  # for the client; "": that of the error's row
    reach: Reach
    networks: tuple[Network, ...] = ()  # empty: from anywhere
    user_agent: Matcher | None = None
    operations: frozenset[str] = frozenset()  # empty: any
    contents: tuple[Matcher, ...] = ()  # of content rules: any of these is looked for

    @property
    def words(self) -> int | None:
        """Return how many words are looked for, None where a pattern is."""
        counts = [content.words for content in self.contents]
        return sum(counts) if all(counts) else None

    def concerns(self, subject: Subject, origin: Origin) -> bool:
        """Return whether everything but the content fits."""
        return (
            self.reach.covers(subject)
            and (not self.operations or origin.operation in self.operations)
            and (not self.networks or _is_within(origin.address, self.networks))
            and (self.user_agent is None or self._is_agent(self.user_agent, origin.user_agent))
        )

    @staticmethod
    def _is_agent(wanted: Matcher, told: bytes) -> bool:
        return wanted.is_in(told[:_AGENT_BYTES_MAX])


@dataclass(frozen=True, slots=True)
class RuleBook:
    """The rules in force, each kind in its order."""

    requests: tuple[Rule, ...] = ()
    contents: tuple[Rule, ...] = ()


class Verdict(NamedTuple):
    """What rules say of a call."""

    noted: Sequence[Rule] = ()
    blocked_by: Rule | None = None


def judge_origin(rules: Iterable[Rule], subject: Subject, origin: Origin) -> Verdict:
    """Return what rules about requests say."""
    noted: list[Rule] = []
    for rule in rules:
        if rule.concerns(subject, origin):
            if rule.is_blocking:
                return Verdict(noted, rule)
            noted.append(rule)
    return Verdict(noted)


def judge_texts(
    rules: Sequence[Rule],
    texts: Iterable[str],
    *,
    until: float = float("inf"),
    clock: Callable[[], float] = time.monotonic,
    pause: Pause | None = None,
) -> Verdict:
    """Return what rules about contents say of texts that are read one after the other.

    Runs until `until` at most, by the clock; raises ScanTooLong where a rule that blocks could
    still find something. `pause` sleeps, now and then, so that other threads get on.
    """
    left = [rule for rule in rules if rule.contents]
    found: set[int] = set()
    blocked_by: Rule | None = None
    for window in windows(texts, pause):
        for position, rule in enumerate(left):
            if clock() > until:
                is_open = any(other.is_blocking and other.id not in found for other in left)
                if is_open and blocked_by is None:
                    raise ScanTooLong
                return _verdict(rules, found, blocked_by)
            where = (window.text, window.start, window.end, pause)
            if any(one.is_in(*where) for one in rule.contents):
                found.add(rule.id)
                if rule.is_blocking:
                    blocked_by = rule
                    left = left[:position]  # What comes after it does not count any more.
                    break
        left = [rule for rule in left if rule.id not in found]
        if not left:
            break
    return _verdict(rules, found, blocked_by)


class Window(NamedTuple):
    """Some of a folded text, searched from `start` to `end`; what is beside them is looked at."""

    text: bytes
    start: int
    end: int


def windows(texts: Iterable[str], pause: Pause | None = None) -> Iterator[Window]:
    """Yield texts folded, one right behind the other, in windows that overlap: whatever is not
    longer than REACH_BYTES lies whole in one of them.
    """
    parts: list[bytes] = []
    size = start = worked = 0
    for piece in fold_in_pieces(texts):
        folded = piece.encode("utf-8", "replace")
        parts.append(folded)
        size += len(folded)
        worked += len(folded)
        if pause is not None and worked >= _PAUSE_BYTES:
            worked = 0
            pause(PAUSE_SECONDS)
        if size > WINDOW_BYTES:
            window = b"".join(parts)
            yield Window(window, start, size - _EDGE_BYTES)
            tail = window[-(REACH_BYTES + 2 * _EDGE_BYTES) :]
            parts, size, start = [tail], len(tail), _EDGE_BYTES
    yield Window(b"".join(parts), start, size)


def _verdict(rules: Iterable[Rule], found: Collection[int], blocked_by: Rule | None) -> Verdict:
    noted: list[Rule] = []
    for rule in rules:
        if rule is blocked_by:
            break
        if rule.id in found:
            noted.append(rule)
    return Verdict(noted, blocked_by)


def _is_within(address: str, networks: Iterable[Network]) -> bool:
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in networks)
