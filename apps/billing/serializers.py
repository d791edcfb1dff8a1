"""Users and their money over REST. Amounts are decimal strings of US dollars."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from django.contrib.auth.password_validation import validate_password
from django.contrib.auth.validators import UnicodeUsernameValidator
from django.core.exceptions import ValidationError as DjangoValidationError
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.validators import UniqueValidator

from apps.api_keys.models import APIKey
from apps.billing.accounts import Standing
from apps.billing.budgets import NO_BUDGETS, BudgetUses
from apps.core.rest import MaskedSerializer, MultiplierField, StrictSerializer, USDField, example
from apps.users.models import Role, User, UserGroup

ADJUSTMENT_NANOS_MAX: Final = 10**15
_LIMIT_MAX: Final = 2**31 - 1
_ID_MAX: Final = 2**63 - 1
_PASSWORD_LENGTH_MAX: Final = 4_096
_WALLET: Final = {"balance": "9.99", "held": "0.5", "available": "9.49"}
_NEW_USER: Final = {
    "username": "ada",
    "email": "ada@example.com",
    "name": "Ada Lovelace",
    "user_group": None,
    "rpm": 60,
    "tpm": None,
    "concurrency": 4,
    "cap": "100",
    "daily_budget": "5",
    "monthly_budget": None,
}
_BUDGETS: Final = {
    "day": {
        "budget": "5",
        "spent": "1.25",
        "held": "0.01",
        "left": "3.74",
        "begins_at": "2026-11-21T00:00:00Z",
        "resets_at": "2026-11-22T00:00:00Z",
    },
    "month": None,
}


def _limit() -> serializers.IntegerField:
    return serializers.IntegerField(
        min_value=0, max_value=_LIMIT_MAX, allow_null=True, required=False
    )


class _PersonInput(StrictSerializer):
    """What is given of a user, new or not."""

    username = serializers.CharField(
        max_length=150,
        validators=[UnicodeUsernameValidator(), UniqueValidator(queryset=User.objects.all())],
    )
    email = serializers.EmailField(
        max_length=254,
        validators=[UniqueValidator(queryset=User.objects.all(), lookup="iexact")],
    )
    name = serializers.CharField(max_length=100, required=False, allow_blank=True)
    user_group = serializers.IntegerField(
        min_value=1, max_value=_ID_MAX, allow_null=True, required=False
    )
    rpm = _limit()
    tpm = _limit()
    concurrency = _limit()
    cap = USDField(source="cap_nanos", allow_null=True, required=False)
    daily_budget = USDField(source="daily_budget_nanos", allow_null=True, required=False)
    monthly_budget = USDField(source="monthly_budget_nanos", allow_null=True, required=False)

    def validate_user_group(self, value: int | None) -> UserGroup | None:
        """Return the group; it must exist."""
        if value is None:
            return None
        found = UserGroup.objects.filter(pk=value).first()
        if found is None:
            raise serializers.ValidationError(f"There is no user group {value}.")
        return found

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Refuse passwords that are easy to guess."""
        if "password" in attrs:
            names = {
                name: attrs.get(name, getattr(self.instance, name, ""))
                for name in ("username", "email", "name")
            }
            check_password_strength(attrs["password"], User(**names))
        return attrs


@example({**_NEW_USER, "password": "correct horse battery staple"})
class UserInput(_PersonInput):
    """A new user. The role is `user` and the balance 0; both are changed on record, later."""

    password = serializers.CharField(
        max_length=_PASSWORD_LENGTH_MAX, write_only=True, trim_whitespace=False
    )


@example({**_NEW_USER, "role": "analyst", "is_active": True})
class UserChangeInput(_PersonInput):
    """What is to change of a user; what is left out stays.

    A new role, a new password and deactivation sign the user out everywhere. Of their own account
    administrators can change only the names and the address here.
    """

    role = serializers.ChoiceField(choices=Role.choices, required=False)
    is_active = serializers.BooleanField(required=False)
    password = serializers.CharField(
        max_length=_PASSWORD_LENGTH_MAX, write_only=True, trim_whitespace=False, required=False
    )


@example(_WALLET)
class WalletOutput(serializers.Serializer[Any]):
    """What a user has: the balance after debts, what calls under way hold, and what is left."""

    balance = USDField(source="balance_nanos")
    held = USDField(source="held_nanos")
    available = USDField(source="available_nanos")


class BudgetUseOutput(serializers.Serializer[Any]):
    """One budget in the period that runs now, a day or a month of UTC."""

    budget = USDField(source="budget_nanos")
    spent = USDField(source="spent_nanos")
    held = USDField(source="held_nanos")
    left = USDField(source="left_nanos")
    begins_at = serializers.DateTimeField()
    resets_at = serializers.DateTimeField()


@example(_BUDGETS)
class BudgetUsesOutput(serializers.Serializer[Any]):
    """What has been spent of budgets; null where there is none."""

    day = BudgetUseOutput(allow_null=True)
    month = BudgetUseOutput(allow_null=True)


@example(
    {
        "id": 7,
        **_NEW_USER,
        "role": "user",
        "is_active": True,
        "created_at": "2026-11-21T03:44:00Z",
        "last_login": None,
        "wallet": _WALLET,
        "budgets": _BUDGETS,
    }
)
class UserOutput(MaskedSerializer):
    """A user with wallet and budgets, without secrets.

    Pass the standings by customer and the uses of budgets by user in the context. `email` is null
    for viewers and analysts; cap, budgets and `wallet` are null for viewers.
    """

    hidden_from: ClassVar[Mapping[str, frozenset[str]]] = {
        Role.VIEWER: frozenset(
            {"email", "cap", "daily_budget", "monthly_budget", "wallet", "budgets"}
        ),
        Role.ANALYST: frozenset({"email"}),
    }

    id = serializers.IntegerField()
    username = serializers.CharField()
    email = serializers.EmailField(allow_null=True)
    name = serializers.CharField()
    role = serializers.ChoiceField(choices=Role.choices)
    user_group = serializers.IntegerField(source="user_group_id", allow_null=True)
    is_active = serializers.BooleanField()
    rpm = serializers.IntegerField(allow_null=True)
    tpm = serializers.IntegerField(allow_null=True)
    concurrency = serializers.IntegerField(allow_null=True)
    cap = USDField(source="cap_nanos", allow_null=True)
    daily_budget = USDField(source="daily_budget_nanos", allow_null=True)
    monthly_budget = USDField(source="monthly_budget_nanos", allow_null=True)
    created_at = serializers.DateTimeField(source="date_joined")
    last_login = serializers.DateTimeField(allow_null=True)
    wallet = serializers.SerializerMethodField()
    budgets = serializers.SerializerMethodField()

    @extend_schema_field(WalletOutput(allow_null=True))
    def get_wallet(self, user: User) -> Any:
        """Return what the user has."""
        standings: Mapping[int, Standing] = self.context["standings"]
        return WalletOutput(standings[user.customer_id]).data

    @extend_schema_field(BudgetUsesOutput(allow_null=True))
    def get_budgets(self, user: User) -> Any:
        """Return what the user has spent of his budgets."""
        uses: Mapping[int, BudgetUses] = self.context["budgets"]
        return BudgetUsesOutput(uses.get(user.pk, NO_BUDGETS)).data


@example({"amount": "10", "reason": "welcome credit"})
class AdjustmentInput(StrictSerializer):
    """Money given (positive) or taken (negative), and why."""

    amount = USDField(is_signed=True, nanos_max=ADJUSTMENT_NANOS_MAX)
    reason = serializers.CharField(max_length=500)
    corrects = serializers.IntegerField(
        min_value=1,
        max_value=2**63 - 1,
        required=False,
        allow_null=True,
        help_text="An entry on the user's own accounts that was wrong, by its id.",
    )

    def validate_amount(self, value: int) -> int:
        """Refuse an adjustment by nothing."""
        if value == 0:
            raise serializers.ValidationError("An adjustment must not be zero.")
        return value


@example(
    {
        "transaction": "019aa1b2-c3d4-7e5f-8a6b-0c1d2e3f4a5b",
        "amount": "10",
        "wallet": {"balance": "10", "held": "0", "available": "10"},
    }
)
class AdjustmentOutput(serializers.Serializer[Any]):
    """The transaction that was posted and the wallet after it."""

    transaction = serializers.UUIDField()
    amount = USDField()
    wallet = WalletOutput()


@example({})
class NothingInput(StrictSerializer):
    """Nothing."""


@example({"api_key": "sk-audit-0123456789abcdefghijABCDEFGHIJ01"})
class ResetKeyOutput(serializers.Serializer[Any]):
    """The new default key; it is shown this once."""

    api_key = serializers.CharField()


@example({"ended": 2})
class EndedSessionsOutput(serializers.Serializer[Any]):
    """How many sessions were open."""

    ended = serializers.IntegerField()


@example(
    {
        "name": "Ada L.",
        "current_password": "correct horse battery staple",
        "password": "another battery staple",
    }
)
class ProfileInput(StrictSerializer):
    """What one may change of oneself. A new password needs the current one."""

    name = serializers.CharField(max_length=100, required=False, allow_blank=True)
    password = serializers.CharField(
        max_length=_PASSWORD_LENGTH_MAX, write_only=True, trim_whitespace=False, required=False
    )
    current_password = serializers.CharField(
        max_length=_PASSWORD_LENGTH_MAX, write_only=True, trim_whitespace=False, required=False
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Refuse half a change of the password, and passwords that are easy to guess."""
        for name, other in (
            ("password", "current_password"),
            ("current_password", "password"),
        ):
            if name in attrs and other not in attrs:
                raise serializers.ValidationError({other: ["This field is required."]})
        if "password" in attrs:
            user = self.instance
            assert isinstance(user, User)  # noqa: S101  # the view passes who is signed in
            check_password_strength(attrs["password"], user)
        return attrs


class OwnGroupOutput(serializers.Serializer[UserGroup]):
    """The group one belongs to."""

    id = serializers.IntegerField()
    name = serializers.CharField()
    multiplier = MultiplierField(source="multiplier_millionths")


class OwnLimitsOutput(serializers.Serializer[User]):
    """What one is limited to; null is no limit."""

    rpm = serializers.IntegerField(allow_null=True)
    tpm = serializers.IntegerField(allow_null=True)
    concurrency = serializers.IntegerField(allow_null=True)
    cap = USDField(source="cap_nanos", allow_null=True)
    daily_budget = USDField(source="daily_budget_nanos", allow_null=True)
    monthly_budget = USDField(source="monthly_budget_nanos", allow_null=True)


class DefaultKeyOutput(serializers.Serializer[APIKey]):
    """The default API key, as far as it can be shown."""

    prefix = serializers.CharField()
    last_four = serializers.CharField()


@example(
    {
        "id": 7,
        "username": "ada",
        "email": "ada@example.com",
        "name": "Ada Lovelace",
        "role": "user",
        "user_group": {"id": 2, "name": "staff", "multiplier": "0.8"},
        "limits": {
            "rpm": 60,
            "tpm": None,
            "concurrency": 4,
            "cap": "100",
            "daily_budget": "5",
            "monthly_budget": None,
        },
        "budgets": _BUDGETS,
        "created_at": "2026-11-21T03:44:00Z",
        "last_login": "2026-11-21T03:50:00Z",
        "wallet": _WALLET,
        "default_key": {"prefix": "sk-audit-a1b2", "last_four": "9xYz"},
    }
)
class ProfileOutput(serializers.Serializer[Any]):
    """Who one is, what one has and what one may."""

    id = serializers.IntegerField(source="user.pk")
    username = serializers.CharField(source="user.username")
    email = serializers.EmailField(source="user.email")
    name = serializers.CharField(source="user.name")
    role = serializers.ChoiceField(source="user.role", choices=Role.choices)
    user_group = OwnGroupOutput(source="user.user_group", allow_null=True)
    limits = OwnLimitsOutput(source="user")
    budgets = BudgetUsesOutput()
    created_at = serializers.DateTimeField(source="user.date_joined")
    last_login = serializers.DateTimeField(source="user.last_login", allow_null=True)
    wallet = WalletOutput()
    default_key = DefaultKeyOutput(allow_null=True)


def check_password_strength(password: str, user: User) -> None:
    """Refuse a password that is easy to guess, also from what is known of the user."""
    try:
        validate_password(password, user=user)
    except DjangoValidationError as error:
        raise serializers.ValidationError({"password": list(error.messages)}) from error
