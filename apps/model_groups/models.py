"""Which models go together, and which user groups may call them."""

from __future__ import annotations

from django.core.validators import MaxLengthValidator
from django.db import models as db  # the field `models` would shadow the module

from apps.ai_models.models import AIModel
from apps.core.bounds import DESCRIPTION_LENGTH_MAX
from apps.users.models import UserGroup


class ModelGroup(db.Model):
    """Models that are offered together, at a multiple of their prices."""

    name = db.CharField(max_length=100, unique=True)
    description = db.TextField(blank=True, validators=[MaxLengthValidator(DESCRIPTION_LENGTH_MAX)])
    models: db.ManyToManyField[AIModel, db.Model] = db.ManyToManyField(
        AIModel, blank=True, related_name="model_groups"
    )
    user_groups: db.ManyToManyField[UserGroup, db.Model] = db.ManyToManyField(
        UserGroup, blank=True, related_name="model_groups"
    )
    is_public = db.BooleanField(default=False, help_text="Open to every user.")
    multiplier_millionths = db.BigIntegerField(
        default=1_000_000, help_text="1000000 charges the list price."
    )
    is_active = db.BooleanField(default=True)
    created_at = db.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            db.CheckConstraint(
                condition=db.Q(
                    multiplier_millionths__gte=0, multiplier_millionths__lte=1_000_000_000
                ),
                name="model_groups_multiplier",
            ),
        ]

    def __str__(self) -> str:
        return self.name
