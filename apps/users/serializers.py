"""What signing in takes and gives."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from apps.core.rest import StrictSerializer
from apps.users.models import Role, User


class LoginInput(StrictSerializer):
    """A user name or e-mail address, and the password exactly as typed."""

    username = serializers.CharField(max_length=254)
    password = serializers.CharField(max_length=4_096, trim_whitespace=False)


class RefreshInput(StrictSerializer):
    """A refresh token."""

    refresh = serializers.CharField(max_length=4_096)


class LogoutInput(StrictSerializer):
    """The refresh token of another session of one's own to end as well."""

    refresh = serializers.CharField(max_length=4_096, required=False)


class SignedInUser(serializers.Serializer[User]):
    """Who signed in."""

    id = serializers.IntegerField()
    username = serializers.CharField()
    email = serializers.EmailField()
    role = serializers.ChoiceField(choices=Role.choices)


class TokenPairOutput(serializers.Serializer[Any]):
    """An access token for 15 minutes and a refresh token that works once."""

    access = serializers.CharField()
    refresh = serializers.CharField()


class LoginOutput(TokenPairOutput):
    """The tokens and who they are for."""

    user = SignedInUser()
