"""Where a path of the control plane goes. Every REST path works with and without its last slash."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Final

from django.conf import settings
from django.contrib import admin
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect
from django.urls import URLPattern, URLResolver, include, path, re_path
from django.views import defaults
from django.views.decorators.http import condition, require_safe
from drf_spectacular.views import SpectacularSwaggerSplitView

from apps.core.admin_languages import ScriptTextsView, mark_texts
from apps.core.languages import translate_lazily
from apps.users.password_page import OwnPasswordView

_APPS: Final = (
    "users",
    "providers",
    "ai_models",
    "model_groups",
    "billing",
    "quotas",
    "risk",
    "analytics",
)


def show_front_page(request: HttpRequest) -> HttpResponse:
    """Send people who open the bare address to the administration."""
    return redirect("admin:index")


@require_safe
def show_no_icon(request: HttpRequest) -> HttpResponse:
    """Answer browsers, which ask for an icon by themselves: there is none, and that is no fault."""
    return HttpResponse(status=204, headers={"Cache-Control": "max-age=86400"})


@lru_cache(maxsize=1)
def _read_schema() -> tuple[bytes, str]:
    content = (settings.BASE_DIR / "openapi.json").read_bytes()
    return content, f'"{hashlib.sha256(content).hexdigest()}"'


@condition(etag_func=lambda request: _read_schema()[1])
@require_safe
def show_schema(request: HttpRequest) -> HttpResponse:
    """Return the committed OpenAPI schema: making it anew takes half a second of the processor."""
    return HttpResponse(_read_schema()[0], content_type="application/vnd.oai.openapi+json")


def answer_bad_request(request: HttpRequest, exception: Exception) -> HttpResponseBase:
    """Answer 400 in the shape of the path that was asked for."""
    return _answer(request, 400, "bad_request", "This request cannot be understood.") or (
        defaults.bad_request(request, exception)
    )


def answer_not_found(request: HttpRequest, exception: Exception) -> HttpResponseBase:
    """Answer 404 in the shape of the path that was asked for."""
    return _answer(request, 404, "not_found", "Not found.") or (
        defaults.page_not_found(request, exception)
    )


def answer_server_error(request: HttpRequest) -> HttpResponseBase:
    """Answer 500 in the shape of the path that was asked for."""
    return _answer(request, 500, "server_error", "Something went wrong here.") or (
        defaults.server_error(request)
    )


def _answer(request: HttpRequest, status: int, code: str, detail: str) -> HttpResponse | None:
    if not request.path.startswith("/api/"):
        return None
    return JsonResponse({"detail": detail, "code": code}, status=status)


admin.site.site_header = admin.site.site_title = translate_lazily("Audit and billing gateway")
admin.site.index_title = translate_lazily("Administration")
mark_texts(admin.site)
admin.site.index_template = "admin_index.html"
# There is no other site to view.
admin.site.site_url = None

handler400 = answer_bad_request
handler404 = answer_not_found
handler500 = answer_server_error

_show_script_texts = ScriptTextsView.as_view(packages=["django.contrib.admin"])

urlpatterns: list[URLPattern | URLResolver] = [
    path("", show_front_page),
    path("favicon.ico", show_no_icon),
    *(path("", include(f"apps.{name}.urls")) for name in _APPS),
    re_path(r"^api/schema/?$", show_schema, name="schema"),
    re_path(
        r"^api/docs/?$",
        SpectacularSwaggerSplitView.as_view(template_name="api_docs.html"),
        name="docs",
    ),
    # Before the admin's own page of this path, which knows nothing of sessions and events.
    path("admin/password_change/", admin.site.admin_view(OwnPasswordView.as_view())),
    # Before the admin's own page of this path, too.
    path("admin/jsi18n/", admin.site.admin_view(_show_script_texts, cacheable=True)),
    path("admin/", admin.site.urls),
]
