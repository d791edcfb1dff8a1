"""Providers over REST. The key goes in and never comes out."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers
from rest_framework.validators import UniqueValidator

from apps.core.rest import StrictSerializer
from apps.providers.credentials import SecretMalformed, check_secret
from apps.providers.models import Dialect, PayloadMode, Provider
from apps.providers.registration import BaseUrlRefused, check_base_url


class ProviderInput(StrictSerializer):
    """A new provider with its first key."""

    name = serializers.CharField(
        max_length=100, validators=[UniqueValidator(queryset=Provider.objects.all())]
    )
    base_url = serializers.CharField(max_length=500)
    api_key = serializers.CharField(max_length=4_096, write_only=True)
    dialect = serializers.ChoiceField(choices=Dialect.choices, default=Dialect.OPENAI)

    def validate_base_url(self, value: str) -> str:
        """Refuse addresses that the gateway must not connect to."""
        try:
            check_base_url(value)
        except BaseUrlRefused as error:
            raise serializers.ValidationError(str(error), code=error.code) from error
        return value

    def validate_api_key(self, value: str) -> str:
        """Refuse what cannot be a header value."""
        try:
            check_secret(value)
        except SecretMalformed as error:
            raise serializers.ValidationError(str(error), code=error.code) from error
        return value


class ProviderKeyOutput(serializers.Serializer[Any]):
    """A key, without the secret."""

    id = serializers.IntegerField()
    name = serializers.CharField()
    last_four = serializers.CharField()
    weight = serializers.IntegerField()
    is_active = serializers.BooleanField()
    created_at = serializers.DateTimeField()


class ProviderOutput(serializers.Serializer[Provider]):
    """A provider."""

    id = serializers.IntegerField()
    name = serializers.CharField()
    base_url = serializers.CharField()
    dialect = serializers.ChoiceField(choices=Dialect.choices)
    priority = serializers.IntegerField()
    weight = serializers.IntegerField()
    payload_mode = serializers.ChoiceField(choices=PayloadMode.choices)
    connect_timeout_seconds = serializers.FloatField()
    first_byte_timeout_seconds = serializers.FloatField()
    idle_timeout_seconds = serializers.FloatField()
    total_timeout_seconds = serializers.FloatField()
    is_active = serializers.BooleanField()
    keys = ProviderKeyOutput(many=True)
    created_at = serializers.DateTimeField()
