"""What clients may read of themselves: the models they can call, and what they have used.

Money and counts come from the database, in a thread of this module's own, so that reading them
never waits for or delays the ledger.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from django.db import close_old_connections

from apps.billing.accounts import find_standing
from apps.billing.budgets import BudgetUse, find_uses
from apps.core.money import format_usd
from apps.proxy.admission import get_model
from apps.proxy.dialects.gemini_paths import model_document
from apps.proxy.dialects.parsed_request import DialectName
from apps.proxy.snapshot import Caller, Model, Snapshot, find_access
from apps.proxy.used import UsedTotals
from apps.quotas.allowances import remaining
from apps.quotas.models import UserQuota

# OpenAI's clients want a text. Who really answers is nothing that callers are told.
_OWNER: Final = "gateway"


def list_models(
    snapshot: Snapshot, caller: Caller, now: datetime, dialect: DialectName = "openai"
) -> dict[str, Any]:
    """Return the models that the caller may call, in their order."""
    models = [
        model
        for model in snapshot.catalogue.models.values()
        if find_access(caller, model, now) is not None
    ]
    models.sort(key=lambda model: (model.position, model.name))
    return _LISTS[dialect]([_DESCRIPTIONS[dialect](model) for model in models])


def describe_model(
    snapshot: Snapshot, caller: Caller, name: str, now: datetime, dialect: DialectName = "openai"
) -> dict[str, Any]:
    """Return one model. Raises E07."""
    model, _ = get_model(snapshot, caller, name, now)
    return _DESCRIPTIONS[dialect](model)


def _openai_model(model: Model) -> dict[str, Any]:
    return {
        "id": model.name,
        "object": "model",
        "created": int(model.created_at.timestamp()),
        "owned_by": _OWNER,
        "context_length": model.context_length,
        "max_output_tokens": model.max_output_tokens,
    }


def _openai_list(models: list[dict[str, Any]]) -> dict[str, Any]:
    return {"object": "list", "data": models}


def _anthropic_model(model: Model) -> dict[str, Any]:
    """Source: https://platform.claude.com/docs/en/api/models-list"""
    return {
        "type": "model",
        "id": model.name,
        "display_name": model.name,
        "created_at": model.created_at.isoformat().replace("+00:00", "Z"),
        "max_input_tokens": model.context_length,
        "max_tokens": model.max_output_tokens,
    }


def _anthropic_list(models: list[dict[str, Any]]) -> dict[str, Any]:
    """Return all of them: there is no other page, however many a client asks for."""
    first, last = (models[0]["id"], models[-1]["id"]) if models else (None, None)
    return {"data": models, "has_more": False, "first_id": first, "last_id": last}


def _gemini_model(model: Model) -> dict[str, Any]:
    return model_document(
        model.name,
        context_length=model.context_length,
        max_output_tokens=model.max_output_tokens,
        upstream_names=[route.upstream_name for route in model.routes],
    )


def _gemini_list(models: list[dict[str, Any]]) -> dict[str, Any]:
    """Return all of them on one page."""
    return {"models": models}


_DESCRIPTIONS: Final[dict[DialectName, Callable[[Model], dict[str, Any]]]] = {
    "anthropic": _anthropic_model,
    "gemini": _gemini_model,
    "openai": _openai_model,
    "openai-responses": _openai_model,
}
_LISTS: Final[dict[DialectName, Callable[[list[dict[str, Any]]], dict[str, Any]]]] = {
    "anthropic": _anthropic_list,
    "gemini": _gemini_list,
    "openai": _openai_list,
    "openai-responses": _openai_list,
}


def read_usage(used: UsedTotals, caller: Caller) -> dict[str, Any]:
    """Return the caller's balance, use, budgets and quotas; money as decimal strings of USD.

    Blocks.
    """
    try:
        close_old_connections()
        standing = find_standing(caller.member.customer_id)
        totals = used.read(caller.member.id)
        budgets = find_uses(caller.member.budget, now=datetime.now(UTC))
        quotas = UserQuota.objects.filter(user_id=caller.member.id, is_active=True).select_related(
            "account", "model_group"
        )
        return {
            "balance": format_usd(standing.balance_nanos),
            "held": format_usd(standing.held_nanos),
            "available": format_usd(standing.available_nanos),
            "used": format_usd(totals.charge_nanos),
            "requests": totals.requests,
            "input_tokens": totals.input_tokens,
            "output_tokens": totals.output_tokens,
            "budgets": {"day": _budget(budgets.day), "month": _budget(budgets.month)},
            "quotas": [_quota(quota) for quota in quotas.order_by("pk")[:100]],
        }
    finally:
        close_old_connections()


def _budget(use: BudgetUse | None) -> dict[str, Any] | None:
    if use is None:
        return None
    return {
        "budget": format_usd(use.budget_nanos),
        "spent": format_usd(use.spent_nanos),
        "held": format_usd(use.held_nanos),
        "left": format_usd(use.left_nanos),
        "begins_at": use.begins_at.isoformat(),
        "resets_at": use.resets_at.isoformat(),
    }


def _quota(quota: UserQuota) -> dict[str, Any]:
    left = remaining(quota)
    return {
        "model_group": quota.model_group.name,
        "total": format_usd(quota.total_nanos),
        "used": format_usd(left.used_nanos),
        "held": format_usd(left.held_nanos),
        "remaining": format_usd(left.remaining_nanos),
        "expires_at": quota.expires_at.isoformat() if quota.expires_at else None,
    }
