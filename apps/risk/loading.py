"""Rows of rules as the values that gateways go by. Blocks: it runs where those are loaded."""

from __future__ import annotations

import logging
from ipaddress import ip_network
from typing import Any

from apps.risk.matchers import Matcher, PatternRefused, match_pattern, match_words
from apps.risk.models import RiskRule, RuleAction, RuleKind
from apps.risk.rules import Reach, Rule, RuleBook

logger = logging.getLogger(__name__)


def load_rules() -> RuleBook | None:
    """Return the rules in force, None where there are none.

    One that cannot be read is left out, loudly: it must not keep the others from being in force.
    """
    requests: list[Rule] = []
    contents: list[Rule] = []
    for row in RiskRule.objects.filter(is_active=True).order_by("priority", "id"):
        try:
            rule = read_rule(row)
        except (PatternRefused, TypeError, ValueError):
            # Not what is wrong with it: that would show what it looks for.
            logger.error("risk rule %d is left out: it cannot be read", row.pk)
            continue
        (contents if rule.contents else requests).append(rule)
    if not requests and not contents:
        return None
    return RuleBook(tuple(requests), tuple(contents))


def read_rule(row: RiskRule) -> Rule:
    """Return what a row comes to. Raises PatternRefused, TypeError and ValueError."""
    return Rule(
        id=row.pk,
        name=row.name,
        is_blocking=row.action == RuleAction.BLOCK,
        message=row.message,
        reach=Reach(
            users=_ids(row.users),
            user_groups=_ids(row.user_groups),
            api_keys=_ids(row.api_keys),
            models=_ids(row.models),
            model_groups=_ids(row.model_groups),
        ),
        networks=tuple(ip_network(text, strict=False) for text in _texts(row.networks)),
        user_agent=match_pattern(row.user_agent) if row.user_agent else None,
        operations=frozenset(_texts(row.operations)),
        contents=_read_contents(row) if row.kind == RuleKind.CONTENT else (),
    )


def _read_contents(row: RiskRule) -> tuple[Matcher, ...]:
    found: list[Matcher] = []
    if words := _texts(row.words):
        found.append(match_words(words, are_whole=row.are_whole_words))
    if row.pattern:
        found.append(match_pattern(row.pattern))
    if not found:
        raise ValueError("It looks for nothing.")
    return tuple(found)


def _ids(value: Any) -> frozenset[int]:
    if not isinstance(value, list) or not all(type(item) is int for item in value):
        raise TypeError("This is no list of ids.")
    return frozenset(value)


def _texts(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise TypeError("This is no list of texts.")
    return value
