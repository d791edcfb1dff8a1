"""Where requests go: providers and their keys."""

from __future__ import annotations

from typing import Final

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models

from apps.core.bounds import INTEGER_MAX, NUMBER_MAX

SECONDS_MIN: Final = 0.1
SECONDS_MAX: Final = 86_400.0
DRAIN_SECONDS_MAX: Final = 600.0
FAILURES_MAX: Final = 1_000_000
CHECK_SECONDS_MAX: Final = 86_400


class Dialect(models.TextChoices):
    OPENAI = "openai", "OpenAI Chat Completions"
    ANTHROPIC = "anthropic", "Anthropic Messages"
    GEMINI = "gemini", "Google Gemini"
    OPENAI_RESPONSES = "openai-responses", "OpenAI Responses"


class KeyHeader(models.TextChoices):
    """By which header a provider gets its key, or what requests to it are signed with."""

    DIALECT = "", "as its dialect says"
    AUTHORIZATION = "authorization", "Authorization: Bearer"
    API_KEY = "api-key", "api-key"
    X_API_KEY = "x-api-key", "x-api-key"
    X_GOOG_API_KEY = "x-goog-api-key", "x-goog-api-key"
    GOOGLE_SERVICE_ACCOUNT = "google-service-account", "token of a Google service account"
    AWS_SIGV4 = "aws-sigv4", "AWS Signature Version 4"


class PayloadMode(models.TextChoices):
    """How much of a call's bodies is kept; of several that apply, the strictest wins."""

    OFF = "off", "nothing"
    METADATA = "metadata", "sizes and digests"
    FULL = "full", "bodies"


class KeyStrategy(models.TextChoices):
    """Which of a provider's keys takes a call; keys of weight 0 only where there is no other."""

    RANDOM = "random", "at random, by weight"
    ROUND_ROBIN = "round_robin", "each in turn"


class DisabledReason(models.TextChoices):
    """Why a key was disabled automatically."""

    AUTH = "auth", "the provider refused the key"
    BALANCE = "balance", "the account behind the key is empty"


class LeavingPolicy(models.TextChoices):
    """What happens to a provider's answer when the client that asked for it leaves."""

    CANCEL = "cancel", "it is cancelled"
    DRAIN = "drain", "it is read on, for its exact usage"


def _limit(text: str) -> models.PositiveIntegerField[int | None, int | None]:
    return models.PositiveIntegerField(
        null=True,
        blank=True,
        validators=[MaxValueValidator(INTEGER_MAX)],
        help_text=f"{text}; empty: no limit.",
    )


def _seconds(default: float) -> models.FloatField[float, float]:
    bounds = (MinValueValidator(SECONDS_MIN), MaxValueValidator(SECONDS_MAX))
    return models.FloatField(default=default, validators=bounds)


def _daily_cost() -> models.BigIntegerField[int | None, int | None]:
    return models.BigIntegerField(
        null=True,
        blank=True,
        help_text="What the provider may bill for the calls of one day (UTC), in nano-USD; "
        "empty: no limit.",
    )


class Provider(models.Model):
    """A service that answers requests, reached under one base URL in one dialect."""

    name = models.CharField(max_length=100, unique=True)
    base_url = models.CharField(max_length=500, help_text="For example https://api.openai.com/v1")
    dialect = models.CharField(max_length=32, choices=Dialect.choices, default=Dialect.OPENAI)
    key_header = models.CharField(
        max_length=32,
        choices=KeyHeader.choices,
        default=KeyHeader.DIALECT,
        db_default=KeyHeader.DIALECT,
        blank=True,
        help_text="Where the provider wants its key, if elsewhere than its dialect says, or what "
        "its requests are signed with.",
    )
    priority = models.IntegerField(
        default=0,
        validators=[MinValueValidator(-NUMBER_MAX), MaxValueValidator(NUMBER_MAX)],
        help_text="Given to new routes; lower goes first.",
    )
    weight = models.PositiveIntegerField(
        default=1, validators=[MaxValueValidator(NUMBER_MAX)], help_text="Given to new routes."
    )
    payload_mode = models.CharField(
        max_length=16, choices=PayloadMode.choices, default=PayloadMode.FULL
    )
    connect_timeout_seconds = _seconds(5.0)
    first_byte_timeout_seconds = _seconds(300.0)
    idle_timeout_seconds = _seconds(60.0)
    total_timeout_seconds = _seconds(1800.0)
    cap_nanos = models.BigIntegerField(
        null=True,
        blank=True,
        help_text="The most that calls answered by this provider may be charged, counted while "
        "it is capped, in nano-USD (what clients pay, not what the provider bills); empty: no cap.",
    )
    key_strategy = models.CharField(
        max_length=16, choices=KeyStrategy.choices, default=KeyStrategy.RANDOM
    )
    failures_max = models.PositiveIntegerField(
        default=5,
        validators=[MinValueValidator(1), MaxValueValidator(FAILURES_MAX)],
        help_text="After so many failures in a row a route rests.",
    )
    check_seconds = models.PositiveIntegerField(
        default=60,
        validators=[MaxValueValidator(CHECK_SECONDS_MAX)],
        help_text="Between two health checks of what is out of order, doubling while they fail; "
        "0: never, so that disabled keys come back by hand only.",
    )
    rpm = _limit("Requests a minute")
    tpm = _limit("Tokens a minute")
    concurrency = _limit("Requests at the same time")
    daily_cost_nanos = _daily_cost()
    leaving_policy = models.CharField(
        max_length=16,
        choices=LeavingPolicy.choices,
        default=LeavingPolicy.CANCEL,
        db_default=LeavingPolicy.CANCEL,
        help_text="What happens to an answer when its client leaves.",
    )
    drain_seconds = models.FloatField(
        default=30.0,
        db_default=30.0,
        validators=[MinValueValidator(SECONDS_MIN), MaxValueValidator(DRAIN_SECONDS_MAX)],
        help_text="How long an answer is read on after its client left, where it is.",
    )
    headers = models.JSONField(
        default=dict,
        db_default={},
        blank=True,
        help_text="Headers that every request to this provider carries, by name.",
    )
    is_active = models.BooleanField(default=True)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=models.Q(
                    connect_timeout_seconds__gt=0,
                    first_byte_timeout_seconds__gt=0,
                    idle_timeout_seconds__gt=0,
                    total_timeout_seconds__gt=0,
                ),
                name="providers_provider_timeouts",
            ),
            models.CheckConstraint(
                condition=models.Q(cap_nanos__isnull=True) | models.Q(cap_nanos__gte=0),
                name="providers_provider_cap",
            ),
            models.CheckConstraint(
                condition=models.Q(failures_max__gte=1), name="providers_provider_failures"
            ),
            models.CheckConstraint(
                condition=models.Q(daily_cost_nanos__isnull=True)
                | models.Q(daily_cost_nanos__gte=0),
                name="providers_provider_daily_cost",
            ),
            models.CheckConstraint(
                condition=models.Q(drain_seconds__gt=0),
                name="providers_provider_drain",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def keys_by_age(self) -> list[ProviderKey]:
        """Return the keys, oldest first: a database gives them in any order."""
        return sorted(self.keys.all(), key=lambda key: key.pk)


class ProviderKeyQuerySet(models.QuerySet["ProviderKey"]):
    """Keys of providers."""

    def enabled(self) -> ProviderKeyQuerySet:
        """Return those that people want to be used, disabled automatically or not."""
        return self.filter(is_active=True, left_behind_at=None)


class ProviderKey(models.Model):
    """One credential for a provider, sealed and bound to this row.

    `is_active` is what people want; `disabled_at` is set by the gateway when the provider refuses
    the key, and taken back by a health check or by hand. Used is what is active and not disabled.
    """

    provider = models.ForeignKey(Provider, on_delete=models.CASCADE, related_name="keys")
    name = models.CharField(max_length=100, blank=True)
    sealed_secret = models.TextField(editable=False)
    last_four = models.CharField(max_length=4, editable=False)
    weight = models.PositiveIntegerField(default=1, validators=[MaxValueValidator(NUMBER_MAX)])
    rpm = _limit("Requests a minute")
    tpm = _limit("Tokens a minute")
    concurrency = _limit("Requests at the same time")
    daily_cost_nanos = _daily_cost()
    is_active = models.BooleanField(default=True)
    left_behind_at = models.DateTimeField(
        null=True,
        editable=False,
        help_text="When the provider moved away from where this secret was typed for. Until it is "
        "typed again the key cannot be active.",
    )
    disabled_at = models.DateTimeField(
        null=True, editable=False, help_text="When it was disabled automatically."
    )
    disabled_reason = models.CharField(
        max_length=16, choices=DisabledReason.choices, blank=True, default="", editable=False
    )
    enabled_at = models.DateTimeField(
        null=True, editable=False, help_text="When a health check last enabled it again."
    )
    next_check_at = models.DateTimeField(null=True, editable=False)
    failed_checks = models.PositiveSmallIntegerField(default=0, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = ProviderKeyQuerySet.as_manager()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=models.Q(disabled_at=None, disabled_reason="")
                | models.Q(disabled_at__isnull=False, disabled_reason__in=DisabledReason.values),
                name="providers_providerkey_disabled",
            ),
            models.CheckConstraint(
                condition=models.Q(daily_cost_nanos__isnull=True)
                | models.Q(daily_cost_nanos__gte=0),
                name="providers_providerkey_daily_cost",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.provider.name} …{self.last_four}"

    @property
    def seal_context(self) -> str:
        """The place this secret is bound to."""
        return f"providers.ProviderKey:{self.pk}"
