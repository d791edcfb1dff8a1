"""Model groups and user groups in the Django admin.

User groups are here and not with users, because what makes and changes them is.
"""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.db import models
from django.http import HttpRequest

from apps.ai_models.models import AIModel
from apps.audit.admin_pages import SelfRecordedAdmin, staff_of, usd
from apps.core.admin_forms import ShownForm
from apps.core.languages import translate
from apps.model_groups.groups import MEMBERS_MAX, change_group, create_group
from apps.model_groups.models import ModelGroup
from apps.model_groups.user_groups import change_user_group, create_user_group
from apps.users.models import UserGroup


class ModelGroupForm(ShownForm):
    """A model group."""

    def clean_models(self) -> models.QuerySet[AIModel]:
        """Refuse more than there may be."""
        return self._bounded("models")

    def clean_user_groups(self) -> models.QuerySet[UserGroup]:
        """Refuse more than there may be."""
        return self._bounded("user_groups")

    def _bounded(self, name: str) -> models.QuerySet[Any]:
        members: models.QuerySet[Any] = self.cleaned_data[name]
        if len(members) > MEMBERS_MAX:
            raise forms.ValidationError(translate("Choose at most {}.").format(MEMBERS_MAX))
        return members


@admin.register(ModelGroup)
class ModelGroupAdmin(SelfRecordedAdmin):
    """Model groups."""

    noun = "model_group"
    form = ModelGroupForm
    list_display = ("name", "model_count", "multiplier", "is_public", "is_active", "created_at")
    list_filter = ("is_public", "is_active", "user_groups")
    search_fields = ("name", "description")
    filter_horizontal = ("models", "user_groups")
    readonly_fields = ("created_at",)
    ordering = ("name",)

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[ModelGroup]:
        """Return the groups with the number of their models."""
        rows: models.QuerySet[ModelGroup] = super().get_queryset(request)
        return rows.annotate(models_counted=models.Count("models", distinct=True))

    @admin.display(description="models", ordering="models_counted")
    def model_count(self, row: ModelGroup) -> int:
        """Show how many models are in it."""
        return int(getattr(row, "models_counted", 0))

    @admin.display(description="multiplier", ordering="multiplier_millionths")
    def multiplier(self, row: ModelGroup) -> str:
        """Show the multiplier as a number."""
        return f"{row.multiplier_millionths / 1_000_000:g}"

    def make_row(self, request: HttpRequest, row: Any, values: dict[str, Any]) -> ModelGroup:
        """Make the group with its members."""
        return create_group(**values, actor=staff_of(request), request=request)

    def change_row(self, request: HttpRequest, row: Any, values: dict[str, Any]) -> ModelGroup:
        """Change the group and its members."""
        links = {name: values.pop(name, None) for name in ("models", "user_groups")}
        return change_group(
            group=row, values=values, **links, actor=staff_of(request), request=request
        )

    def find_history(self, row: ModelGroup) -> str:
        """Return why the group must stay."""
        return "has quotas and cannot be deleted. Deactivate it." if row.quotas.exists() else ""


@admin.register(UserGroup)
class UserGroupAdmin(SelfRecordedAdmin):
    """User groups."""

    noun = "user_group"
    form = ShownForm
    list_display = (
        "name",
        "multiplier",
        "rpm",
        "tpm",
        "concurrency",
        usd("cap_nanos"),
        "created_at",
    )
    list_filter = ("created_at",)
    search_fields = ("name", "description")
    readonly_fields = ("created_at",)
    ordering = ("name",)

    @admin.display(description="multiplier", ordering="multiplier_millionths")
    def multiplier(self, row: UserGroup) -> str:
        """Show the multiplier as a number."""
        return f"{row.multiplier_millionths / 1_000_000:g}"

    def make_row(self, request: HttpRequest, row: Any, values: dict[str, Any]) -> UserGroup:
        """Make the group."""
        return create_user_group(**values, actor=staff_of(request), request=request)

    def change_row(self, request: HttpRequest, row: Any, values: dict[str, Any]) -> UserGroup:
        """Change the group."""
        return change_user_group(group=row, **values, actor=staff_of(request), request=request)

    def find_history(self, row: UserGroup) -> str:
        """Return why the group must stay."""
        return "still has users. Move them to another group first." if row.users.exists() else ""
