"""Recorded calls as files over REST: what both exports, of all calls and of one's own, share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Final

from django.contrib.auth.base_user import AbstractBaseUser
from django.db import transaction
from django.http import HttpRequest, StreamingHttpResponse
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiResponse
from rest_framework import generics, serializers
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request

from apps.audit.events import record_event
from apps.audit.export import CONTENT_TYPES, Ended, begin_export
from apps.audit.models import APIRequest
from apps.core.rest import actor_of

EXPORT_RESPONSES: Final = {
    (200, "text/csv"): OpenApiResponse(
        OpenApiTypes.STR,
        examples=[OpenApiExample("CSV", value="id,model_id\r\n0199c2a4,4\r\n")],
    ),
    (200, "application/x-ndjson"): OpenApiResponse(
        OpenApiTypes.STR,
        examples=[OpenApiExample("JSON lines", value='{"id":"0199c2a4","model_id":4}\n')],
    ),
}


class _ChosenByParameter(BaseContentNegotiation):
    """Lets `format` mean what the file is written in, whatever the client says it accepts."""

    def select_parser(self, request: Request, parsers: Iterable[BaseParser]) -> BaseParser | None:
        """Return the only parser."""
        return next(iter(parsers), None)

    def select_renderer(
        self, request: Request, renderers: Iterable[BaseRenderer], format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        """Return the renderer of refusals."""
        renderer = next(iter(renderers))
        return renderer, renderer.media_type


class ExportView(generics.GenericAPIView[APIRequest]):
    """Writes the calls that pass the filters into a file."""

    content_negotiation_class = _ChosenByParameter
    pagination_class = None
    # A file cannot be asked for its size without being written.
    http_method_names = ("get", "options")
    is_recorded: ClassVar[bool] = False  # of the calls of all, by analysts and administrators
    columns: ClassVar[type[serializers.Serializer[Any]]]

    def stream(self, request: Request) -> StreamingHttpResponse:
        """Return the file as it is written."""
        rows = self.filter_queryset(self.get_queryset())
        format = request.query_params.get("format") or "csv"
        actor = actor_of(request)
        event = _Record(actor, request._request, _given(request), format)
        export = begin_export(
            rows=rows,
            names=list(self.columns().fields),
            format=format,
            user_id=actor.pk,
            with_reserved=self.is_recorded,
            on_begin=event.begin if self.is_recorded else _no_event,
            on_end=event.end if self.is_recorded else _no_event,
        )
        response = StreamingHttpResponse(export, content_type=CONTENT_TYPES[format])
        name = f"requests-{timezone.now():%Y%m%dT%H%M%SZ}.{format}"
        response["Content-Disposition"] = f'attachment; filename="{name}"'
        return response


class _Record:
    """Writes the events of one export: what was asked for, and how much of it went out."""

    def __init__(
        self, actor: AbstractBaseUser, request: HttpRequest, given: dict[str, str], format: str
    ) -> None:
        self._actor = actor
        self._request = request
        self._wanted = {"format": format, "filters": given}
        self._event_id = 0

    def begin(self) -> None:
        """Record that a file is being written."""
        event = record_event(
            actor=self._actor,
            action="requests.exported",
            subject=None,
            after=self._wanted,
            request=self._request,
        )
        self._event_id = event.pk

    def end(self, ended: Ended) -> None:
        """Record how much of it was written."""
        with transaction.atomic():
            record_event(
                actor=self._actor,
                action="requests.export_ended",
                subject=None,
                after={
                    "event": self._event_id,
                    "rows": ended.rows,
                    "is_complete": ended.is_complete,
                },
                request=self._request,
            )


def _no_event(*_: object) -> None:
    """Record nothing: who takes a copy of his own calls is nobody's business."""


def _given(request: Request) -> dict[str, str]:
    return {name: value for name, value in request.query_params.dict().items() if name != "format"}
