"""Statistics over REST. Amounts are decimal strings of US dollars; viewers see none."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from rest_framework import serializers

from apps.analytics.usage import ASPECTS
from apps.core.rest import MaskedSerializer, StrictSerializer, USDField, example
from apps.users.models import Role

_MOMENT_MIN: Final = datetime(2000, 1, 1, tzinfo=UTC)
_MOMENT_MAX: Final = datetime(2200, 1, 1, tzinfo=UTC)
_MONEY: Final = frozenset({"charge", "late_charges", "cost", "margin"})
_LATE: Final = "Charged after a call's record was written."

_OWN_EXAMPLE: Final = {
    "requests": 120,
    "successes": 118,
    "success_rate": "0.9833",
    "input_tokens": 96_000,
    "output_tokens": 41_000,
    "charge": "1.284",
    "late_charges": "0",
}
_SUMS_EXAMPLE: Final = {
    **_OWN_EXAMPLE,
    "cost": "0.9",
    "margin": "0.384",
    "requests_without_cost": 2,
}
_EXAMPLE: Final = {**_SUMS_EXAMPLE, "active_users": 7}
_RANGE_EXAMPLE: Final = {
    "started_after": "2026-11-01T00:00:00Z",
    "started_before": "2026-12-01T00:00:00Z",
}
_GROUP_EXAMPLE: Final = {"id": 3, "name": "small", **_SUMS_EXAMPLE}


def _moment(bound: str) -> serializers.DateTimeField:
    return serializers.DateTimeField(required=False, help_text=bound)


class _BoundedMoments(StrictSerializer):
    """Refuses moments that no record can have."""

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Refuse what is out of all proportion."""
        for name, value in attrs.items():
            if isinstance(value, datetime) and not _MOMENT_MIN <= value <= _MOMENT_MAX:
                raise serializers.ValidationError({name: ["Enter a moment from 2000 to 2200."]})
        return attrs


class RangeInput(_BoundedMoments):
    """Which calls: those that began in a range of at most 400 days."""

    started_after = _moment("Calls that began at this moment or later; default: 30 days earlier.")
    started_before = _moment("Calls that began before this moment; default: now.")


class OverviewInput(RangeInput):
    """Which calls, and what else to sum them by."""

    by = serializers.ChoiceField(
        choices=ASPECTS,
        required=False,
        error_messages={"invalid_choice": f"Choose from {', '.join(ASPECTS)}."},
        help_text="Also sum by UTC day, or by the 100 models, providers or users with most calls.",
    )


class SettledRangeInput(_BoundedMoments):
    """Which money: what was settled in a range of at most 400 days."""

    settled_after = _moment("Settled at this moment or later; default: 30 days earlier.")
    settled_before = _moment("Settled before this moment; default: now.")


class OwnSumsOutput(serializers.Serializer[Any]):
    """What one's own calls come to."""

    requests = serializers.IntegerField()
    successes = serializers.IntegerField(help_text="Calls that completed.")
    success_rate = serializers.CharField(
        allow_null=True, help_text="Successes ÷ requests with four decimals; null without calls."
    )
    input_tokens = serializers.IntegerField()
    output_tokens = serializers.IntegerField()
    charge = USDField(source="charge_nanos")
    late_charges = USDField(source="late_charges_nanos", help_text=_LATE)


class SumsOutput(MaskedSerializer, OwnSumsOutput):
    """What some calls come to."""

    hidden_from = {Role.VIEWER: _MONEY}

    charge = USDField(source="charge_nanos", allow_null=True)
    late_charges = USDField(source="late_charges_nanos", allow_null=True, help_text=_LATE)
    cost = USDField(source="cost_nanos", allow_null=True)
    margin = USDField(
        source="margin_nanos",
        is_signed=True,
        allow_null=True,
        help_text="charge + late_charges − cost; calls whose cost is not known count as having "
        "cost nothing.",
    )
    requests_without_cost = serializers.IntegerField(help_text="Calls whose cost is not known.")


class TotalsOutput(SumsOutput):
    """What all calls come to."""

    active_users = serializers.IntegerField(help_text="Users with at least one call.")


def _flat(sums: serializers.Serializer[Any], attribute: str) -> dict[str, Any]:
    """Return the fields of `sums` for something that has them in an attribute."""
    fields = dict(sums.get_fields())
    for name, field in fields.items():
        field.source = f"{attribute}.{field.source or name}"
    return fields


class _WithOwnSums(serializers.Serializer[Any]):
    """Shows `sums` beside fields of its own."""

    def get_fields(self) -> dict[str, Any]:
        """Return the own fields, then the sums."""
        return {**super().get_fields(), **_flat(OwnSumsOutput(), "sums")}


class _WithSums(MaskedSerializer):
    """Shows `sums` beside fields of its own."""

    hidden_from = SumsOutput.hidden_from

    def get_fields(self) -> dict[str, Any]:
        """Return the own fields, then the sums."""
        return {**super().get_fields(), **_flat(SumsOutput(), "sums")}


class _WithTotals(MaskedSerializer):
    """Shows `totals` beside fields of its own."""

    hidden_from = TotalsOutput.hidden_from

    def get_fields(self) -> dict[str, Any]:
        """Return the own fields, then the totals."""
        return {**super().get_fields(), **_flat(TotalsOutput(), "totals")}


class OwnDaySumsOutput(_WithOwnSums):
    """One's own calls of one day in UTC."""

    date = serializers.DateField()


class OwnModelSumsOutput(_WithOwnSums):
    """One's own calls of one model."""

    id = serializers.IntegerField()
    name = serializers.CharField()


class DaySumsOutput(_WithSums):
    """The calls of one day in UTC. Days without calls are left out."""

    date = serializers.DateField()


class ModelSumsOutput(_WithSums):
    """The calls of one model."""

    id = serializers.IntegerField()
    name = serializers.CharField()


class ProviderSumsOutput(_WithSums):
    """The calls that one provider answered, or with null those that none did."""

    id = serializers.IntegerField(allow_null=True)
    name = serializers.CharField(allow_blank=True)


class UserSumsOutput(_WithSums):
    """The calls of one user."""

    hidden_from = {Role.VIEWER: _MONEY | {"name"}}

    id = serializers.IntegerField()
    name = serializers.CharField(allow_null=True)


@example(
    {
        **_RANGE_EXAMPLE,
        **_OWN_EXAMPLE,
        "today": _OWN_EXAMPLE,
        "days": [{"date": "2026-11-21", **_OWN_EXAMPLE}],
        "models": [{"id": 3, "name": "small", **_OWN_EXAMPLE}],
    }
)
class OwnUsageOutput(serializers.Serializer[Any]):
    """What one's own calls come to in a range, today (UTC), by day and by model."""

    started_after = serializers.DateTimeField(source="range.start")
    started_before = serializers.DateTimeField(source="range.end")
    today = OwnSumsOutput()
    days = OwnDaySumsOutput(many=True)
    models = OwnModelSumsOutput(many=True)

    def get_fields(self) -> dict[str, Any]:
        """Return the own fields, then the sums."""
        return {**super().get_fields(), **_flat(OwnSumsOutput(), "totals")}


@example(
    {
        **_RANGE_EXAMPLE,
        **_EXAMPLE,
        "today": _EXAMPLE,
        "days": [{"date": "2026-11-21", **_SUMS_EXAMPLE}],
        "models": [_GROUP_EXAMPLE],
    }
)
class UsageOutput(_WithTotals):
    """What calls come to in a range, today (UTC), by day and by model."""

    started_after = serializers.DateTimeField(source="range.start")
    started_before = serializers.DateTimeField(source="range.end")
    today = TotalsOutput()
    days = DaySumsOutput(many=True)
    models = ModelSumsOutput(many=True)


@example(
    {
        **_RANGE_EXAMPLE,
        **_EXAMPLE,
        "today": _EXAMPLE,
        "days": None,
        "models": [_GROUP_EXAMPLE],
        "providers": None,
        "users": None,
    }
)
class OverviewOutput(_WithTotals):
    """What all calls come to; the list that `by` asks for, and null for the others."""

    started_after = serializers.DateTimeField(source="range.start")
    started_before = serializers.DateTimeField(source="range.end")
    today = TotalsOutput()
    days = DaySumsOutput(many=True, allow_null=True)
    models = ModelSumsOutput(many=True, allow_null=True)
    providers = ProviderSumsOutput(many=True, allow_null=True)
    users = UserSumsOutput(many=True, allow_null=True)


_MONEY_EXAMPLE: Final = {
    "requests": 120,
    "charge": "1.284",
    "cost": "0.9",
    "requests_without_cost": 2,
    "late_charges": "0",
    "margin": "0.384",
    "top_ups": "50",
    "adjustments": "-2.5",
    "refunds": "0",
    "quotas": "20",
}


class MoneyOutput(serializers.Serializer[Any]):
    """Money that was settled or moved."""

    requests = serializers.IntegerField()
    charge = USDField(source="charge_nanos")
    cost = USDField(source="cost_nanos")
    requests_without_cost = serializers.IntegerField(
        help_text="Calls whose cost was not known when they were settled."
    )
    late_charges = USDField(source="late_charges_nanos", help_text=_LATE)
    margin = USDField(
        source="margin_nanos", is_signed=True, help_text="charge + late_charges − cost."
    )
    top_ups = USDField(source="top_ups_nanos", is_signed=True)
    adjustments = USDField(source="adjustments_nanos", is_signed=True)
    refunds = USDField(source="refunds_nanos", is_signed=True)
    quotas = USDField(source="quotas_nanos", is_signed=True)


class DayMoneyOutput(serializers.Serializer[Any]):
    """The money of one day in UTC. Days without any are left out."""

    date = serializers.DateField()

    def get_fields(self) -> dict[str, Any]:
        """Return the date, then the money."""
        return {**super().get_fields(), **_flat(MoneyOutput(), "money")}


class UserMoneyOutput(serializers.Serializer[Any]):
    """What one user's calls earned and cost."""

    id = serializers.IntegerField()
    name = serializers.CharField()
    requests = serializers.IntegerField(source="sums.requests")
    charge = USDField(source="sums.charge_nanos")
    late_charges = USDField(source="sums.late_charges_nanos", help_text=_LATE)
    cost = USDField(source="sums.cost_nanos")
    margin = USDField(source="sums.margin_nanos", is_signed=True)


class BalancesOutput(serializers.Serializer[Any]):
    """What all customers have, owe and hold now."""

    wallets = USDField(source="wallets_nanos", is_signed=True)
    quotas = USDField(source="quotas_nanos", is_signed=True)
    owed = USDField(source="owed_nanos", is_signed=True)
    held = USDField(source="held_nanos", is_signed=True)


@example(
    {
        "settled_after": "2026-11-01T00:00:00Z",
        "settled_before": "2026-12-01T00:00:00Z",
        **_MONEY_EXAMPLE,
        "days": [{"date": "2026-11-21", **_MONEY_EXAMPLE}],
        "users": [
            {
                "id": 7,
                "name": "ada",
                "requests": 120,
                "charge": "1.284",
                "late_charges": "0",
                "cost": "0.9",
                "margin": "0.384",
            }
        ],
        "balances": {"wallets": "812.5", "quotas": "60", "owed": "0.02", "held": "1.5"},
    }
)
class BillingOutput(serializers.Serializer[Any]):
    """The money of a range, by day, of the 100 users with the largest charges, and all balances."""

    settled_after = serializers.DateTimeField(source="range.start")
    settled_before = serializers.DateTimeField(source="range.end")
    days = DayMoneyOutput(many=True)
    users = UserMoneyOutput(many=True)
    balances = BalancesOutput()

    def get_fields(self) -> dict[str, Any]:
        """Return the own fields, then the money."""
        return {**super().get_fields(), **_flat(MoneyOutput(), "money")}
