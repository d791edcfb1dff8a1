"""How clients identify themselves."""

from __future__ import annotations

from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models

from apps.ai_models.models import CACHE_SECONDS_MAX
from apps.providers.models import PayloadMode


class APIKey(models.Model):
    """A credential of a user for the client API. Only a keyed digest of it is stored."""

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="api_keys"
    )
    name = models.CharField(max_length=100)
    digest = models.BinaryField(max_length=32, unique=True, editable=False)
    prefix = models.CharField(max_length=16, editable=False)
    last_four = models.CharField(max_length=4, editable=False)
    is_default = models.BooleanField(default=False)
    is_active = models.BooleanField(default=True)
    # A moment and not a flag: SQLite adds a column that may be null in place, and the table keeps
    # its triggers.
    locked_at = models.DateTimeField(
        null=True,
        blank=True,
        editable=False,
        help_text="When an administrator disabled the key; its owner cannot enable it again.",
    )
    expires_at = models.DateTimeField(null=True, blank=True)
    allowed_models = models.JSONField(
        default=list, blank=True, help_text="Names of models; empty: all that the user may call."
    )
    allowed_networks = models.JSONField(
        default=list, blank=True, help_text="Addresses or networks; empty: from anywhere."
    )
    allowed_operations = models.JSONField(
        default=list,
        db_default=[],
        blank=True,
        help_text="What the key may be used for; empty: everything.",
    )
    cap_nanos = models.BigIntegerField(
        null=True,
        blank=True,
        help_text="The most this key may spend, counted while it is capped, in nano-USD; empty: no "
        "cap.",
    )
    rpm = models.PositiveIntegerField(
        null=True, blank=True, help_text="Requests a minute; empty: no limit."
    )
    tpm = models.PositiveIntegerField(
        null=True, blank=True, help_text="Tokens a minute; empty: no limit."
    )
    concurrency = models.PositiveIntegerField(
        null=True, blank=True, help_text="Requests at the same time; empty: no limit."
    )
    payload_mode = models.CharField(
        max_length=16, choices=PayloadMode.choices, default=PayloadMode.FULL
    )
    cache_seconds = models.PositiveIntegerField(
        null=True,
        blank=True,
        validators=[MinValueValidator(1), MaxValueValidator(CACHE_SECONDS_MAX)],
        help_text="How old an answer may be that is given again to the same request of this key, "
        "where the model allows it; empty: never.",
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        verbose_name = "API key"
        constraints = [
            models.UniqueConstraint(
                fields=["user"], condition=models.Q(is_default=True), name="api_keys_one_default"
            ),
            models.CheckConstraint(
                condition=models.Q(cap_nanos__isnull=True) | models.Q(cap_nanos__gte=0),
                name="api_keys_cap",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.prefix}…{self.last_four}"

    @property
    def is_locked(self) -> bool:
        """Whether only an administrator can enable the key again."""
        return self.locked_at is not None
