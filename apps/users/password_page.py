"""The page of the Django admin on which one changes one's own password, as REST does it."""

from __future__ import annotations

from typing import Any, cast

from django.contrib import admin
from django.contrib.admin.forms import AdminPasswordChangeForm
from django.contrib.auth import update_session_auth_hash
from django.contrib.auth.forms import PasswordChangeForm
from django.contrib.auth.views import PasswordChangeView
from django.http import HttpResponse
from django.shortcuts import redirect
from django.urls import reverse_lazy

from apps.core.domain_errors import DomainError
from apps.users.models import User
from apps.users.profile import change_profile


class OwnPasswordForm(AdminPasswordChangeForm):
    """The old password and the new one, twice."""

    def clean_old_password(self) -> str:
        """Return what was typed: checked where wrong ones are counted."""
        return str(self.cleaned_data["old_password"])


class OwnPasswordView(PasswordChangeView):
    """Changes the password, ends one's other sessions and keeps this browser signed in."""

    form_class = OwnPasswordForm
    template_name = "registration/password_change_form.html"
    success_url = reverse_lazy("admin:password_change_done")

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        """Return what the admin's pages show."""
        return {**super().get_context_data(**kwargs), **admin.site.each_context(self.request)}

    def form_valid(self, form: PasswordChangeForm) -> HttpResponse:
        """Change the password, or say why not."""
        try:
            user = change_profile(
                user=cast(User, self.request.user),
                access=None,
                request=self.request,
                current_password=form.cleaned_data["old_password"],
                password=form.cleaned_data["new_password1"],
            )
        except DomainError as error:
            form.add_error("old_password", error.message)
            return self.form_invalid(form)
        update_session_auth_hash(self.request, user)
        return redirect(self.get_success_url())
