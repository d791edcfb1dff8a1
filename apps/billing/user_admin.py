"""Users in the Django admin: made with their accounts; money moves only by an adjustment.

What may be changed, by whom, and what ends with it, is decided where REST has it decided.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from django import forms
from django.contrib import admin, messages
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.forms import AdminUserCreationForm, SetPasswordForm
from django.core.exceptions import PermissionDenied
from django.db import models
from django.http import Http404, HttpRequest, HttpResponse, QueryDict
from django.urls import URLPattern, path
from django.utils import timezone
from django.utils.decorators import method_decorator
from django.views.decorators.debug import sensitive_post_parameters

from apps.api_keys.admin import show_key_once
from apps.api_keys.issue import reset_default_key
from apps.audit.admin_pages import SelfRecordedAdmin, adopt, staff_of, usd
from apps.billing.adjustments import NoSuchEntry, check_corrected
from apps.billing.admin_questions import NothingForm, ask, show_wallet
from apps.billing.budgets import budget_of_user, find_uses
from apps.billing.customers import adjust_user_balance, create_user
from apps.billing.models import AccountKind, ProposedAdjustment
from apps.core.admin_fields import IdempotencyKeyField, NanosFormField
from apps.core.admin_forms import ShownForm
from apps.core.filters import ID_MAX
from apps.core.languages import translate, translate_lazily
from apps.core.money import show_usd
from apps.users.changes import UserChanges, change_user, end_all_sessions
from apps.users.models import User
from apps.users.names import UsernameAmbiguous, clean_names

if TYPE_CHECKING:
    _NewUserForm = AdminUserCreationForm[User]
    _DjangoUserAdmin = DjangoUserAdmin[User]
else:
    # Generic only in the type stubs.
    _NewUserForm = AdminUserCreationForm
    _DjangoUserAdmin = DjangoUserAdmin

_LIMITS = (
    *("rpm", "tpm", "concurrency"),
    *("cap_nanos", "daily_budget_nanos", "monthly_budget_nanos"),
)
_PERSON = ("username", "email", "name", "role", "user_group")


class NewUserForm(_NewUserForm):
    """A new user with a password."""

    class Meta:
        model = User
        fields = _PERSON

    def clean(self) -> dict[str, Any]:
        """Return the values with the names as they are compared."""
        return _with_clean_names(self, super().clean())

    def set_password_and_save(self, user: User, *_: Any, **__: Any) -> User:
        """Leave the password to `create_user`, which would else hash it a second time."""
        return user


class UserForm(ShownForm):
    """What may be changed of a user. The password has its own page, money its own form."""

    class Meta:
        model = User
        fields = (*_PERSON, *_LIMITS, "is_active", "is_superuser")
        labels = {"is_superuser": translate_lazily("May use this administration")}
        help_texts = {
            "is_superuser": translate_lazily("Only for the role admin; another role takes it away.")
        }

    def clean(self) -> dict[str, Any]:
        """Return the values with the names as they are compared."""
        return _with_clean_names(self, super().clean())


def _with_clean_names(form: forms.BaseForm, values: dict[str, Any] | None) -> dict[str, Any]:
    """Return the values with user name and address normalised, or say why they cannot be."""
    values = values or {}
    if {"username", "email"} <= values.keys():
        try:
            values["username"], values["email"] = clean_names(
                username=values["username"], email=values["email"]
            )
        except UsernameAmbiguous as error:
            form.add_error("username", translate(error.message))
    return values


class AdjustmentForm(forms.Form):
    """Money given or taken, and why."""

    amount = NanosFormField(
        label=translate_lazily("Amount (USD)"),
        help_text=translate_lazily("Negative takes money back."),
    )
    reason = forms.CharField(
        label=translate_lazily("Reason"),
        max_length=500,
        help_text=translate_lazily("On record with the transaction."),
    )
    corrects = forms.IntegerField(
        label=translate_lazily("Corrects entry"),
        min_value=1,
        max_value=ID_MAX,
        required=False,
        help_text=translate_lazily(
            "An entry on the user's own accounts that was wrong, by its id. Empty: none."
        ),
    )
    idempotency_key = IdempotencyKeyField()

    def __init__(self, user: User, data: QueryDict | None) -> None:
        super().__init__(data)
        self._customer_id = user.customer_id

    def clean_corrects(self) -> int | None:
        """Refuse what is no entry of this user."""
        corrects_id: int | None = self.cleaned_data["corrects"]
        if corrects_id is not None:
            try:
                check_corrected(customer_id=self._customer_id, corrects_id=corrects_id)
            except NoSuchEntry as error:
                raise forms.ValidationError(translate(error.message)) from error
        return corrects_id


def _about_nobody(form_class: type[forms.Form]) -> Callable[[User, QueryDict | None], forms.Form]:
    """Return what makes a form that is the same for all users."""
    return lambda _, data: form_class(data)


def _admin(request: HttpRequest) -> User:
    return cast(User, staff_of(request))


class _AddedByThemselves(_DjangoUserAdmin):
    """Django's pages of users, without its transaction around the form of a new one.

    `create_user` has one of its own and hashes the password before: no lock waits for a hash.
    """

    @method_decorator(sensitive_post_parameters())
    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show the form of a new user, or make the user."""
        page: Any = self  # The stubs do not know it.
        answer: HttpResponse = page._add_view(request, form_url, extra_context)
        return answer

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Show or save one row."""
        if object_id is not None:
            return super().changeform_view(request, object_id, form_url, extra_context)
        page: Any = self  # As above.
        answer: HttpResponse = page._changeform_view(request, object_id, form_url, extra_context)
        return answer


@admin.register(User)
class UserAdmin(SelfRecordedAdmin, _AddedByThemselves):
    """Users."""

    noun = "user"
    form = UserForm
    add_form = NewUserForm
    add_form_template = "admin/users/user/add_form.html"
    change_form_template = "admin/users/user/change_form.html"
    list_display = (
        "username",
        "email",
        "name",
        "role",
        "user_group",
        usd("balance_nanos", "balance"),
        "is_active",
        "date_joined",
    )
    list_select_related = ("user_group",)
    list_filter = ("role", "is_active", "is_superuser", "user_group", "date_joined")
    search_fields = ("username", "email", "name")
    readonly_fields = ("wallet", "spent", "customer", "last_login", "date_joined")
    filter_horizontal = ()
    ordering = ("-id",)
    fieldsets = (
        (None, {"fields": (*_PERSON, "is_active", "is_superuser", "as_shown")}),
        ("Money", {"fields": ("wallet", "customer")}),
        ("Limits", {"fields": (*_LIMITS, "spent")}),
        ("Dates", {"fields": ("last_login", "date_joined")}),
    )
    add_fieldsets = ((None, {"fields": (*_PERSON, "usable_password", "password1", "password2")}),)

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[User]:
        """Return the users with their balances."""
        rows: models.QuerySet[User] = super().get_queryset(request)
        kinds = [AccountKind.WALLET, AccountKind.RECEIVABLE]
        return rows.select_related("user_group", "customer").annotate(
            balance_nanos=models.Sum(
                "customer__accounts__posted_nanos",
                filter=models.Q(customer__accounts__kind__in=kinds),
                default=0,
            )
        )

    @admin.display(description="wallet")
    def wallet(self, row: User) -> str:
        """Show what the user has."""
        return show_wallet(row.customer_id)

    @admin.display(description="spent of the budgets")
    def spent(self, row: User) -> str:
        """Show what the user has spent in the day and the month that run."""
        uses = find_uses(budget_of_user(row), now=timezone.now())
        told = [
            translate(text).format(show_usd(use.spent_nanos), show_usd(use.budget_nanos))
            for use, text in ((uses.day, "{} of {} today"), (uses.month, "{} of {} this month"))
            if use is not None
        ]
        return ", ".join(told) or translate("no budgets")

    def write(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Make the user with accounts, or change what was changed in the form."""
        if change:
            given = {name: form.cleaned_data[name] for name in form.changed_data}
            changes = cast(UserChanges, given)
            adopt(obj, change_user(user=obj, actor=_admin(request), request=request, **changes))
            return
        given = form.cleaned_data
        made = create_user(
            **{name: given[name] for name in _PERSON},
            password=given["password1"] if given["set_usable_password"] else None,
            actor=staff_of(request),
            request=request,
        )
        adopt(obj, made)

    def find_history(self, row: User) -> str:
        """Return why the user must stay."""
        return "owns accounts and cannot be deleted. Deactivate the user instead."

    def user_change_password(
        self, request: HttpRequest, id: str, form_url: str = ""
    ) -> HttpResponse:
        """Set the password of somebody else; one's own has a page that asks for the old one."""

        def act(user: User, form: forms.Form) -> None:
            password = form.cleaned_data["new_password1"]
            change_user(user=user, actor=_admin(request), request=request, password=password)
            self.message_user(request, translate("The password is set."), messages.SUCCESS)

        return self._ask(request, id, "Set password", SetPasswordForm, act)

    def get_urls(self) -> list[URLPattern]:
        """Add the pages of what can be done for a user."""
        pages = {
            "adjust-balance": self.adjust_balance,
            "reset-key": self.reset_key,
            "end-sessions": self.end_sessions,
        }
        mine = [
            path(
                f"<id>/{name}/",
                self.admin_site.admin_view(view),
                name=f"users_user_{name.replace('-', '_')}",
            )
            for name, view in pages.items()
        ]
        return [*mine, *super().get_urls()]

    def adjust_balance(self, request: HttpRequest, id: str) -> HttpResponse:
        """Give money to a user or take it back, once for each time that the form is opened."""

        def act(user: User, form: forms.Form) -> None:
            done = adjust_user_balance(
                user=user,
                amount_nanos=form.cleaned_data["amount"],
                reason=form.cleaned_data["reason"],
                corrects_id=form.cleaned_data["corrects"],
                actor=_admin(request),
                idempotency_key=str(form.cleaned_data["idempotency_key"]),
                request=request,
            )
            if isinstance(done, ProposedAdjustment):
                waits = translate("Nothing is moved yet: this waits for a second administrator.")
                self.message_user(request, waits, messages.WARNING)
                return
            amount = show_usd(form.cleaned_data["amount"])
            self.message_user(
                request, translate("Adjusted by {}.").format(amount), messages.SUCCESS
            )

        return self._ask(request, id, "Adjust balance", AdjustmentForm, act)

    def reset_key(self, request: HttpRequest, id: str) -> HttpResponse:
        """Replace the user's default key and show the new one."""

        def act(user: User, form: forms.Form) -> None:
            _, raw = reset_default_key(user=user, actor=staff_of(request), request=request)
            show_key_once(self, request, raw)

        return self._ask(request, id, "Reset default API key", _about_nobody(NothingForm), act)

    def end_sessions(self, request: HttpRequest, id: str) -> HttpResponse:
        """Sign the user out everywhere, over REST and here."""

        def act(user: User, form: forms.Form) -> None:
            count = end_all_sessions(user=user, actor=_admin(request), request=request)
            self.message_user(
                request, translate("Ended {} sessions.").format(count), messages.SUCCESS
            )

        return self._ask(request, id, "Sign out everywhere", _about_nobody(NothingForm), act)

    def _ask(
        self,
        request: HttpRequest,
        id: str,
        title: str,
        make_form: Callable[[User, QueryDict | None], forms.Form],
        act: Callable[[User, forms.Form], None],
    ) -> HttpResponse:
        """Show a form about one user and, when it is sent, act and go back to the user."""
        user = self.get_object(request, id)
        if user is None:
            raise Http404
        if not self.has_change_permission(request, user):
            raise PermissionDenied
        return ask(
            self,
            request,
            user,
            title=title,
            customer_id=user.customer_id,
            form=make_form(user, request.POST or None),
            act=lambda form: act(user, form),
        )
