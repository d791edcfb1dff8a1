"""Providers and their keys in the Django admin. Secrets go in and never come out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from django import forms
from django.contrib import admin, messages
from django.forms.models import BaseInlineFormSet
from django.http import HttpRequest

from apps.audit.admin_pages import SelfRecordedAdmin, adopt, staff_of
from apps.core.admin_fields import FieldsOfForms
from apps.core.admin_forms import ShownForm
from apps.core.languages import translate, translate_lazily
from apps.core.names import NameRefused, check_name
from apps.providers.credentials import (
    KeyRequired,
    SecretMalformed,
    add_key,
    change_key,
    check_secret,
    is_used,
)
from apps.providers.headers import HeadersRefused, check_headers
from apps.providers.health import enable_key
from apps.providers.identities import SECRET_LENGTH_MAX
from apps.providers.models import Provider, ProviderKey
from apps.providers.registration import (
    BaseUrlRefused,
    MovedMeanwhile,
    admit_base_url,
    change_row,
    has_history,
    is_moved,
    leave_keys_behind,
    register,
)

if TYPE_CHECKING:
    _KeyInline = admin.StackedInline[ProviderKey, Provider]
    _KeyFormSet = BaseInlineFormSet[ProviderKey, Provider, forms.ModelForm[ProviderKey]]
else:
    # Generic only in the type stubs.
    _KeyInline = admin.StackedInline
    _KeyFormSet = BaseInlineFormSet


_KEY_STATE = ("last_four", "disabled_at", "disabled_reason", "left_behind_at", "created_at")
_LIMITS: Final = ("rpm", "tpm", "concurrency", "daily_cost_nanos")
_SETTABLE: Final = ("name", "weight", *_LIMITS, "is_active")


class _NamedForm(ShownForm):
    """A form of what has a name."""

    def clean_name(self) -> str:
        """Refuse what does not fit a line of a log."""
        try:
            return check_name(self.cleaned_data["name"])
        except NameRefused as error:
            raise forms.ValidationError(translate(str(error))) from error


class ProviderKeyForm(_NamedForm):
    """A key whose secret can be typed but not read."""

    secret = forms.CharField(
        required=False,
        max_length=SECRET_LENGTH_MAX,
        widget=forms.PasswordInput(
            render_value=False, attrs={"autocomplete": "new-password", "class": "vTextField"}
        ),
        help_text="Stored encrypted and never shown again. Empty: keep the one there is. Where "
        "requests are signed: the JSON of a service account's key, or of an AWS key.",
    )
    enable_again = forms.BooleanField(
        required=False, help_text="Use it once more although it was disabled automatically."
    )

    class Meta:
        model = ProviderKey
        fields = _SETTABLE

    def clean_secret(self) -> str:
        """Require a secret for a new key."""
        secret = str(self.cleaned_data["secret"])
        if not secret and self.instance.pk is None:
            raise forms.ValidationError(translate("A new key needs its secret."))
        return secret

    def check_kind(self, key_header: str) -> None:
        """Refuse a secret that is none of the kind its provider wants."""
        secret = self.cleaned_data.get("secret")
        if secret:
            try:
                check_secret(secret, key_header)
            except SecretMalformed as error:
                self.add_error("secret", translate(str(error)))

    def clean(self) -> dict[str, Any]:
        """Refuse to use a secret again that was typed for another address."""
        values = super().clean() or self.cleaned_data
        # Beside its provider's own form, the formset knows what that is about to become.
        provider = values.get("provider") or (self.instance.pk and self.instance.provider)
        if provider and not self.prefix:
            self.check_kind(provider.key_header)
        is_left_behind = self.instance.left_behind_at is not None and not values.get("secret")
        if values.get("is_active") and is_left_behind:
            self.add_error("secret", translate(KeyRequired.message))
        return values


def save_key(request: HttpRequest, form: Any, *, provider: Provider) -> None:
    """Write a key from its form, through the functions that seal and record."""
    key, actor = form.instance, staff_of(request)
    secret = form.cleaned_data["secret"]
    values = {name: value for name, value in form.given().items() if name in _SETTABLE}
    if key.pk is None:
        made = add_key(provider=provider, secret=secret, actor=actor, request=request, **values)
        adopt(key, made)
        return
    changed = change_key(key=key, values=values, secret=secret, actor=actor, request=request)
    if form.cleaned_data["enable_again"] and changed.disabled_at is not None:
        changed = enable_key(key=changed, actor=actor, request=request)
    adopt(key, changed)


class ProviderKeyFormSet(_KeyFormSet):
    """The keys of a provider, each of the kind that the form beside it says."""

    def clean(self) -> None:
        """Check the secrets that were typed."""
        super().clean()
        for form in self.forms:
            if isinstance(form, ProviderKeyForm) and form.has_changed():
                form.check_kind(self.instance.key_header)


class ProviderKeyInline(FieldsOfForms, _KeyInline):
    """The keys of a provider, below each other: side by side they are wider than a screen."""

    model = ProviderKey
    form = ProviderKeyForm
    formset = ProviderKeyFormSet
    fields = (
        *("name", "secret", "last_four", "weight", *_LIMITS, "is_active", "enable_again"),
        *("disabled_at", "disabled_reason", "left_behind_at", "created_at", "as_shown"),
    )
    readonly_fields = _KEY_STATE
    extra = 0
    # Deleting is left to the key's own page, which asks whether it has been used.
    can_delete = False
    show_change_link = True


class ProviderForm(_NamedForm):
    """A provider whose address is one the gateway may connect to."""

    class Meta:
        model = Provider
        fields = "__all__"
        help_texts = {
            "base_url": translate_lazily(
                "For example https://api.openai.com/v1. Must be public, unless PRIVATE_UPSTREAMS "
                "names it."
            )
        }

    def clean_headers(self) -> dict[str, str]:
        """Refuse headers that must not be set."""
        try:
            return check_headers(self.cleaned_data["headers"] or {})
        except HeadersRefused as error:
            raise forms.ValidationError(translate(str(error))) from error

    # Whose form this is; set on the class that the admin makes for each request.
    request: HttpRequest

    def clean_base_url(self) -> str:
        """Refuse addresses that the gateway must not connect to."""
        base_url = str(self.cleaned_data["base_url"])
        if "base_url" not in self.changed_data:
            return base_url
        try:
            admit_base_url(base_url, actor=staff_of(self.request), request=self.request)
        except BaseUrlRefused as error:
            raise forms.ValidationError(translate(str(error))) from error
        return base_url


@admin.register(Provider)
class ProviderAdmin(SelfRecordedAdmin):
    """Providers."""

    noun = "provider"
    form = ProviderForm
    inlines = (ProviderKeyInline,)
    list_display = ("name", "base_url", "dialect", "priority", "weight", "is_active", "created_at")
    list_filter = ("is_active", "dialect", "payload_mode")
    search_fields = ("name", "base_url")
    readonly_fields = ("created_at", "updated_at")
    ordering = ("name",)

    def get_form(
        self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any
    ) -> Any:
        """Return the form's class, which knows who asks."""
        form: Any = super().get_form(request, obj, change, **kwargs)
        form.request = request
        return form

    def write(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Write the provider, remembering whether it moved away from its keys."""
        values, actor = form.given(), staff_of(request)
        if change:
            made, form.is_move = change_row(
                provider=obj, values=values, actor=actor, request=request
            )
        else:
            made, form.is_move = register(values=values, actor=actor, request=request), False
        adopt(obj, made)

    def save_formset(self, request: HttpRequest, form: Any, formset: Any, change: bool) -> None:
        """Write the keys, remembering whose secret was typed.

        Raises MovedMeanwhile where that was for another place than the provider's.
        """
        # Fills the lists that the admin describes the change with; nothing is saved by it.
        formset.save(commit=False)
        form.retyped_ids = []
        for key_form in formset.forms:
            if key_form.has_changed():
                if key_form.cleaned_data["secret"] and is_moved(form.instance, form.seen()):
                    raise MovedMeanwhile
                save_key(request, key_form, provider=form.instance)
                if key_form.cleaned_data["secret"]:
                    form.retyped_ids.append(key_form.instance.pk)

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        """Save keys; after a move to another address only keys typed anew stay active."""
        super().save_related(request, form, formsets, change)
        if not form.is_move:
            return
        count = leave_keys_behind(
            provider=form.instance,
            except_ids=getattr(form, "retyped_ids", []),
            actor=staff_of(request),
            request=request,
        )
        if count:
            self.message_user(
                request,
                translate(
                    "The provider moved to another address or way of signing: its stored keys were "
                    "deactivated. Type the secret again to use a key there."
                ),
                messages.WARNING,
            )

    def find_history(self, row: Provider) -> str:
        """Return why the provider must stay."""
        if has_history(row):
            return "has routes or history and cannot be deleted. Deactivate it."
        return ""


@admin.register(ProviderKey)
class ProviderKeyAdmin(SelfRecordedAdmin):
    """Keys of providers."""

    noun = "provider_key"
    form = ProviderKeyForm
    fields = (
        "provider",
        "name",
        "secret",
        "last_four",
        "weight",
        *_LIMITS,
        "is_active",
        "enable_again",
        "disabled_at",
        "disabled_reason",
        "next_check_at",
        "left_behind_at",
        "created_at",
        "as_shown",
    )
    list_display = (
        *("provider", "name", "shown", "weight", "is_active"),
        *("disabled_at", "disabled_reason", "created_at"),
    )
    list_display_links = ("provider", "shown")
    list_select_related = ("provider",)
    list_filter = ("is_active", "disabled_reason", "provider")
    search_fields = ("provider__name", "name", "=last_four")
    ordering = ("provider__name", "id")

    @admin.display(description="secret", ordering="last_four")
    def shown(self, row: ProviderKey) -> str:
        """Show the last four characters."""
        return f"…{row.last_four}"

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Keep a key with its provider: elsewhere its secret would go to somebody else."""
        fixed = (*_KEY_STATE, "next_check_at")
        return fixed if obj is None else ("provider", *fixed)

    def write(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Write the key."""
        save_key(request, form, provider=obj.provider)

    def find_history(self, row: ProviderKey) -> str:
        """Return why the key must stay."""
        return "has been used and cannot be deleted. Deactivate it." if is_used(row) else ""
