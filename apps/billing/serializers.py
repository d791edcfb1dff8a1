"""Users and their money over REST. Amounts are decimal strings of US dollars."""

from __future__ import annotations

from typing import Any, Final

from django.contrib.auth.password_validation import validate_password
from django.contrib.auth.validators import UnicodeUsernameValidator
from django.core.exceptions import ValidationError as DjangoValidationError
from rest_framework import serializers
from rest_framework.validators import UniqueValidator

from apps.core.rest import StrictSerializer, USDField
from apps.users.models import Role, User

ADJUSTMENT_NANOS_MAX: Final = 10**15


class UserInput(StrictSerializer):
    """A new user. Role, group and balance are not given here."""

    username = serializers.CharField(
        max_length=150,
        validators=[UnicodeUsernameValidator(), UniqueValidator(queryset=User.objects.all())],
    )
    email = serializers.EmailField(
        max_length=254,
        validators=[UniqueValidator(queryset=User.objects.all(), lookup="iexact")],
    )
    name = serializers.CharField(max_length=100, required=False, default="", allow_blank=True)
    password = serializers.CharField(max_length=4_096, write_only=True, trim_whitespace=False)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Refuse passwords that are easy to guess."""
        user = User(username=attrs["username"], email=attrs["email"], name=attrs["name"])
        try:
            validate_password(attrs["password"], user=user)
        except DjangoValidationError as error:
            raise serializers.ValidationError({"password": list(error.messages)}) from error
        return attrs


class WalletOutput(serializers.Serializer[Any]):
    """What a user has: the balance after debts, what calls under way hold, and what is left."""

    balance = USDField(source="balance_nanos")
    held = USDField(source="held_nanos")
    available = USDField(source="available_nanos")


class UserOutput(serializers.Serializer[User]):
    """A user, without secrets and without money."""

    id = serializers.IntegerField()
    username = serializers.CharField()
    email = serializers.EmailField()
    name = serializers.CharField()
    role = serializers.ChoiceField(choices=Role.choices)
    user_group = serializers.IntegerField(source="user_group_id", allow_null=True)
    is_active = serializers.BooleanField()
    rpm = serializers.IntegerField(allow_null=True)
    tpm = serializers.IntegerField(allow_null=True)
    concurrency = serializers.IntegerField(allow_null=True)
    created_at = serializers.DateTimeField(source="date_joined")


class UserWithWalletOutput(UserOutput):
    """A user with the wallet."""

    wallet = WalletOutput()


class AdjustmentInput(StrictSerializer):
    """Money given (positive) or taken (negative), and why."""

    amount = USDField(is_signed=True, nanos_max=ADJUSTMENT_NANOS_MAX)
    reason = serializers.CharField(max_length=500)

    def validate_amount(self, value: int) -> int:
        """Refuse an adjustment by nothing."""
        if value == 0:
            raise serializers.ValidationError("An adjustment must not be zero.")
        return value


class AdjustmentOutput(serializers.Serializer[Any]):
    """The transaction that was posted and the wallet after it."""

    transaction = serializers.UUIDField()
    amount = USDField()
    wallet = WalletOutput()


class ResetKeyInput(StrictSerializer):
    """Nothing."""


class ResetKeyOutput(serializers.Serializer[Any]):
    """The new default key; it is shown this once."""

    api_key = serializers.CharField()
