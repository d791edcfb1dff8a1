"""Quotas in the Django admin. Totals change by a transaction, never by editing a number."""

from __future__ import annotations

from typing import Any, Final, cast

from django import forms
from django.contrib import admin
from django.db import models
from django.http import HttpRequest

from apps.audit.admin_pages import ReadOnlyAdmin, SelfRecordedAdmin, adopt, staff_of, usd
from apps.core.admin_fields import IdempotencyKeyField, NanosFormField
from apps.core.admin_forms import ShownForm
from apps.core.languages import translate
from apps.core.money import show_usd
from apps.quotas.allowances import QuotaChanges, change_quota, create_quota, remaining
from apps.quotas.models import RepeatKey, UserQuota
from apps.quotas.repeats import Repeat, make_repeat
from apps.users.models import User

# What may be changed of a quota: the field of the form, and what it is called where it is changed.
_CHANGEABLE: Final = {
    "total": "total_nanos",
    "expires_at": "expires_at",
    "is_active": "is_active",
}


class UserQuotaForm(ShownForm):
    """A quota with its total in dollars."""

    total = NanosFormField(label="Total (USD)")
    reason = forms.CharField(max_length=500, help_text="Why it is given or changed; on record.")
    idempotency_key = IdempotencyKeyField()

    class Meta:
        model = UserQuota
        fields = ("user", "model_group", "expires_at", "is_active")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.pk is not None:
            self.fields["total"].initial = self.instance.total_nanos
            # Twice the same change is one change.
            del self.fields["idempotency_key"]

    def clean_total(self) -> int:
        """Refuse what is no allowance."""
        total: int = self.cleaned_data["total"]
        if total < 0:
            raise forms.ValidationError(translate("A total must not be negative."))
        return total


@admin.register(UserQuota)
class UserQuotaAdmin(SelfRecordedAdmin):
    """Quotas."""

    noun = "quota"
    form = UserQuotaForm
    list_display = (
        "user",
        "model_group",
        usd("total_nanos"),
        "used",
        "left",
        "expires_at",
        "is_active",
    )
    list_select_related = ("user", "model_group", "account")
    list_filter = ("is_active", "model_group", "expires_at")
    search_fields = ("user__username", "user__email", "model_group__name")
    autocomplete_fields = ("user", "model_group")
    ordering = ("-id",)

    @admin.display(description="used")
    def used(self, row: UserQuota) -> str:
        """Show what calls have used."""
        return show_usd(remaining(row).used_nanos)

    @admin.display(description="remaining")
    def left(self, row: UserQuota) -> str:
        """Show what is left."""
        return show_usd(remaining(row).remaining_nanos)

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[UserQuota]:
        """Return the quotas with what their names are made of."""
        rows: models.QuerySet[UserQuota] = super().get_queryset(request)
        return rows.select_related("user", "model_group", "account")

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return the fields; the use of a quota is shown once there is one."""
        if obj is None:
            return ("user", "model_group", "total", "expires_at", "reason", "idempotency_key")
        stored = ("user", "model_group", "total", "used", "left", "expires_at", "is_active")
        return (*stored, "reason", "as_shown")

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Keep a quota with its user and group."""
        return () if obj is None else ("user", "model_group", "used", "left")

    def write(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Give the quota or change what was changed in the form."""
        actor = cast(User, staff_of(request))
        given, reason = form.cleaned_data, form.cleaned_data["reason"]
        if change:
            changed = _CHANGEABLE.keys() & set(form.changed_data)
            made = change_quota(
                quota_id=obj.pk,
                changes=cast(QuotaChanges, {_CHANGEABLE[name]: given[name] for name in changed}),
                actor=actor,
                reason=reason,
                request=request,
            )
            adopt(obj, made)
            return
        made = create_quota(
            user=obj.user,
            model_group=obj.model_group,
            total_nanos=given["total"],
            expires_at=obj.expires_at,
            actor=actor,
            reason=reason,
            repeat=_repeat_of(form, actor),
            request=request,
        )
        adopt(obj, made)

    def find_history(self, row: UserQuota) -> str:
        """Return why the quota must stay."""
        return "has an account with entries and cannot be deleted. Deactivate it."


def _repeat_of(form: UserQuotaForm, actor: User) -> Repeat:
    """Return what makes a form that is sent twice give one quota."""
    given = form.cleaned_data
    ends = given["expires_at"]
    return make_repeat(
        given=str(given["idempotency_key"]),
        action="quota-form",
        actor_id=actor.pk,
        body={
            "user": given["user"].pk,
            "model_group": given["model_group"].pk,
            "total_nanos": given["total"],
            "expires_at": ends.isoformat() if ends is not None else None,
            "reason": given["reason"],
        },
    )


@admin.register(RepeatKey)
class RepeatKeyAdmin(ReadOnlyAdmin):
    """Calls that came with an idempotency key."""

    list_display = ("key", "created_at")
    ordering = ("-id",)
