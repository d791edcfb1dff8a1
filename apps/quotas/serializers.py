"""Quotas and offers over REST. Amounts are decimal strings of US dollars."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from apps.ai_models.price_serializers import PRICES_SCHEMA
from apps.core.rest import MultiplierField, StrictSerializer, USDField, example
from apps.model_groups.models import ModelGroup
from apps.quotas.allowances import TOTAL_NANOS_MAX
from apps.quotas.bulk import SUBJECTS_MAX
from apps.quotas.models import UserQuota
from apps.quotas.offers import Offer
from apps.users.models import User, UserGroup

_ID_MAX: Final = 2**63 - 1
_NAMED_MAX: Final = 20
_SHOWN: Final = {
    "id": 12,
    "model_group": 2,
    "model_group_name": "everything",
    "total_quota": "50",
    "used_quota": "12.5",
    "held_quota": "0.75",
    "remaining_quota": "36.75",
    "expires_at": "2026-12-31T23:59:59Z",
    "is_active": True,
    "created_at": "2026-11-01T09:30:00Z",
}
_GRANT: Final = {
    "model_group": 2,
    "total_quota": "50",
    "expires_at": "2027-12-31T23:59:59Z",
    "reason": "Term 2026/27",
}


def _id(**kwargs: Any) -> serializers.IntegerField:
    return serializers.IntegerField(min_value=1, max_value=_ID_MAX, **kwargs)


def _ids() -> serializers.ListField:
    return serializers.ListField(child=_id(), min_length=1, max_length=SUBJECTS_MAX, required=False)


def _reason() -> serializers.CharField:
    return serializers.CharField(
        max_length=500, required=False, default="", allow_blank=True, help_text="On record."
    )


def _refuse_repeated(ids: list[int]) -> None:
    repeated = [pk for pk, count in Counter(ids).items() if count > 1]
    if repeated:
        raise serializers.ValidationError(f"Named twice: {_named(repeated)}.")


def _named(ids: list[int]) -> str:
    return ", ".join(str(pk) for pk in ids[:_NAMED_MAX])


class _GrantInput(StrictSerializer):
    model_group = _id()
    total_quota = USDField(source="total_nanos", nanos_max=TOTAL_NANOS_MAX)
    expires_at = serializers.DateTimeField(required=False, allow_null=True, default=None)
    is_active = serializers.BooleanField(required=False, default=True)
    reason = _reason()

    def validate_model_group(self, value: int) -> ModelGroup:
        """Return the group."""
        group = ModelGroup.objects.filter(pk=value).first()
        if group is None:
            raise serializers.ValidationError(f"There is no model group {value}.")
        return group


@example({"user": 3, **_GRANT})
class QuotaInput(_GrantInput):
    """A new quota: so much for a user on a model group."""

    user = _id()

    def validate_user(self, value: int) -> User:
        """Return the user."""
        user = User.objects.filter(pk=value).first()
        if user is None:
            raise serializers.ValidationError(f"There is no user {value}.")
        return user


@example({"user_group": 1, **_GRANT})
class BulkQuotaInput(_GrantInput):
    """A quota for each of several users, or for each active user of a group.

    Of a call that comes again (`is_repeated` in the context) users and group may be gone.
    """

    users = _ids()
    user_group = _id(required=False)

    def validate_users(self, value: list[int]) -> list[int]:
        """Refuse users that are named twice or do not exist."""
        _refuse_repeated(value)
        if self.context.get("is_repeated"):
            return value
        known = set(User.objects.filter(pk__in=value).values_list("pk", flat=True))
        unknown = [pk for pk in value if pk not in known]
        if unknown:
            raise serializers.ValidationError(f"There are no such users: {_named(unknown)}.")
        return value

    def validate_user_group(self, value: int) -> UserGroup | None:
        """Return the group."""
        group = UserGroup.objects.filter(pk=value).first()
        if group is None and not self.context.get("is_repeated"):
            raise serializers.ValidationError(f"There is no user group {value}.")
        return group

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Refuse both ways of naming users at once, and neither."""
        if ("users" in attrs) == ("user_group" in attrs):
            raise serializers.ValidationError({"users": ["Name either users or a user_group."]})
        return attrs


@example({"total_quota": "75", "reason": "Needs more"})
class QuotaChangeInput(StrictSerializer):
    """What changes about a quota. It stays with its user and model group."""

    user = _id(required=False, help_text="Stays the same.")
    model_group = _id(required=False, help_text="Stays the same.")
    total_quota = USDField(source="total_nanos", nanos_max=TOTAL_NANOS_MAX, required=False)
    expires_at = serializers.DateTimeField(required=False, allow_null=True)
    is_active = serializers.BooleanField(required=False)
    reason = _reason()

    def validate_user(self, value: int) -> int:
        """Refuse to give the quota to somebody else."""
        if isinstance(self.instance, UserQuota) and self.instance.user_id != value:
            raise serializers.ValidationError("A quota stays with its user.")
        return value

    def validate_model_group(self, value: int) -> int:
        """Refuse to move the quota to another group."""
        if isinstance(self.instance, UserQuota) and self.instance.model_group_id != value:
            raise serializers.ValidationError("A quota stays with its model group.")
        return value

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Return what can change."""
        return {name: value for name, value in attrs.items() if name not in ("user", "model_group")}


@example({"user": 3, "is_active": True, **_GRANT})
class QuotaReplacementInput(QuotaChangeInput):
    """A quota with its user, model group and total; what is left out stays."""

    user = _id()
    model_group = _id()
    total_quota = USDField(source="total_nanos", nanos_max=TOTAL_NANOS_MAX)


@example({"quotas": [12, 13], "add": "10", "expires_at": "2027-12-31T23:59:59Z"})
class BulkQuotaChangeInput(StrictSerializer):
    """What changes about several quotas.

    Of a call that comes again (`is_repeated` in the context) quotas may be gone.
    """

    quotas = _ids()
    is_active = serializers.BooleanField(required=False)
    expires_at = serializers.DateTimeField(required=False, allow_null=True)
    add = USDField(
        source="add_nanos",
        nanos_max=TOTAL_NANOS_MAX,
        required=False,
        help_text="USD that each total grows by.",
    )
    reason = _reason()

    def get_fields(self) -> dict[str, Any]:
        """Return the fields; the quotas must be named."""
        fields = super().get_fields()
        fields["quotas"].required = True
        return fields

    def validate_quotas(self, value: list[int]) -> list[int]:
        """Refuse quotas that are named twice or do not exist."""
        _refuse_repeated(value)
        if self.context.get("is_repeated"):
            return value
        known = set(UserQuota.objects.filter(pk__in=value).values_list("pk", flat=True))
        unknown = [pk for pk in value if pk not in known]
        if unknown:
            raise serializers.ValidationError(f"There are no such quotas: {_named(unknown)}.")
        return value

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Refuse a change of nothing."""
        if not attrs.keys() & {"is_active", "expires_at", "add_nanos"}:
            raise serializers.ValidationError({"add": ["Name something to change."]})
        return attrs


@example(_SHOWN)
class OwnQuotaOutput(serializers.Serializer[Any]):
    """A quota of one's own: used + held + remaining = total."""

    id = serializers.IntegerField()
    model_group = serializers.IntegerField(source="model_group_id")
    model_group_name = serializers.CharField(source="model_group.name")
    total_quota = USDField(source="total_nanos")
    used_quota = USDField(source="used_nanos")
    held_quota = USDField(source="held_nanos")
    remaining_quota = USDField(source="remaining_nanos")
    expires_at = serializers.DateTimeField(allow_null=True)
    is_active = serializers.BooleanField()
    created_at = serializers.DateTimeField()


@example({**_SHOWN, "user": 3, "user_name": "ada"})
class QuotaOutput(OwnQuotaOutput):
    """A quota with its user: used + held + remaining = total."""

    user = serializers.IntegerField(source="user_id")
    user_name = serializers.CharField(source="user.username")


@example({"quotas": [{**_SHOWN, "user": 3, "user_name": "ada"}]})
class BulkQuotasOutput(serializers.Serializer[Any]):
    """The quotas that were given or changed."""

    quotas = QuotaOutput(many=True)


@example(
    {
        "name": "big",
        "display_name": "Big",
        "context_length": 128_000,
        "max_output_tokens": 16_384,
        "prices": {"input": "1.25", "output": "5"},
        "input_price_per_1k": "0.00125",
        "output_price_per_1k": "0.005",
        "multiplier": "0.5",
        "model_groups": ["everything"],
    }
)
class OfferOutput(serializers.Serializer[Any]):
    """A model that one may call. Prices are what one pays: the multiplier is in them."""

    name = serializers.CharField(source="model.name")
    display_name = serializers.CharField(source="model.display_name", allow_blank=True)
    context_length = serializers.IntegerField(source="model.context_length")
    max_output_tokens = serializers.IntegerField(source="model.max_output_tokens")
    prices = serializers.SerializerMethodField(
        help_text="The price in the form in which it is set (see the prices of models)."
    )
    input_price_per_1k = serializers.CharField(help_text="USD per thousand tokens.")
    output_price_per_1k = serializers.CharField(help_text="USD per thousand tokens.")
    multiplier = MultiplierField(source="multiplier_millionths")
    model_groups = serializers.ListField(child=serializers.CharField())

    @extend_schema_field(PRICES_SCHEMA)
    def get_prices(self, offer: Offer) -> dict[str, Any]:
        """Return the amounts after the multiplier."""
        return offer.prices
