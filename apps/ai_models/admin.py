"""Models, routes and prices in the Django admin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin
from django.db import models
from django.http import HttpRequest

from apps.ai_models.capabilities import CapabilitiesRefused, check_capabilities
from apps.ai_models.catalogue import change_model, create_model, set_price
from apps.ai_models.models import AIModel, PriceVersion, Route
from apps.ai_models.overrides import OverridesRefused, check_overrides
from apps.ai_models.prices import PRICE_NANOS_MAX
from apps.ai_models.removal import is_route_used
from apps.ai_models.routes import change_route, create_route
from apps.ai_models.traces import look_for_model
from apps.audit.admin_pages import SelfRecordedAdmin, adopt, readable, staff_of, usd
from apps.core.admin_forms import ShownForm
from apps.core.languages import translate, translate_lazily
from apps.core.money import format_usd
from apps.core.names import NameRefused, check_model_name, check_parameter_name
from apps.core.price_terms import REQUEST, TermsInvalid, check_terms, parse_terms, show_terms
from apps.core.usage import COUNTS, TOKEN_CLASSES

if TYPE_CHECKING:
    _ModelForm = forms.ModelForm[Any]
else:
    # Generic only in the type stubs.
    _ModelForm = forms.ModelForm


class AIModelForm(ShownForm):
    """A model."""

    def clean_name(self) -> str:
        """Refuse what clients could not write."""
        try:
            return check_model_name(self.cleaned_data["name"])
        except NameRefused as error:
            raise forms.ValidationError(translate(str(error))) from error

    def clean_capabilities(self) -> dict[str, Any]:
        """Refuse what no database could keep."""
        try:
            return check_capabilities(self.cleaned_data["capabilities"] or {})
        except CapabilitiesRefused as error:
            raise forms.ValidationError(translate(str(error))) from error


@admin.register(AIModel)
class AIModelAdmin(SelfRecordedAdmin):
    """Models."""

    noun = "model"
    form = AIModelForm
    list_display = (
        "name",
        "display_name",
        "context_length",
        "max_output_tokens",
        "position",
        "is_active",
        "created_at",
    )
    list_filter = ("is_active", "strategy", "is_sticky", "created_at")
    search_fields = ("name", "display_name")
    readonly_fields = ("created_at", "updated_at")
    ordering = ("position", "name")

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return what is only shown: the name of a model that has been called is, too."""
        names = super().get_readonly_fields(request, obj)
        return (*names, "name") if obj is not None and look_for_model(obj).is_called() else names

    def make_row(self, request: HttpRequest, row: Any, values: dict[str, Any]) -> AIModel:
        """Make the model."""
        return create_model(**values, actor=staff_of(request), request=request)

    def change_row(self, request: HttpRequest, row: Any, values: dict[str, Any]) -> AIModel:
        """Change the model."""
        return change_model(model=row, values=values, actor=staff_of(request), request=request)

    def find_history(self, row: AIModel) -> str:
        """Return why the model must stay."""
        if row.price_versions.exists() or row.routes.exists() or look_for_model(row).is_called():
            return "has prices, routes or calls and cannot be deleted. Deactivate it."
        return ""


class RouteForm(ShownForm):
    """A route."""

    def clean_max_tokens_parameter(self) -> str:
        """Refuse what is no name of a parameter."""
        name: str = self.cleaned_data["max_tokens_parameter"]
        try:
            return check_parameter_name(name) if name else name
        except NameRefused as error:
            raise forms.ValidationError(translate(str(error))) from error

    def clean_overrides(self) -> dict[str, Any]:
        """Refuse changes of what decides about money, or of where a request goes."""
        try:
            return check_overrides(self.cleaned_data["overrides"] or {})
        except OverridesRefused as error:
            raise forms.ValidationError(translate(str(error))) from error


@admin.register(Route)
class RouteAdmin(SelfRecordedAdmin):
    """Routes."""

    noun = "route"
    form = RouteForm
    list_display = ("model", "provider", "upstream_name", "priority", "weight", "is_active")
    list_display_links = ("model", "upstream_name")
    list_select_related = ("model", "provider")
    list_filter = ("is_active", "provider")
    search_fields = ("model__name", "provider__name", "upstream_name")
    autocomplete_fields = ("model", "provider")
    readonly_fields = ("created_at",)
    ordering = ("model__name", "priority", "id")

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return what is only shown: the ends of a route that has been used are, too."""
        names = super().get_readonly_fields(request, obj)
        is_used = obj is not None and is_route_used(obj)
        return (*names, "model", "provider") if is_used else names

    def make_row(self, request: HttpRequest, row: Any, values: dict[str, Any]) -> Route:
        """Make the route."""
        ends = {name: values.pop(name) for name in ("model", "provider", "upstream_name")}
        return create_route(**ends, values=values, actor=staff_of(request), request=request)

    def change_row(self, request: HttpRequest, row: Any, values: dict[str, Any]) -> Route:
        """Change the route."""
        return change_route(route=row, values=values, actor=staff_of(request), request=request)

    def find_history(self, row: Route) -> str:
        """Return why the route must stay."""
        return "has been used and cannot be deleted. Deactivate it." if is_route_used(row) else ""


class PriceForm(_ModelForm):
    """A price of a model or of a route."""

    class Meta:
        model = PriceVersion
        fields = (
            "model",
            "route",
            "effective_at",
            *(f"{name}_nanos" for name in (*TOKEN_CLASSES, *COUNTS)),
            "terms",
        )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Let the moment be left out: a moment offered here would be past when the form is sent."""
        super().__init__(*args, **kwargs)
        if "effective_at" in self.fields:
            self.fields["effective_at"].required = False
            self.fields["effective_at"].help_text = translate_lazily(
                "Empty: from now on. Never in the past."
            )

    def clean_terms(self) -> Any:
        """Refuse what are no terms."""
        try:
            return show_terms(parse_terms(self.cleaned_data["terms"]))
        except TermsInvalid as error:
            raise forms.ValidationError(translate(str(error))) from error

    def clean(self) -> dict[str, Any]:
        """Require exactly one owner, and terms under which no longer request costs less.

        All is told beside a field: the database's rule for a field is not asked then, which would
        tell its own name.
        """
        values = super().clean() or {}
        if (values.get("model") is None) == (values.get("route") is None):
            self.add_error(
                "model", translate("Choose a model (what clients pay) or a route (our cost).")
            )
        self._check_terms(values)
        most = format_usd(PRICE_NANOS_MAX)
        for name in [name for name in values if name.endswith("_nanos")]:
            if (values[name] or 0) > PRICE_NANOS_MAX:
                message = translate("An amount must not exceed {} USD.").format(most)
                self.add_error(name, message)
        return values

    def _check_terms(self, values: dict[str, Any]) -> None:
        terms = parse_terms(values.get("terms"))
        if terms is None:
            return
        amounts = {name: values.get(f"{name}_nanos") for name in (*TOKEN_CLASSES, *COUNTS, REQUEST)}
        try:
            check_terms({name: n for name, n in amounts.items() if n is not None}, terms)
        except TermsInvalid as error:
            self.add_error("terms", translate(str(error)))


_PRICE_FIELDS = (
    *("model", "route", "effective_at"),
    *(f"{name}_nanos" for name in (*TOKEN_CLASSES, REQUEST, *COUNTS)),
    *("minimum_nanos", "terms"),
)


@admin.register(PriceVersion)
class PriceVersionAdmin(SelfRecordedAdmin):
    """Prices. A version is never edited; a new price is a new version."""

    noun = "price"
    form = PriceForm
    list_display = (
        "owner",
        "effective_at",
        usd("input_nanos"),
        usd("cache_read_nanos"),
        usd("output_nanos"),
        usd("request_nanos"),
        "created_at",
    )
    list_display_links = ("owner", "effective_at")
    list_select_related = ("model", "route__model", "route__provider")
    list_filter = ("effective_at",)
    search_fields = ("model__name", "route__model__name", "route__provider__name")
    autocomplete_fields = ("model", "route")
    ordering = ("-effective_at", "-id")

    @admin.display(description="model or route")
    def owner(self, row: PriceVersion) -> str:
        """Show whose price it is."""
        return str(row.model or row.route)

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[PriceVersion]:
        """Return the rows with what their names are made of."""
        rows: models.QuerySet[PriceVersion] = super().get_queryset(request)
        return rows.select_related("model", "route__model", "route__provider")

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return the fields; of a price that there is, in dollars."""
        if obj is None:
            return _PRICE_FIELDS
        columns = {column.name: column for column in self.opts.concrete_fields}
        return [*(readable(columns[name]) for name in _PRICE_FIELDS), "created_at"]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return what is only shown: all of a price that there is."""
        return () if obj is None else self.get_fields(request, obj)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Refuse: a price explains charges for ever."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Refuse: a price explains charges for ever."""
        return False

    def write(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Add the version."""
        made = set_price(
            model=obj.model,
            route=obj.route,
            prices=obj.prices(),
            request_nanos=obj.request_nanos,
            minimum_nanos=obj.minimum_nanos,
            terms=parse_terms(obj.terms),
            effective_at=obj.effective_at,
            actor=staff_of(request),
            request=request,
        )
        adopt(obj, made)
