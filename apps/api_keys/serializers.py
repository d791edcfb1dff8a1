"""API keys over REST. A key itself is shown once, by the call that makes it."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from django.utils import timezone
from rest_framework import serializers

from apps.ai_models.models import CACHE_SECONDS_MAX, AIModel
from apps.api_keys.issue import NetworkMalformed, check_networks
from apps.api_keys.models import APIKey
from apps.api_keys.operations import KEY_OPERATIONS
from apps.core.rest import StrictSerializer, USDField, example
from apps.providers.models import PayloadMode
from apps.users.models import User

_ID_MAX: Final = 2**63 - 1
_LIMIT_MAX: Final = 2**31 - 1
_MODELS_MAX: Final = 1_000
_NETWORKS_MAX: Final = 100
_LIMITS: Final = {
    "expires_at": "2027-12-31T23:59:59Z",
    "allowed_models": ["small", "big"],
    "allowed_networks": ["192.0.2.0/24"],
    "allowed_operations": ["chat", "models"],
    "cap": "25",
    "rpm": 60,
    "tpm": 100_000,
    "concurrency": 5,
    "cache_seconds": 3_600,
}
_SHOWN: Final = {
    "id": 7,
    "name": "laptop",
    "prefix": "sk-audit-3kQz",
    "last_four": "9fTw",
    "is_default": False,
    "is_active": True,
    "is_locked": False,
    **_LIMITS,
    "payload_mode": "full",
    "spent": "1.25",
    "held": "0.01",
    "last_used_at": "2026-11-21T12:00:00Z",
    "created_at": "2026-11-01T09:30:00Z",
}
_RAW: Final = {"api_key": "sk-audit-3kQzP0aVbN8mXw2LrT5yUc7D1e9fTw"}


def _limit(what: str) -> serializers.IntegerField:
    return serializers.IntegerField(
        min_value=0,
        max_value=_LIMIT_MAX,
        required=False,
        allow_null=True,
        help_text=f"{what}; null: no limit.",
    )


class _LimitsInput(StrictSerializer):
    """What a key is restricted to; what is left out stays as it is, or is unrestricted."""

    expires_at = serializers.DateTimeField(required=False, allow_null=True)
    allowed_models = serializers.ListField(
        child=serializers.CharField(max_length=200),
        max_length=_MODELS_MAX,
        required=False,
        help_text="Names of models; empty: all that the user may call.",
    )
    allowed_networks = serializers.ListField(
        child=serializers.CharField(max_length=64),
        max_length=_NETWORKS_MAX,
        required=False,
        help_text="Addresses or networks; empty: from anywhere.",
    )
    allowed_operations = serializers.ListField(
        child=serializers.ChoiceField(choices=KEY_OPERATIONS),
        max_length=len(KEY_OPERATIONS),
        required=False,
        help_text="What the key may be used for; empty: everything.",
    )
    cap = USDField(
        source="cap_nanos",
        required=False,
        allow_null=True,
        help_text="The most this key may spend, in USD, counted while it is capped; null: no cap.",
    )
    rpm = _limit("Requests a minute")
    tpm = _limit("Tokens a minute")
    concurrency = _limit("Requests at the same time")
    cache_seconds = serializers.IntegerField(
        min_value=1,
        max_value=CACHE_SECONDS_MAX,
        required=False,
        allow_null=True,
        help_text="How old an answer may be that is given again to the same request, where the "
        "model allows it; null: never.",
    )

    def validate_allowed_models(self, value: list[str]) -> list[str]:
        """Return each name once."""
        return list(dict.fromkeys(value))

    def validate_allowed_operations(self, value: list[str]) -> list[str]:
        """Return each operation once."""
        return list(dict.fromkeys(value))

    def validate_allowed_networks(self, value: list[str]) -> list[str]:
        """Refuse what is no network."""
        try:
            check_networks(value)
        except NetworkMalformed as error:
            raise serializers.ValidationError(str(error)) from error
        return list(dict.fromkeys(value))


class _NewLimitsInput(_LimitsInput):
    def validate_expires_at(self, value: datetime | None) -> datetime | None:
        """Refuse a key that would never work."""
        if value is not None and value <= timezone.now():
            raise serializers.ValidationError("A new key cannot have expired already.")
        return value


class _OperatorLimitsInput(_LimitsInput):
    payload_mode = serializers.ChoiceField(
        choices=PayloadMode.choices,
        required=False,
        help_text="How much of the bodies of its calls is kept.",
    )

    def validate_allowed_models(self, value: list[str]) -> list[str]:
        """Refuse names that no model has, but those that the key has already."""
        names = super().validate_allowed_models(value)
        known = set(self.instance.allowed_models) if isinstance(self.instance, APIKey) else set()
        known.update(AIModel.objects.filter(name__in=names).values_list("name", flat=True))
        missing = [name for name in names if name not in known]
        if missing:
            raise serializers.ValidationError(f"There is no model {missing[0]}.")
        return names


@example({"user": 3, "name": "laptop", **_LIMITS, "payload_mode": "full"})
class KeyInput(_NewLimitsInput, _OperatorLimitsInput):
    """A new key of a user."""

    user = serializers.IntegerField(min_value=1, max_value=_ID_MAX)
    name = serializers.CharField(max_length=100)

    def validate_user(self, value: int) -> User:
        """Return the user."""
        user = User.objects.filter(pk=value).first()
        if user is None:
            raise serializers.ValidationError(f"There is no user {value}.")
        return user


@example({"is_active": False})
class KeyChangeInput(_OperatorLimitsInput):
    """What changes about a key. Disabled here, its owner cannot enable it again."""

    user = serializers.IntegerField(
        min_value=1, max_value=_ID_MAX, required=False, help_text="Whose it is; stays the same."
    )
    name = serializers.CharField(max_length=100, required=False)
    is_active = serializers.BooleanField(required=False)

    def validate_user(self, value: int) -> int:
        """Refuse to give the key to somebody else."""
        if isinstance(self.instance, APIKey) and self.instance.user_id != value:
            raise serializers.ValidationError("A key stays with its user.")
        return value

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Return what can change."""
        return {name: value for name, value in attrs.items() if name != "user"}


@example({"user": 3, "name": "laptop", "is_active": True, **_LIMITS, "payload_mode": "full"})
class KeyReplacementInput(KeyChangeInput):
    """A key with its name; what is left out stays."""

    user = serializers.IntegerField(min_value=1, max_value=_ID_MAX)
    name = serializers.CharField(max_length=100)


@example({"name": "laptop", **_LIMITS})
class OwnKeyInput(_NewLimitsInput):
    """A new key of one's own."""

    name = serializers.CharField(max_length=100)


@example({"name": "old laptop", "is_active": False})
class OwnKeyChangeInput(_LimitsInput):
    """What changes about one's own key."""

    name = serializers.CharField(max_length=100, required=False)
    is_active = serializers.BooleanField(required=False)


@example({"name": "laptop", "is_active": True, **_LIMITS})
class OwnKeyReplacementInput(OwnKeyChangeInput):
    """One's own key with its name; what is left out stays."""

    name = serializers.CharField(max_length=100)


@example(_SHOWN)
class OwnKeyOutput(serializers.Serializer[Any]):
    """A key of one's own: its ends, its limits and its use."""

    id = serializers.IntegerField()
    name = serializers.CharField()
    prefix = serializers.CharField()
    last_four = serializers.CharField(allow_blank=True)
    is_default = serializers.BooleanField()
    is_active = serializers.BooleanField()
    is_locked = serializers.BooleanField(help_text="Disabled by an administrator.")
    expires_at = serializers.DateTimeField(allow_null=True)
    allowed_models = serializers.ListField(child=serializers.CharField())
    allowed_networks = serializers.ListField(child=serializers.CharField())
    allowed_operations = serializers.ListField(
        child=serializers.ChoiceField(choices=KEY_OPERATIONS)
    )
    cap = USDField(source="cap_nanos", allow_null=True)
    spent = USDField(
        source="spent_nanos", allow_null=True, help_text="Counted while there is a cap."
    )
    held = USDField(source="held_nanos", allow_null=True, help_text="Counted while there is a cap.")
    rpm = serializers.IntegerField(allow_null=True)
    tpm = serializers.IntegerField(allow_null=True)
    concurrency = serializers.IntegerField(allow_null=True)
    cache_seconds = serializers.IntegerField(allow_null=True)
    payload_mode = serializers.ChoiceField(choices=PayloadMode.choices)
    last_used_at = serializers.DateTimeField(allow_null=True)
    created_at = serializers.DateTimeField()


@example({**_SHOWN, **_RAW})
class NewOwnKeyOutput(OwnKeyOutput):
    """A new key of one's own with the key itself, which nothing shows again."""

    api_key = serializers.CharField()


@example({**_SHOWN, "user": 3, "user_name": "ada"})
class KeyOutput(OwnKeyOutput):
    """A key with its user: its ends, its limits and its use."""

    user = serializers.IntegerField(source="user_id")
    user_name = serializers.CharField(source="user.username")


@example({**_SHOWN, "user": 3, "user_name": "ada", **_RAW})
class NewKeyOutput(KeyOutput):
    """A new key with the key itself, which nothing shows again."""

    api_key = serializers.CharField()


class RefreshKeyInput(StrictSerializer):
    """Nothing."""


@example(_RAW)
class RefreshedKeyOutput(serializers.Serializer[Any]):
    """The new default key; it is shown this once."""

    api_key = serializers.CharField()
