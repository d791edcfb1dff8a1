"""Pages of the Django admin that ask something about one row: a form and a button."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin
from django.db import models
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse

from apps.audit.admin_pages import say_error
from apps.billing.accounts import find_standing
from apps.core.domain_errors import find_error_answer
from apps.core.languages import translate
from apps.core.money import show_usd

if TYPE_CHECKING:
    _ModelAdmin = admin.ModelAdmin[Any]
else:
    # Generic only in the type stubs.
    _ModelAdmin = admin.ModelAdmin


class NothingForm(forms.Form):
    """A question that is answered by its button."""


def ask(
    page: _ModelAdmin,
    request: HttpRequest,
    row: models.Model,
    *,
    title: str,
    customer_id: int,
    form: forms.Form,
    act: Callable[[forms.Form], None],
    about: Mapping[str, str] | None = None,
) -> HttpResponse:
    """Show a form about one row, beside its user's wallet and what else there is to know of it, by
    its labels; when it is sent act and go back to the row.
    """
    if request.method == "POST" and form.is_valid():
        try:
            act(form)
        except Exception as error:
            told = find_error_answer(error)
            if told is None:
                raise
            form.add_error(None, say_error(told))
        else:
            view = f"admin:{page.opts.app_label}_{page.opts.model_name}_change"
            return redirect(reverse(view, args=[row.pk]))
    context = {
        **page.admin_site.each_context(request),
        "title": f"{translate(title)}: {row}",
        "opts": page.opts,
        "original": row,
        "about": {**(about or {}), "Wallet": show_wallet(customer_id)},
        "form": form,
        "button": translate(title),
    }
    return TemplateResponse(request, "admin/users/user/ask.html", context)


def show_wallet(customer_id: int) -> str:
    """Return what a customer has."""
    standing = find_standing(customer_id)
    return translate("balance {}, held {}, available {}").format(
        show_usd(standing.balance_nanos),
        show_usd(standing.held_nanos),
        show_usd(standing.available_nanos),
    )
