"""Making, changing and removing rules, each with its admin event; and trying them on a text."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_network
from typing import Any, Final

from django.contrib.auth.base_user import AbstractBaseUser
from django.db import IntegrityError, transaction
from django.db.models import Model
from django.http import HttpRequest

from apps.ai_models.models import AIModel
from apps.api_keys.models import APIKey
from apps.audit.events import record_event, set_values, values_of
from apps.core.domain_errors import DomainError, Gone
from apps.core.locks import lock_row
from apps.model_groups.models import ModelGroup
from apps.risk.loading import read_rule
from apps.risk.matchers import PatternRefused, match_pattern, match_words
from apps.risk.models import OPERATIONS, RiskRule, RuleKind
from apps.risk.rules import judge_texts
from apps.users.models import User, UserGroup

# Every gateway has all of them in memory, and looks at them for every call.
RULES_MAX: Final = 100
IDS_MAX: Final = 100
NETWORKS_MAX: Final = 100
# An address may name the interface behind it, in a text of any length.
NETWORK_LENGTH_MAX: Final = 64
TRIED_CHARACTERS_MAX: Final = 100_000
_RESTRICTING: Final = (
    "users", "user_groups", "api_keys", "models", "model_groups", "networks", "user_agent",
    "operations",
)  # fmt: skip


# What lists of ids name, by the field.
_NAMED: Final[dict[str, tuple[type[Model], str]]] = {
    "users": (User, "user"),
    "user_groups": (UserGroup, "user group"),
    "api_keys": (APIKey, "API key"),
    "models": (AIModel, "model"),
    "model_groups": (ModelGroup, "model group"),
}


class RuleExists(DomainError):
    """There is a rule of this name."""

    status_code = 409
    code = "risk_rule_exists"
    message = "A risk rule with this name already exists."


class TooManyRules(DomainError):
    """All rules are looked at for every call: their number is bounded."""

    status_code = 409
    code = "too_many_risk_rules"
    message = f"There are {RULES_MAX} risk rules already. Delete one first."


class RuleGone(Gone):
    """The rule was deleted meanwhile."""


class RuleInvalid(ValueError):
    """What a rule says makes no sense. `field` is at fault."""

    status_code = 400
    code = "invalid"
    message = "This rule could not be in force."

    def __init__(self, field: str, message: str) -> None:
        self.field = field
        super().__init__(message)


def check_rule(values: Mapping[str, Any]) -> None:
    """Refuse values with which a rule could not be in force, or would find everything.

    Takes all fields of a rule; raises RuleInvalid.
    """
    _check_networks(values["networks"])
    if len(values["operations"]) > len(OPERATIONS):
        raise RuleInvalid("operations", f"Enter at most {len(OPERATIONS)} endpoints.")
    for operation in values["operations"]:
        if operation not in OPERATIONS:
            raise RuleInvalid("operations", f"Choose from {', '.join(OPERATIONS)}.")
    if values["user_agent"]:
        _check_pattern("user_agent", values["user_agent"])
    if values["kind"] == RuleKind.CONTENT:
        _check_content(values)
        return
    if values["words"] or values["pattern"]:
        raise RuleInvalid("kind", "Words and patterns are for rules about contents.")
    if not any(values[name] for name in _RESTRICTING):
        raise RuleInvalid("kind", "This rule names nothing: it would find every call.")


def check_ids(values: Mapping[str, Any]) -> None:
    """Refuse ids of what is not there, in the fields that are given. Raises RuleInvalid.

    For what somebody writes now: what is deleted later stays in its rules.
    """
    for field, (kind, noun) in _NAMED.items():
        ids = values.get(field)
        if not ids:
            continue
        found = set(kind._default_manager.filter(pk__in=ids).values_list("pk", flat=True))
        missing = [pk for pk in ids if pk not in found]
        if missing:
            raise RuleInvalid(field, f"There is no {noun} {missing[0]}.")


def _check_networks(networks: list[str]) -> None:
    if len(networks) > NETWORKS_MAX:
        raise RuleInvalid("networks", f"Enter at most {NETWORKS_MAX} networks.")
    for text in networks:
        if len(text) > NETWORK_LENGTH_MAX:
            raise RuleInvalid("networks", f"At most {NETWORK_LENGTH_MAX} characters a network.")
        try:
            ip_network(text, strict=False)
        except ValueError:
            raise RuleInvalid(
                "networks",
                "Enter addresses such as 192.0.2.1 or networks such as 192.0.2.0/24.",
            ) from None


def _check_content(values: Mapping[str, Any]) -> None:
    if not values["words"] and not values["pattern"]:
        raise RuleInvalid("words", "A rule about contents looks for words or a pattern.")
    if values["words"]:
        try:
            match_words(values["words"], are_whole=values["are_whole_words"])
        except PatternRefused as error:
            raise RuleInvalid("words", str(error)) from error
    if values["pattern"]:
        _check_pattern("pattern", values["pattern"])


def _check_pattern(field: str, pattern: str) -> None:
    try:
        match_pattern(pattern)
    except PatternRefused as error:
        raise RuleInvalid(field, str(error)) from error


def create_rule(
    *,
    values: Mapping[str, Any],
    actor: AbstractBaseUser | None = None,
    request: HttpRequest | None = None,
) -> RiskRule:
    """Make a rule. Raises RuleInvalid, RuleExists and TooManyRules."""
    rule = RiskRule(**values)
    check_rule(values_of(rule))
    with transaction.atomic():
        if RiskRule.objects.count() >= RULES_MAX:
            raise TooManyRules
        _save(rule)
        record_event(
            actor=actor,
            action="risk_rule.created",
            subject=rule,
            after=values_of(rule),
            request=request,
        )
    return rule


def change_rule(
    *,
    rule: RiskRule,
    values: Mapping[str, Any],
    actor: AbstractBaseUser | None = None,
    request: HttpRequest | None = None,
) -> RiskRule:
    """Set the given fields and return the rule as it is now.

    Raises RuleInvalid, RuleExists and RuleGone.
    """
    with transaction.atomic():
        locked = _lock(rule)
        old, new = set_values(locked, values)
        if new:
            check_rule(values_of(locked))
            _save(locked, fields=[*new, "updated_at"])
            record_event(
                actor=actor,
                action="risk_rule.changed",
                subject=locked,
                before=old,
                after=new,
                request=request,
            )
    return locked


def remove_rule(
    *,
    rule: RiskRule,
    actor: AbstractBaseUser | None = None,
    request: HttpRequest | None = None,
) -> None:
    """Delete a rule; what it found stays. Raises RuleGone."""
    with transaction.atomic():
        locked = _lock(rule)
        record_event(
            actor=actor,
            action="risk_rule.deleted",
            subject=locked,
            before=values_of(locked),
            request=request,
        )
        locked.delete()


def try_rules(text: str) -> list[RiskRule]:
    """Return the rules about contents that find something in a text, in their order.

    Whether they are active, and whom they concern, does not matter here. One that cannot be read
    finds nothing.
    """
    found: list[RiskRule] = []
    for row in RiskRule.objects.filter(kind=RuleKind.CONTENT).order_by("priority", "id"):
        try:
            rule = read_rule(row)
        except (PatternRefused, TypeError, ValueError):
            continue
        verdict = judge_texts([rule], [text])
        if verdict.noted or verdict.blocked_by:
            found.append(row)
    return found


def _lock(rule: RiskRule) -> RiskRule:
    return lock_row(RiskRule.objects, rule.pk, gone=RuleGone)


def _save(rule: RiskRule, *, fields: list[str] | None = None) -> None:
    try:
        with transaction.atomic():
            rule.save(update_fields=fields)
    except IntegrityError as error:
        if RiskRule.objects.filter(name=rule.name).exclude(pk=rule.pk).exists():
            raise RuleExists from error
        raise
