"""API keys in the Django admin. A key is shown once, right after it was made."""

from __future__ import annotations

from typing import Any, cast

from django import forms
from django.contrib import admin, messages
from django.http import HttpRequest

from apps.api_keys.changes import KeyChanges, change_key, is_used
from apps.api_keys.issue import NetworkMalformed, check_networks, issue_key
from apps.api_keys.models import APIKey
from apps.api_keys.operations import KEY_OPERATIONS
from apps.audit.admin_pages import SelfRecordedAdmin, adopt, staff_of, usd
from apps.core.admin_fields import LinesFormField
from apps.core.admin_forms import ShownForm
from apps.core.languages import translate

_LIMITS = (
    "expires_at",
    "allowed_models",
    "allowed_networks",
    "allowed_operations",
    "cap_nanos",
    "rpm",
    "tpm",
    "concurrency",
    "payload_mode",
    "cache_seconds",
)


class APIKeyForm(ShownForm):
    """A key with its restrictions."""

    allowed_models = LinesFormField(
        required=False, help_text="Names of models, one a line. Empty: all that the user may call."
    )
    allowed_networks = LinesFormField(
        required=False, help_text="Addresses or networks, one a line. Empty: from anywhere."
    )
    allowed_operations = forms.MultipleChoiceField(
        choices=[(name, name) for name in KEY_OPERATIONS],
        required=False,
        widget=forms.CheckboxSelectMultiple,
        help_text="What the key may be used for. None chosen: everything.",
    )

    class Meta:
        model = APIKey
        fields = ("user", "name", "is_default", "is_active", *_LIMITS)

    def clean_allowed_networks(self) -> list[str]:
        """Refuse what is no network."""
        networks: list[str] = self.cleaned_data["allowed_networks"]
        try:
            check_networks(networks)
        except NetworkMalformed as error:
            raise forms.ValidationError(translate(str(error))) from error
        return networks


@admin.register(APIKey)
class APIKeyAdmin(SelfRecordedAdmin):
    """API keys."""

    noun = "api_key"
    form = APIKeyForm
    list_display = (
        "user",
        "name",
        "shown",
        "is_default",
        "is_active",
        "expires_at",
        usd("cap_nanos"),
        "created_at",
    )
    list_display_links = ("name", "shown")
    list_select_related = ("user",)
    list_filter = ("is_active", "is_default", "payload_mode", "created_at")
    search_fields = ("name", "user__username", "user__email", "=last_four", "prefix")
    autocomplete_fields = ("user",)
    ordering = ("-id",)

    @admin.display(description="key", ordering="prefix")
    def shown(self, row: APIKey) -> str:
        """Show the ends of the key."""
        return str(row)

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return the fields; what only a stored key has comes with it."""
        if obj is None:
            return ("user", "name", "is_default", *_LIMITS)
        about = ("user", "name", "shown", "is_default", "is_active")
        return (*about, *_LIMITS, "created_at", "as_shown")

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Keep a key with its user; the default is changed by resetting it."""
        return () if obj is None else ("user", "shown", "is_default", "created_at")

    def write(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Issue a new key and show it, or change what was changed in the form."""
        actor = staff_of(request)
        if change:
            made = change_key(
                key_id=obj.pk,
                changes=cast(KeyChanges, form.given()),
                actor=actor,
                is_by_owner=False,
                request=request,
            )
            adopt(obj, made)
            return
        made, raw = issue_key(
            user=obj.user,
            name=obj.name,
            is_default=obj.is_default,
            actor=actor,
            request=request,
            **{name: form.cleaned_data[name] for name in _LIMITS},
        )
        adopt(obj, made)
        show_key_once(self, request, raw)

    def find_history(self, row: APIKey) -> str:
        """Return why the key must stay."""
        return "has been used and cannot be deleted. Deactivate it." if is_used(row) else ""


def show_key_once(page: admin.ModelAdmin[Any], request: HttpRequest, raw: str) -> None:
    """Tell a new key in the one message that holds it."""
    page.message_user(
        request, translate("The new API key, shown this once: {}").format(raw), messages.WARNING
    )
