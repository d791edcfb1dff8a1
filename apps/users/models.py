"""People, and the customers on whose account they spend."""

from __future__ import annotations

from django.contrib.auth.models import AbstractUser
from django.core.validators import MaxLengthValidator, MaxValueValidator
from django.db import models

from apps.core.bounds import DESCRIPTION_LENGTH_MAX, INTEGER_MAX
from apps.core.ids import new_uuid7


class Role(models.TextChoices):
    USER = "user", "user"
    VIEWER = "viewer", "viewer"
    ANALYST = "analyst", "analyst"
    ADMIN = "admin", "admin"


class Customer(models.Model):
    """Who owns accounts: one for each user today, one for each organisation later."""

    name = models.CharField(max_length=200)
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.name


def _budget_constraints(table: str) -> list[models.CheckConstraint]:
    return [
        models.CheckConstraint(
            condition=models.Q(**{f"{name}_nanos__isnull": True})
            | models.Q(**{f"{name}_nanos__gte": 0}),
            name=f"{table}_{name}",
        )
        for name in ("daily_budget", "monthly_budget")
    ]


def _limit(text: str) -> models.PositiveIntegerField[int | None, int | None]:
    return models.PositiveIntegerField(
        null=True,
        blank=True,
        validators=[MaxValueValidator(INTEGER_MAX)],
        help_text=f"{text}; empty: no limit.",
    )


class UserGroup(models.Model):
    """Users that share a price multiplier, limits and model groups."""

    name = models.CharField(max_length=100, unique=True)
    description = models.TextField(
        blank=True, validators=[MaxLengthValidator(DESCRIPTION_LENGTH_MAX)]
    )
    multiplier_millionths = models.BigIntegerField(
        default=1_000_000, help_text="1000000 charges the list price, 500000 half of it."
    )
    rpm = _limit("Requests a minute")
    tpm = _limit("Tokens a minute")
    concurrency = _limit("Requests at the same time")
    cap_nanos = models.BigIntegerField(
        null=True,
        blank=True,
        help_text="The most its members may spend together, counted while it is capped, in "
        "nano-USD; empty: no cap.",
    )
    daily_budget_nanos = models.BigIntegerField(
        null=True,
        blank=True,
        help_text="The most its members may spend together in a day (UTC), in nano-USD; empty: no "
        "budget.",
    )
    monthly_budget_nanos = models.BigIntegerField(
        null=True,
        blank=True,
        help_text="The most its members may spend together in a month (UTC), in nano-USD; empty: "
        "no budget.",
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=models.Q(
                    multiplier_millionths__gte=0, multiplier_millionths__lte=1_000_000_000
                ),
                name="users_usergroup_multiplier",
            ),
            models.CheckConstraint(
                condition=models.Q(cap_nanos__isnull=True) | models.Q(cap_nanos__gte=0),
                name="users_usergroup_cap",
            ),
            *_budget_constraints("users_usergroup"),
        ]

    def __str__(self) -> str:
        return self.name


class User(AbstractUser):
    """A person who signs in, owns API keys and spends a customer's money."""

    email = models.EmailField(unique=True)
    name = models.CharField(max_length=100, blank=True)
    role = models.CharField(max_length=16, choices=Role.choices, default=Role.USER)
    customer = models.OneToOneField(Customer, on_delete=models.PROTECT, related_name="user")
    user_group = models.ForeignKey(
        UserGroup, null=True, blank=True, on_delete=models.PROTECT, related_name="users"
    )
    rpm = _limit("Requests a minute")
    tpm = _limit("Tokens a minute")
    concurrency = _limit("Requests at the same time")
    cap_nanos = models.BigIntegerField(
        null=True,
        blank=True,
        help_text="The most this user may spend with all keys, counted while capped, in "
        "nano-USD; empty: no cap.",
    )
    daily_budget_nanos = models.BigIntegerField(
        null=True,
        blank=True,
        help_text="The most this user may spend in a day (UTC), in nano-USD; empty: no budget.",
    )
    monthly_budget_nanos = models.BigIntegerField(
        null=True,
        blank=True,
        help_text="The most this user may spend in a month (UTC), in nano-USD; empty: no budget.",
    )

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=models.Q(role__in=Role.values), name="users_user_role"
            ),
            models.CheckConstraint(
                condition=models.Q(cap_nanos__isnull=True) | models.Q(cap_nanos__gte=0),
                name="users_user_cap",
            ),
            *_budget_constraints("users_user"),
        ]

    def __str__(self) -> str:
        return self.username


class Session(models.Model):
    """One sign-in: access tokens name it, and end with it.

    `refresh_id` is the id of the one refresh token that is valid now; an older one that comes back
    was stolen or leaked, and ends the session. `auth_hash` changes with the password.
    """

    id = models.UUIDField(primary_key=True, default=new_uuid7, editable=False)
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="sessions")
    refresh_id = models.CharField(max_length=64, editable=False)
    auth_hash = models.CharField(max_length=128, editable=False)
    ip_address = models.CharField(max_length=45)
    user_agent = models.CharField(max_length=256)
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True)

    class Meta:
        indexes = [
            # Expired sessions are removed in order of their end.
            models.Index(fields=["expires_at"], name="users_session_expires"),
        ]

    def __str__(self) -> str:
        return f"{self.user} from {self.created_at:%Y-%m-%d %H:%M}"
