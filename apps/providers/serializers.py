"""Providers and their keys over REST. Secrets go in and never come out.

Over 400 lines because each field says what it means, for the schema.
"""

from __future__ import annotations

import math
from typing import Any, Final

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.validators import UniqueValidator

from apps.core.bounds import INTEGER_MAX, NUMBER_MAX
from apps.core.names import NameRefused, check_name
from apps.core.rest import MaskedSerializer, StrictSerializer, USDField, example
from apps.providers.credentials import SecretMalformed, check_secret
from apps.providers.headers import HeadersRefused, check_headers
from apps.providers.identities import SECRET_LENGTH_MAX
from apps.providers.models import (
    CHECK_SECONDS_MAX,
    DRAIN_SECONDS_MAX,
    FAILURES_MAX,
    SECONDS_MAX,
    SECONDS_MIN,
    Dialect,
    DisabledReason,
    KeyHeader,
    KeyStrategy,
    LeavingPolicy,
    PayloadMode,
    Provider,
    ProviderKey,
)
from apps.providers.presets import UnknownPreset, get_preset

CAP_NANOS_MAX: Final = 2**63 - 1
_HIDDEN: Final = frozenset({"base_url", "keys"})
_KEY_EXAMPLE: Final = {
    "id": 7,
    "name": "team account",
    "last_four": "9f3c",
    "weight": 1,
    "rpm": 500,
    "tpm": None,
    "concurrency": None,
    "daily_cost": None,
    "is_active": True,
    "left_behind_at": None,
    "disabled_at": None,
    "disabled_reason": "",
    "next_check_at": None,
    "created_at": "2026-11-02T08:15:30.123456Z",
}
_PROVIDER_EXAMPLE: Final = {
    "name": "Antinomy AI",
    "base_url": "https://antinomy.ai/api/v1",
    "dialect": "openai",
    "key_header": "",
    "priority": 0,
    "weight": 1,
    "payload_mode": "full",
    "connect_timeout_seconds": 5.0,
    "first_byte_timeout_seconds": 300.0,
    "idle_timeout_seconds": 60.0,
    "total_timeout_seconds": 1800.0,
    "cap": None,
    "key_strategy": "random",
    "failures_max": 5,
    "check_seconds": 60,
    "rpm": None,
    "tpm": 2_000_000,
    "concurrency": 200,
    "daily_cost": "250",
    "leaving_policy": "cancel",
    "drain_seconds": 30.0,
    "headers": {"x-team": "research"},
    "is_active": True,
}


class NameField(serializers.CharField):
    """A name that fits a line of a log."""

    def to_internal_value(self, data: Any) -> str:
        """Return the name."""
        try:
            return check_name(super().to_internal_value(data))
        except NameRefused as error:
            raise serializers.ValidationError(str(error), code="unprintable") from error


class SecondsField(serializers.FloatField):
    """A bounded number of seconds; NaN, which passes any bound, is refused."""

    def __init__(self, *, seconds_max: float = SECONDS_MAX, **kwargs: Any) -> None:
        super().__init__(min_value=SECONDS_MIN, max_value=seconds_max, **kwargs)

    def to_internal_value(self, data: Any) -> float:
        """Return the seconds."""
        seconds = super().to_internal_value(data)
        if isinstance(data, bool) or not math.isfinite(seconds):
            self.fail("invalid")
        return seconds


class SecretField(serializers.CharField):
    """A provider's key: goes in, never comes out."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            max_length=SECRET_LENGTH_MAX,
            write_only=True,
            trim_whitespace=False,
            help_text="One word, or by the provider's key_header the JSON of a Google service "
            "account's key, or of an AWS key: access_key_id, secret_access_key, session_token "
            "(if there is one), region.",
            **kwargs,
        )

    def to_internal_value(self, data: Any) -> str:
        """Return the key; what cannot be a header value is refused."""
        secret = super().to_internal_value(data)
        if secret.lstrip().startswith("{"):
            return secret  # JSON: whether the provider wants it is for who knows the provider.
        try:
            check_secret(secret)
        except SecretMalformed as error:
            raise serializers.ValidationError(str(error), code=error.code) from error
        return secret


def refused_secret(error: SecretMalformed) -> serializers.ValidationError:
    """Return what is answered to a secret that is none of the kind its provider wants."""
    return serializers.ValidationError({"api_key": [str(error)]}, code=error.code)


@extend_schema_field(
    {
        "type": "object",
        "additionalProperties": {"type": "string"},
        "example": {"x-team": "research"},
    }
)
class HeadersField(serializers.Field[dict[str, str], Any, dict[str, str], Any]):
    """Headers by lower-case name: no secrets, and nothing that HTTP itself acts on."""

    def to_internal_value(self, data: Any) -> dict[str, str]:
        """Return the headers."""
        try:
            return check_headers(data)
        except HeadersRefused as error:
            raise serializers.ValidationError(str(error), code="invalid") from error

    def to_representation(self, value: dict[str, str]) -> dict[str, str]:
        """Return the headers."""
        return value


def _limit(text: str) -> serializers.IntegerField:
    return serializers.IntegerField(
        min_value=0,
        max_value=INTEGER_MAX,
        allow_null=True,
        required=False,
        help_text=f"{text}; null: no limit.",
    )


class _Limits(StrictSerializer):
    """What may go through a provider, or through one of its keys."""

    rpm = _limit("Requests a minute")
    tpm = _limit("Tokens a minute")
    concurrency = _limit("Requests at the same time")
    daily_cost = USDField(
        source="daily_cost_nanos",
        nanos_max=CAP_NANOS_MAX,
        required=False,
        allow_null=True,
        help_text="What may be billed for the calls of one day (UTC); null: no limit.",
    )


class _ProviderSettings(_Limits):
    """What can be set, and left out, in every call that writes a provider."""

    dialect = serializers.ChoiceField(choices=Dialect.choices, required=False)
    key_header = serializers.ChoiceField(
        choices=KeyHeader.choices,
        required=False,
        allow_blank=True,
        help_text="Where it wants its key, if elsewhere than its dialect says, or what its "
        "requests are signed with. Another way of signing needs `api_key`.",
    )
    priority = serializers.IntegerField(
        min_value=-NUMBER_MAX,
        max_value=NUMBER_MAX,
        required=False,
        help_text="Given to new routes; lower goes first.",
    )
    weight = serializers.IntegerField(
        min_value=0, max_value=NUMBER_MAX, required=False, help_text="Given to new routes."
    )
    payload_mode = serializers.ChoiceField(
        choices=PayloadMode.choices,
        required=False,
        help_text="How much of the bodies of its calls is kept.",
    )
    connect_timeout_seconds = SecondsField(required=False)
    first_byte_timeout_seconds = SecondsField(required=False)
    idle_timeout_seconds = SecondsField(required=False)
    total_timeout_seconds = SecondsField(required=False)
    cap = USDField(
        source="cap_nanos",
        nanos_max=CAP_NANOS_MAX,
        required=False,
        allow_null=True,
        help_text="The most that its calls may be charged, counted while it is capped; "
        "null: no cap.",
    )
    key_strategy = serializers.ChoiceField(
        choices=KeyStrategy.choices,
        required=False,
        help_text="Which of its keys takes a call; keys of weight 0 only where there is no other.",
    )
    failures_max = serializers.IntegerField(
        min_value=1,
        max_value=FAILURES_MAX,
        required=False,
        help_text="After so many failures in a row a route rests.",
    )
    check_seconds = serializers.IntegerField(
        min_value=0,
        max_value=CHECK_SECONDS_MAX,
        required=False,
        help_text="Between two health checks of what is out of order; 0: never.",
    )
    leaving_policy = serializers.ChoiceField(
        choices=LeavingPolicy.choices,
        required=False,
        help_text="What happens to an answer when its client leaves.",
    )
    drain_seconds = SecondsField(
        required=False,
        seconds_max=DRAIN_SECONDS_MAX,
        help_text="How long an answer is read on for its usage, where it is.",
    )
    headers = HeadersField(required=False, help_text="Sent with every request to the provider.")
    is_active = serializers.BooleanField(required=False)


def _name_field(*, is_required: bool) -> NameField:
    return NameField(
        max_length=100,
        required=is_required,
        validators=[UniqueValidator(queryset=Provider.objects.all())],
    )


def _preset_values(data: Any) -> dict[str, Any]:
    """Return what the preset gives; nothing for one that the field will refuse."""
    slug = data.get("preset") if isinstance(data, dict) else None
    try:
        preset = get_preset(slug) if isinstance(slug, str) else None
    except UnknownPreset:
        preset = None
    if preset is None:
        return {}
    given = {"name": preset.name, "dialect": preset.dialect, "key_header": preset.key_header}
    # Without one it is asked for.
    return {**given, "base_url": preset.base_url} if preset.is_complete else given


@example({"preset": "antinomy", "api_key": "sk-live-0123456789abcdef", "priority": 0})
class ProviderInput(_ProviderSettings):
    """A new provider with its first key. A preset gives name, base URL, dialect and key header."""

    preset = serializers.CharField(max_length=64, required=False)
    name = _name_field(is_required=False)
    base_url = serializers.CharField(max_length=500, required=False)
    api_key = SecretField()

    def validate_preset(self, value: str) -> str:
        """Refuse a preset that there is not."""
        try:
            get_preset(value)
        except UnknownPreset as error:
            raise serializers.ValidationError(str(error), code=error.code) from error
        return value

    def to_internal_value(self, data: Any) -> Any:
        """Return the values, with those of the preset where none are given."""
        # Not required in the schema, which cannot say that a preset stands in for them.
        for name in ("name", "base_url"):
            self.fields[name].required = True
        values = super().to_internal_value(
            {**_preset_values(data), **data} if isinstance(data, dict) else data
        )
        values.pop("preset", None)
        return values


@example(_PROVIDER_EXAMPLE)
class ProviderReplacement(_ProviderSettings):
    """A provider, replaced; what is left out keeps its value. A new base URL needs `api_key`."""

    name = _name_field(is_required=True)
    base_url = serializers.CharField(max_length=500)
    api_key = SecretField(required=False)


@example({"base_url": "https://antinomy.ai/api/v2", "api_key": "sk-live-0123456789abcdef"})
class ProviderChange(_ProviderSettings):
    """What shall change. A new base URL needs `api_key`."""

    name = _name_field(is_required=False)
    base_url = serializers.CharField(max_length=500, required=False)
    api_key = SecretField(required=False)


@example(_KEY_EXAMPLE)
class ProviderKeyOutput(serializers.Serializer[ProviderKey]):
    """A key, without the secret."""

    id = serializers.IntegerField()
    name = serializers.CharField()
    last_four = serializers.CharField(
        help_text="Of the secret; empty where it is short. Of an AWS key those of its access key "
        "id, of a service account's key those of its private key id."
    )
    weight = serializers.IntegerField()
    rpm = serializers.IntegerField(allow_null=True)
    tpm = serializers.IntegerField(allow_null=True)
    concurrency = serializers.IntegerField(allow_null=True)
    daily_cost = USDField(source="daily_cost_nanos", allow_null=True)
    is_active = serializers.BooleanField()
    left_behind_at = serializers.DateTimeField(
        allow_null=True,
        help_text="When the provider moved to another base URL than this secret was typed for. "
        "The key can be active again when its secret is typed once more.",
    )
    disabled_at = serializers.DateTimeField(
        allow_null=True,
        help_text="When it was disabled automatically, since the provider refused it.",
    )
    disabled_reason = serializers.ChoiceField(
        choices=[("", "not disabled"), *DisabledReason.choices],
        help_text="auth: the provider refused the key. balance: the account behind it is empty.",
    )
    next_check_at = serializers.DateTimeField(
        allow_null=True, help_text="When a disabled key is asked next; it is enabled if it works."
    )
    created_at = serializers.DateTimeField()


@example(
    {
        "id": 3,
        **_PROVIDER_EXAMPLE,
        "keys": [_KEY_EXAMPLE],
        "created_at": "2026-11-02T08:15:30.123456Z",
        "updated_at": "2026-11-02T08:15:30.123456Z",
    }
)
class ProviderOutput(MaskedSerializer):
    """A provider. Viewers and analysts see neither its address nor its keys: both are null."""

    # Roles by their values: the app of people lies beside this one.
    hidden_from = {"viewer": _HIDDEN | {"cap", "daily_cost", "headers"}, "analyst": _HIDDEN}

    id = serializers.IntegerField()
    name = serializers.CharField()
    base_url = serializers.CharField(allow_null=True)
    dialect = serializers.ChoiceField(choices=Dialect.choices)
    key_header = serializers.ChoiceField(choices=KeyHeader.choices, allow_blank=True)
    priority = serializers.IntegerField()
    weight = serializers.IntegerField()
    payload_mode = serializers.ChoiceField(choices=PayloadMode.choices)
    connect_timeout_seconds = serializers.FloatField()
    first_byte_timeout_seconds = serializers.FloatField()
    idle_timeout_seconds = serializers.FloatField()
    total_timeout_seconds = serializers.FloatField()
    cap = USDField(source="cap_nanos", allow_null=True)
    key_strategy = serializers.ChoiceField(choices=KeyStrategy.choices)
    failures_max = serializers.IntegerField()
    check_seconds = serializers.IntegerField()
    rpm = serializers.IntegerField(allow_null=True)
    tpm = serializers.IntegerField(allow_null=True)
    concurrency = serializers.IntegerField(allow_null=True)
    daily_cost = USDField(source="daily_cost_nanos", allow_null=True)
    leaving_policy = serializers.ChoiceField(choices=LeavingPolicy.choices)
    drain_seconds = serializers.FloatField()
    headers = HeadersField(allow_null=True)
    is_active = serializers.BooleanField()
    keys = ProviderKeyOutput(many=True, allow_null=True, source="keys_by_age")
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()


class _KeySettings(_Limits):
    """What can be set, and left out, in every call that writes a key."""

    name = NameField(max_length=100, required=False, allow_blank=True)
    weight = serializers.IntegerField(
        min_value=0,
        max_value=NUMBER_MAX,
        required=False,
        help_text="Share of the calls among the provider's active keys.",
    )
    is_active = serializers.BooleanField(required=False)


@example({"name": "second account", "api_key": "sk-live-fedcba9876543210", "weight": 2})
class ProviderKeyInput(_KeySettings):
    """A new key."""

    api_key = SecretField()


@example({"weight": 3, "is_active": True})
class ProviderKeyChange(_KeySettings):
    """What shall change; `api_key` replaces the secret."""

    api_key = SecretField(required=False)


@example(
    {
        "slug": "antinomy",
        "name": "Antinomy AI",
        "base_url": "https://antinomy.ai/api/v1",
        "dialect": "openai",
        "key_header": "",
        "documentation_url": "https://antinomy.ai",
        "models": ["anthropic/claude-sonnet-4", "x-ai/grok-3-beta"],
        "is_local": False,
    }
)
class PresetOutput(serializers.Serializer[Any]):
    """A known provider, without a key."""

    slug = serializers.CharField()
    name = serializers.CharField()
    base_url = serializers.CharField(help_text="Where PROJECT or NAME stands in it, replace that.")
    dialect = serializers.ChoiceField(choices=Dialect.choices)
    key_header = serializers.ChoiceField(choices=KeyHeader.choices, allow_blank=True)
    documentation_url = serializers.CharField()
    models = serializers.ListField(
        child=serializers.CharField(), help_text="What it offers, where that is fixed."
    )
    is_local = serializers.BooleanField(
        help_text="Runs on your own machines: PRIVATE_UPSTREAMS must list its address."
    )
