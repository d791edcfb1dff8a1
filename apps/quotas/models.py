"""Funded allowances: so much for one user on one group of models, until a date."""

from __future__ import annotations

from django.conf import settings
from django.db import models

from apps.billing.models import Account
from apps.model_groups.models import ModelGroup


class UserQuota(models.Model):
    """An allowance with an account of its own; what is left is posted − held of that account."""

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="quotas"
    )
    model_group = models.ForeignKey(ModelGroup, on_delete=models.PROTECT, related_name="quotas")
    account = models.OneToOneField(Account, on_delete=models.PROTECT, related_name="quota")
    total_nanos = models.BigIntegerField(editable=False)
    expires_at = models.DateTimeField(null=True, blank=True)
    is_active = models.BooleanField(default=True)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=models.Q(total_nanos__gte=0), name="quotas_userquota_total"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.user} on {self.model_group}"


class RepeatKey(models.Model):
    """A call that may come again, by its idempotency key: what it is about and how far it got.

    `subjects` are the users that get a quota, or the quotas that change, in order. `done` are the
    quotas of the first so many of them, 0 for a subject that was gone by then. The model is
    named as its table, which keeps its name.
    """

    key = models.CharField(max_length=150, unique=True)
    digest = models.CharField(max_length=64, help_text="Of the body that came with the key first.")
    subjects = models.JSONField(default=list)
    done = models.JSONField(default=list)
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.key
