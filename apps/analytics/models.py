"""Sums of recorded calls, kept so that statistics do not read every call again.

They follow from `APIRequest` and can be made anew: delete all rows of both tables.
"""

from __future__ import annotations

from typing import Final

from django.db import models

# In the place of no provider: a unique constraint takes two nulls for different.
NO_PROVIDER: Final = 0


def _sum() -> models.BigIntegerField[int, int]:
    return models.BigIntegerField()


class Rollup(models.Model):
    """What calls come to that began on one day and were settled on one, by one key of one user, for
    one model at one provider. Days are in UTC, money in nanos; names are recorded ones.
    """

    started_on = models.DateField()
    settled_on = models.DateField()
    user_id = models.BigIntegerField()
    user_name = models.CharField(max_length=150)
    api_key_id = models.BigIntegerField()
    model_id = models.BigIntegerField()
    requested_model = models.CharField(max_length=200)
    provider_id = models.BigIntegerField(help_text="0: no provider was asked.")
    provider_name = models.CharField(max_length=100)
    requests = _sum()
    successes = _sum()
    input_tokens = _sum()
    output_tokens = _sum()
    charge_nanos = _sum()
    cost_nanos = _sum()
    requests_without_cost = _sum()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=[
                    "started_on",
                    "user_id",
                    "api_key_id",
                    "model_id",
                    "provider_id",
                    "settled_on",
                ],
                name="analytics_rollup_unique",
            )
        ]
        indexes = [
            # One user's, one key's and one provider's days; money by the day it was settled.
            models.Index(fields=["user_id", "started_on"], name="analytics_rollup_user"),
            models.Index(fields=["api_key_id", "started_on"], name="analytics_rollup_key"),
            models.Index(fields=["provider_id", "started_on"], name="analytics_rollup_provider"),
            models.Index(fields=["settled_on"], name="analytics_rollup_settled"),
        ]

    def __str__(self) -> str:
        return f"{self.started_on} {self.user_name} {self.requested_model}"


class RolledUp(models.Model):
    """Up to which record of an incarnation's chain its calls are in the rollups."""

    incarnation_id = models.BigIntegerField(primary_key=True)
    sequence = models.BigIntegerField()

    class Meta:
        verbose_name = "rolled-up chain"

    def __str__(self) -> str:
        return f"{self.incarnation_id} #{self.sequence}"
