"""Adjustments that want a second administrator, in the Django admin, by the rules of REST."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from apps.audit.admin_pages import ReadOnlyAdmin, staff_of, usd
from apps.billing.admin_questions import NothingForm, ask
from apps.billing.models import ProposalStatus, ProposedAdjustment
from apps.billing.proposals import approve_adjustment, reject_adjustment, withdraw_adjustment
from apps.core.languages import translate, translate_lazily
from apps.users.models import User

_VIEW = "billing_proposedadjustment"


class RejectionForm(forms.Form):
    """Why an adjustment is not to be."""

    reason = forms.CharField(label=translate_lazily("Reason"), max_length=500)


@admin.register(ProposedAdjustment)
class ProposedAdjustmentAdmin(ReadOnlyAdmin):
    """Adjustments beyond what their administrator may move alone."""

    change_form_template = "admin/billing/proposedadjustment/change_form.html"
    list_display = (
        *("requested_at", "user", usd("amount_nanos"), "reason", "requested_by", "status"),
        *("decided_by", "decision"),
    )
    list_select_related = ("user", "requested_by", "decided_by")
    list_filter = ("status", "requested_at")
    search_fields = ("=user__username", "=requested_by__username")
    search_help_text = "Exactly the name of the user or of who asked for it."
    ordering = ("-id",)

    @admin.display(description="decision")
    def decision(self, row: ProposedAdjustment) -> SafeString | str:
        """Offer what can be decided."""
        if row.status != ProposalStatus.PENDING:
            return "–"
        return format_html(
            '<a href="{}">{}</a> · <a href="{}">{}</a>',
            reverse(f"admin:{_VIEW}_approve", args=[row.pk]),
            translate("Approve"),
            reverse(f"admin:{_VIEW}_reject", args=[row.pk]),
            translate("Reject"),
        )

    def get_urls(self) -> list[URLPattern]:
        """Add the pages of what can be decided."""
        pages = {"approve": self.approve, "reject": self.reject, "withdraw": self.withdraw}
        mine = [
            path(f"<id>/{name}/", self.admin_site.admin_view(view), name=f"{_VIEW}_{name}")
            for name, view in pages.items()
        ]
        return [*mine, *super().get_urls()]

    def approve(self, request: HttpRequest, id: str) -> HttpResponse:
        """Post what another administrator proposed."""

        def act(row: ProposedAdjustment, form: forms.Form) -> None:
            approve_adjustment(proposal=row, actor=_admin(request), request=request)
            self.message_user(request, translate("The adjustment is posted."), messages.SUCCESS)

        return self._ask(request, id, "Approve", NothingForm, act)

    def reject(self, request: HttpRequest, id: str) -> HttpResponse:
        """Refuse what another administrator proposed."""

        def act(row: ProposedAdjustment, form: forms.Form) -> None:
            reason = form.cleaned_data["reason"]
            reject_adjustment(proposal=row, actor=_admin(request), reason=reason, request=request)
            self.message_user(request, translate("The adjustment is rejected."), messages.SUCCESS)

        return self._ask(request, id, "Reject", RejectionForm, act)

    def withdraw(self, request: HttpRequest, id: str) -> HttpResponse:
        """Take back what one has proposed oneself."""

        def act(row: ProposedAdjustment, form: forms.Form) -> None:
            withdraw_adjustment(proposal=row, actor=_admin(request), request=request)
            self.message_user(request, translate("The adjustment is withdrawn."), messages.SUCCESS)

        return self._ask(request, id, "Withdraw", NothingForm, act)

    def _ask(
        self,
        request: HttpRequest,
        id: str,
        title: str,
        form_class: type[forms.Form],
        act: Callable[[ProposedAdjustment, forms.Form], None],
    ) -> HttpResponse:
        row = self.get_object(request, id)
        if row is None:
            raise Http404
        if not self.has_view_permission(request, row):
            raise PermissionDenied
        return ask(
            self,
            request,
            row,
            title=title,
            customer_id=row.user.customer_id,
            form=form_class(request.POST or None),
            act=lambda form: act(row, form),
            about={
                "Requested by": str(row.requested_by),
                "Reason": row.reason,
                "Corrects entry": str(row.corrects_id or "–"),
            },
        )


def _admin(request: HttpRequest) -> User:
    return cast(User, staff_of(request))
