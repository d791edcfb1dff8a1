"""What clients ask for: models, the routes to providers, and prices.

Prices are nanos per million tokens; a price version is never edited, a new price is a new version.
"""

from __future__ import annotations

from typing import Any, Final

from django.core.validators import MaxLengthValidator, MaxValueValidator, MinValueValidator
from django.db import models

from apps.core.bounds import DESCRIPTION_LENGTH_MAX, INTEGER_MAX, NUMBER_MAX
from apps.core.usage import COUNTS, TOKEN_CLASSES
from apps.providers.models import Provider

CONTEXT_LENGTH_MAX: Final = 100_000_000
OUTPUT_TOKENS_MAX: Final = 10_000_000
IMAGE_TOKENS_MAX: Final = 10_000_000
# An answer is given again for a day at most.
CACHE_SECONDS_MAX: Final = 86_400
_ANY_INTEGER: Final = (MinValueValidator(-INTEGER_MAX), MaxValueValidator(INTEGER_MAX))


class Strategy(models.TextChoices):
    """How routes of one priority are ordered."""

    PRIORITY = "priority", "at random by weight"
    LEAST_LATENCY = "least_latency", "the quickest first byte first"
    LEAST_COST = "least_cost", "the lowest cost first"


class AIModel(models.Model):
    """A model as clients name it."""

    name = models.CharField(max_length=200, unique=True)
    display_name = models.CharField(max_length=200, blank=True)
    description = models.TextField(
        blank=True, validators=[MaxLengthValidator(DESCRIPTION_LENGTH_MAX)]
    )
    context_length = models.PositiveIntegerField(
        default=128_000,
        validators=[MinValueValidator(1), MaxValueValidator(CONTEXT_LENGTH_MAX)],
        help_text="Tokens, input and output.",
    )
    max_output_tokens = models.PositiveIntegerField(
        default=16_384,
        validators=[MinValueValidator(1), MaxValueValidator(OUTPUT_TOKENS_MAX)],
        help_text="The provider's own maximum: a call that sets none is held for so many tokens, "
        "and what its provider writes beyond is an excess.",
    )
    image_tokens_max = models.PositiveIntegerField(
        default=5_000,
        validators=[MaxValueValidator(IMAGE_TOKENS_MAX)],
        help_text="The most input tokens that one image can count for.",
    )
    capabilities = models.JSONField(default=dict, blank=True)
    # Null and not a default: SQLite adds a column that may be null in place, and the table keeps
    # its triggers.
    cache_seconds = models.PositiveIntegerField(
        null=True,
        blank=True,
        validators=[MinValueValidator(1), MaxValueValidator(CACHE_SECONDS_MAX)],
        help_text="For how long an answer may be given again to the same key, which must want it, "
        "too; empty: never.",
    )
    cache_share_millionths = models.BigIntegerField(
        null=True,
        blank=True,
        validators=[MinValueValidator(0), MaxValueValidator(1_000_000)],
        help_text="What an answer costs that is given again, in millionths of its price; empty: "
        "all of it.",
    )
    position = models.IntegerField(
        default=0, validators=_ANY_INTEGER, help_text="Order in lists; lower goes first."
    )
    strategy = models.CharField(
        max_length=16,
        choices=Strategy.choices,
        default=Strategy.PRIORITY,
        db_default=Strategy.PRIORITY,
        help_text="Orders the routes of one priority; a lower priority always goes first.",
    )
    is_sticky = models.BooleanField(
        default=False,
        db_default=False,
        help_text="Calls of one conversation go to the same route and provider key.",
    )
    is_active = models.BooleanField(default=True)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        verbose_name = "AI model"
        constraints = [
            models.CheckConstraint(
                condition=models.Q(context_length__gt=0, max_output_tokens__gt=0),
                name="ai_models_aimodel_lengths",
            ),
        ]

    def __str__(self) -> str:
        return self.name


class Route(models.Model):
    """A way from a model to a provider."""

    model = models.ForeignKey(AIModel, on_delete=models.PROTECT, related_name="routes")
    provider = models.ForeignKey(Provider, on_delete=models.PROTECT, related_name="routes")
    upstream_name = models.CharField(max_length=200, help_text="What the provider calls the model.")
    priority = models.IntegerField(
        default=0, validators=_ANY_INTEGER, help_text="Lower goes first."
    )
    weight = models.PositiveIntegerField(
        default=1,
        validators=[MaxValueValidator(NUMBER_MAX)],
        help_text="Share among routes of one priority.",
    )
    max_tokens_parameter = models.CharField(
        max_length=50,
        default="",
        blank=True,
        help_text="The parameter by which this provider takes a cap on output; empty: the one "
        "that servers at its address are known to take.",
    )
    overrides = models.JSONField(
        default=dict,
        db_default={},
        blank=True,
        help_text="What is changed of requests on this route; see docs/routing.md.",
    )
    is_active = models.BooleanField(default=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["model", "provider", "upstream_name"], name="ai_models_route_unique"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.model.name} → {self.provider.name}"


def _price() -> models.BigIntegerField[int | None, int | None]:
    return models.BigIntegerField(null=True, blank=True, help_text="Nano-USD per million tokens.")


def _piece(unit: str) -> models.BigIntegerField[int | None, int | None]:
    return models.BigIntegerField(null=True, blank=True, help_text=f"Nano-USD per {unit}.")


class PriceVersion(models.Model):
    """Prices from one moment on.

    A model's (what clients pay) or a route's (what the provider bills).
    """

    model = models.ForeignKey(
        AIModel, null=True, blank=True, on_delete=models.PROTECT, related_name="price_versions"
    )
    route = models.ForeignKey(
        Route, null=True, blank=True, on_delete=models.PROTECT, related_name="cost_versions"
    )
    effective_at = models.DateTimeField()
    input_nanos = _price()
    cache_read_nanos = _price()
    cache_write_5m_nanos = _price()
    cache_write_1h_nanos = _price()
    output_nanos = _price()
    reasoning_nanos = _price()
    audio_in_nanos = _price()
    audio_out_nanos = _price()
    image_in_nanos = _price()
    image_out_nanos = _price()
    request_nanos = models.BigIntegerField(default=0, help_text="Nano-USD per request.")
    image_nanos = _piece("image that is made")
    second_nanos = _piece("second of audio or video")
    character_nanos = _piece("million characters")
    web_search_nanos = _piece("search that the provider runs")
    tool_call_nanos = _piece("call of a tool that the provider runs")
    minimum_nanos = models.BigIntegerField(
        default=0, help_text="Nano-USD that a request costs at least, before the multiplier."
    )
    terms = models.JSONField(
        null=True,
        blank=True,
        help_text="Other amounts above so much input, in a service tier, at a time of the day: "
        "see docs/pricing.md.",
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        indexes = [
            # Read by the snapshot loader: the newest versions of a model or a route.
            models.Index(fields=["model", "effective_at"], name="ai_models_price_model"),
            models.Index(fields=["route", "effective_at"], name="ai_models_price_route"),
        ]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(model__isnull=True) ^ models.Q(route__isnull=True),
                name="ai_models_price_one_owner",
            ),
            models.CheckConstraint(
                condition=models.Q(request_nanos__gte=0, request_nanos__lte=10**15),
                name="ai_models_price_request",
            ),
            models.CheckConstraint(
                condition=models.Q(minimum_nanos__gte=0, minimum_nanos__lte=10**15),
                name="ai_models_price_minimum",
            ),
            *(
                models.CheckConstraint(
                    condition=models.Q(**{f"{name}_nanos__isnull": True})
                    | models.Q(**{f"{name}_nanos__gte": 0, f"{name}_nanos__lte": 10**15}),
                    name=f"ai_models_price_{name}",
                )
                for name in (*TOKEN_CLASSES, *COUNTS)
            ),
        ]

    def __str__(self) -> str:
        return f"{self.model or self.route} from {self.effective_at:%Y-%m-%d %H:%M}"

    def prices(self) -> dict[str, Any]:
        """Return token class or count → nanos per million or piece, only those that are priced."""
        values = {name: getattr(self, f"{name}_nanos") for name in (*TOKEN_CLASSES, *COUNTS)}
        return {name: value for name, value in values.items() if value is not None}
