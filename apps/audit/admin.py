"""History in the Django admin: to be looked at, never to be changed."""

from __future__ import annotations

import json
import uuid
from typing import Any

import zstandard
from django.conf import settings
from django.contrib import admin
from django.db import models, transaction
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from apps.audit.admin_pages import ReadOnlyAdmin, staff_of, usd
from apps.audit.events import record_event
from apps.audit.models import (
    AdminEvent,
    APIRequest,
    Attempt,
    CallKey,
    Payload,
    RefusalCount,
    StoredAnswer,
)
from apps.audit.payloads import open_body
from apps.core.languages import translate


def _find_by_uuid(
    rows: models.QuerySet[Any], term: str, uuid_field: str, text_fields: tuple[str, ...]
) -> models.QuerySet[Any]:
    """Return rows with this id, or with exactly this text: nothing that has to scan."""
    try:
        return rows.filter(**{uuid_field: uuid.UUID(term.strip())})
    except ValueError:
        matches = models.Q()
        for name in text_fields:
            matches |= models.Q(**{name: term.strip()})
        return rows.filter(matches) if text_fields else rows.none()


class _FoundById(ReadOnlyAdmin):
    uuid_field = "id"
    text_fields: tuple[str, ...] = ()

    def get_search_results(
        self, request: HttpRequest, queryset: models.QuerySet[Any], search_term: str
    ) -> tuple[models.QuerySet[Any], bool]:
        """Find rows by their id or an exact name."""
        if not search_term:
            return queryset, False
        term = search_term.replace("\x00", "")
        return _find_by_uuid(queryset, term, self.uuid_field, self.text_fields), False


@admin.register(APIRequest)
class APIRequestAdmin(_FoundById):
    """Calls."""

    list_display = (
        "started_at",
        "user_name",
        "api_key_name",
        "requested_model",
        "provider_name",
        "state",
        "status_code",
        "input_tokens",
        "output_tokens",
        usd("charge_nanos"),
        "duration_ms",
        "id",
    )
    list_display_links = ("started_at", "id")
    list_filter = ("state", "is_stream", "usage_source", "is_usage_suspect", "started_at")
    search_fields = ("id",)
    search_help_text = "Request id, or exactly the user, key, model or provider."
    text_fields = ("user_name", "api_key_name", "requested_model", "provider_name")
    ordering = ("-started_at", "-id")
    readonly_fields = ("attempts", "bodies")

    @admin.display(description="attempts")
    def attempts(self, row: APIRequest) -> SafeString:
        """Link to the tries at providers."""
        page = reverse("admin:audit_attempt_changelist")
        return format_html('<a href="{}?q={}">{}</a>', page, row.pk, translate("show"))

    @admin.display(description="bodies")
    def bodies(self, row: APIRequest) -> SafeString | str:
        """Link to the payload; opening it is recorded."""
        if not Payload.objects.filter(pk=row.pk).exists():
            return translate("not kept")
        page = reverse("admin:audit_payload_change", args=[row.pk])
        return format_html('<a href="{}">{}</a>', page, translate("show (is recorded)"))


@admin.register(Attempt)
class AttemptAdmin(_FoundById):
    """Tries at providers."""

    list_display = (
        "started_at",
        "request_id",
        "number",
        "provider_name",
        "upstream_model",
        "status_code",
        "outcome",
        usd("cost_nanos"),
        "duration_ms",
    )
    # Not by outcome: which ones there are would be looked for in the whole history.
    list_filter = ("started_at",)
    search_fields = ("request_id",)
    search_help_text = "Request id, or exactly the provider, upstream model or outcome."
    uuid_field = "request_id"
    text_fields = ("provider_name", "upstream_model", "outcome")
    ordering = ("-id",)


@admin.register(Payload)
class PayloadAdmin(_FoundById):
    """Bodies of calls. Looking at one is recorded."""

    list_display = ("request_id", "is_request_truncated", "is_response_truncated")
    list_filter = ("is_request_truncated", "is_response_truncated")
    search_fields = ("request_id",)
    search_help_text = "Request id."
    uuid_field = "request_id"
    ordering = ("-request_id",)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return whether this person may look: nobody may where the deployment says so."""
        is_open = settings.PAYLOAD_READERS != "nobody"
        return is_open and super().has_view_permission(request, obj)

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[Payload]:
        """Return the rows; a list never reads the bodies."""
        rows: models.QuerySet[Payload] = super().get_queryset(request)
        return rows.defer("request_body", "response_body", "salt")

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return the bodies in clear."""
        return (*self.list_display, "request_text", "response_text")

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Show the bodies and record who looked."""
        if request.method not in ("GET", "HEAD", "POST"):
            # Django would show the page all the same, and nobody would know.
            return HttpResponseNotAllowed(["GET", "HEAD", "POST"])
        with transaction.atomic():
            row = self.get_object(request, object_id)
            is_shown = request.method in ("GET", "HEAD") and self.has_view_permission(request, row)
            if row is not None and is_shown:
                record_event(
                    actor=staff_of(request), action="payload.read", subject=row, request=request
                )
        return super().change_view(request, object_id, form_url, extra_context)

    @admin.display(description="request")
    def request_text(self, row: Payload) -> SafeString:
        """Show what the client sent."""
        return _show_text(read_body(row.request_body))

    @admin.display(description="response")
    def response_text(self, row: Payload) -> SafeString:
        """Show what the client got."""
        return _show_text(read_body(row.response_body))


def read_body(compressed: bytes | memoryview) -> str:
    """Return a stored body as text; a damaged one says so."""
    try:
        return open_body(bytes(compressed)).decode("utf-8", "replace")
    except zstandard.ZstdError:
        return "(damaged)"


@admin.register(CallKey)
class CallKeyAdmin(_FoundById):
    """Calls that came with an idempotency key; never the key or the answer."""

    list_display = ("request_id", "user_id", "status_code", "created_at", "expires_at")
    fields = readonly_fields = list_display
    search_fields = ("request_id",)
    search_help_text = "Request id."
    uuid_field = "request_id"
    ordering = ("-request_id",)

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[CallKey]:
        """Return the rows without what nobody is to see."""
        rows: models.QuerySet[CallKey] = super().get_queryset(request)
        return rows.defer("digest", "fingerprint", "headers", "body")

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return what is shown."""
        return self.list_display


@admin.register(StoredAnswer)
class StoredAnswerAdmin(ReadOnlyAdmin):
    """Answers, and items of them, that providers keep for users."""

    list_display = (
        *("id", "user_id", "provider_id", "provider_key_id", "model_id"),
        *("created_at", "expires_at"),
    )
    search_fields = ("=user_id", "=provider_id", "=provider_key_id")
    ordering = ("-id",)


@admin.register(AdminEvent)
class AdminEventAdmin(ReadOnlyAdmin):
    """Who did what."""

    list_display = (
        "created_at",
        "actor_name",
        "action",
        "object_type",
        "object_name",
        "reason",
        "ip_address",
    )
    list_filter = ("action", "object_type", "created_at")
    search_fields = ("=actor_name", "=action", "=object_id", "object_name")
    search_help_text = "Actor, action or object id exactly, or a part of the object's name."
    ordering = ("-created_at", "-id")

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return every column, the values before and after laid out."""
        shown = {"before": "values_before", "after": "values_after"}
        names = [field.name for field in self.opts.concrete_fields]
        return [shown.get(name, name) for name in names]

    @admin.display(description="before")
    def values_before(self, row: AdminEvent) -> SafeString:
        """Show the values before."""
        return _show_json(row.before)

    @admin.display(description="after")
    def values_after(self, row: AdminEvent) -> SafeString:
        """Show the values after."""
        return _show_json(row.after)


@admin.register(RefusalCount)
class RefusalCountAdmin(ReadOnlyAdmin):
    """Refused calls, counted."""

    list_display = ("minute", "api_key_id", "code", "count")
    list_filter = ("minute",)
    search_fields = ("=code", "=api_key_id")
    ordering = ("-minute", "-id")


def _show_json(value: Any) -> SafeString:
    if value is None:
        return format_html("{}", "–")
    return _show_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False))


def _show_text(text: str) -> SafeString:
    return format_html("<pre>{}</pre>", text)
