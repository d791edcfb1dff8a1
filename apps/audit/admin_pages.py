"""What all pages of the Django admin share: money in dollars, read-only history, recorded changes.

`ReadOnlyAdmin` is for what is only ever looked at. `RecordedAdmin` is for configuration: every save
and every deletion writes an admin event in the same transaction.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.contrib.auth.base_user import AbstractBaseUser
from django.core.exceptions import PermissionDenied, ValidationError
from django.core.paginator import Paginator
from django.db import models
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse

from apps.audit.events import changed_values, record_event, values_of
from apps.audit.history import remembered_looks
from apps.core.admin_fields import FieldsOfForms, IdSelect
from apps.core.domain_errors import ErrorAnswer, find_error_answer
from apps.core.filters import ID_MAX
from apps.core.languages import translate, translate_lazily
from apps.core.money import format_multiplier, show_usd

if TYPE_CHECKING:
    _ModelAdmin = admin.ModelAdmin[Any]
    _Paginator = Paginator[Any]
else:
    # Generic only in the type stubs.
    _ModelAdmin = admin.ModelAdmin
    _Paginator = Paginator

_COUNT_MAX: Final = 10_000


class BoundedPaginator(_Paginator):
    """Counts no further than 10,000 rows: the history has millions, and nobody pages that far."""

    @cached_property
    def count(self) -> int:
        """Return the number of rows, at most the bound."""
        rows = self.object_list
        if isinstance(rows, models.QuerySet):
            return rows.order_by()[:_COUNT_MAX].count()
        return len(rows)


def usd(name: str, label: str = "") -> Callable[[Any], str]:
    """Return a column that shows the nanos of the field `name` in dollars."""

    def show(row: Any) -> str:
        nanos = getattr(row, name)
        return "–" if nanos is None else show_usd(nanos)

    shown = label or name.removesuffix("_nanos").replace("_", " ")
    return admin.display(description=translate_lazily(shown), ordering=name)(_named(show, name))


def multiplier(name: str) -> Callable[[Any], str]:
    """Return a column that shows the millionths of the field `name` as a number."""

    def show(row: Any) -> str:
        millionths = getattr(row, name)
        return "–" if millionths is None else format_multiplier(millionths)

    shown = name.removesuffix("_millionths").replace("_", " ")
    return admin.display(description=translate_lazily(shown), ordering=name)(_named(show, name))


def hexadecimal(name: str) -> Callable[[Any], str]:
    """Return a column that shows the bytes of the field `name`."""

    def show(row: Any) -> str:
        return bytes(getattr(row, name) or b"").hex() or "–"

    return admin.display(description=translate_lazily(name.replace("_", " ")))(_named(show, name))


def _named(function: Callable[[Any], str], name: str) -> Callable[[Any], str]:
    # The admin tells columns apart by the names of their functions.
    function.__name__ = f"{name}_column"
    return function


def staff_of(request: HttpRequest) -> AbstractBaseUser:
    """Return who is signed in to the admin."""
    if not isinstance(request.user, AbstractBaseUser):
        raise PermissionDenied
    return request.user


def say_error(told: ErrorAnswer) -> str:
    """Return what a page says of an error, in the language of who reads it."""
    if told.code == "idempotency_key_reused":
        # The key of a form is hidden in it (see `IdempotencyKeyField`).
        return translate("This form was sent before, with other values. Open it again.")
    return translate(told.message)


class BaseAdmin(FieldsOfForms, _ModelAdmin):
    """Refusals of the domain beside the form; no bulk actions."""

    actions = None
    list_per_page = 50
    list_max_show_all = 200
    show_full_result_count = False

    class Media:
        css = {"all": ("audit/admin.css",)}

    def history_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Lead to the row's admin events: Django's own log knows only of forms that were sent."""
        query = {"object_type": self.opts.label_lower, "object_id": unquote(object_id)}
        return redirect(f"{reverse('admin:audit_adminevent_changelist')}?{urlencode(query)}")

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        """Refuse to filter by a number that fits no column: the database would fail at it."""
        is_short = all(_fits_column(piece) for piece in value.split(","))
        return is_short and super().lookup_allowed(lookup, value, request)

    def formfield_for_foreignkey(
        self, db_field: models.ForeignKey[Any, Any], request: HttpRequest, **kwargs: Any
    ) -> forms.ModelChoiceField[Any] | None:
        """Return the form field of a link to another row."""
        if db_field.name in self.get_autocomplete_fields(request):
            kwargs["widget"] = IdSelect(db_field, self.admin_site)
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        """Return what a link fills in, without moments that cannot be read."""
        given: dict[str, Any] = super().get_changeform_initial_data(request)
        for column in self.opts.concrete_fields:
            if isinstance(column, models.DateTimeField) and column.name in given:
                given[column.name] = _read_moment(column, given[column.name])
        return given

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Show or save one row; what the domain refuses is told, and nothing is saved."""
        try:
            return super().changeform_view(request, object_id, form_url, extra_context)
        except Exception as error:
            told = find_error_answer(error)
            if told is None:
                raise
            self.message_user(request, say_error(told), messages.ERROR)
            return redirect(request.get_full_path())


def _fits_column(text: str) -> bool:
    """Return whether a number fits the column of a key; what is no number Django refuses itself."""
    try:
        return abs(int(text)) <= ID_MAX
    except ValueError:
        return True


def _read_moment(column: models.Field[Any, Any], text: str) -> Any:
    """Return the moment, which no form shows as a text; None where it cannot be read."""
    try:
        return column.to_python(text)
    except ValidationError:
        return None


class ReadOnlyAdmin(BaseAdmin):
    """Rows that can be looked at and nothing else."""

    paginator = BoundedPaginator
    # Sorting millions of rows by a column without an index would take the database down.
    sortable_by = ()

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Refuse."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Refuse."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Refuse."""
        return False

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return every column, those with units and bytes made readable."""
        return self.get_readonly_fields(request, obj)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return every column."""
        columns = [readable(field) for field in self.opts.concrete_fields]
        return [*columns, *self.readonly_fields]


def readable(field: models.Field[Any, Any]) -> str | Callable[[Any], str]:
    """Return what shows a column: money in dollars, multipliers as numbers, bytes as digits."""
    if field.name.endswith("_nanos"):
        return usd(field.name)
    if field.name.endswith("_millionths"):
        return multiplier(field.name)
    return hexadecimal(field.name) if isinstance(field, models.BinaryField) else field.name


class RecordedAdmin(BaseAdmin):
    """Configuration whose changes are on record."""

    # The first part of the event's name: "provider" gives provider.created and so on.
    noun: str = ""

    def find_history(self, row: Any) -> str:
        """Return why the row must stay ("has …"), or nothing."""
        return ""

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Show or save one row, having looked at its history before the transaction."""
        with remembered_looks():
            if request.method == "POST" and object_id is not None:
                row = self.get_object(request, unquote(object_id))
                if row is not None:
                    self.get_readonly_fields(request, row)
            return super().changeform_view(request, object_id, form_url, extra_context)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Save the row, remembering what it was."""
        form.values_before = _values_with_links(self.model, obj.pk) if change else None
        self.write(request, obj, form, change)

    def write(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Write the row; a subclass calls its domain function."""
        obj.save()

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        """Save what belongs to the row, then record the whole."""
        super().save_related(request, form, formsets, change)
        self.record_saved(request, form, change)

    def record_saved(self, request: HttpRequest, form: Any, change: bool) -> None:
        """Write the event of a save."""
        after = _values_with_links(self.model, form.instance.pk)
        before = form.values_before
        if change:
            before, after = changed_values(before, after)
            if not after:
                return
        record_event(
            actor=staff_of(request),
            action=f"{self.noun}.{'changed' if change else 'created'}",
            subject=form.instance,
            before=before,
            after=after,
            reason=form.cleaned_data.get("reason", ""),
            request=request,
        )

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        """Delete a row without history and record it."""
        if self.find_history(obj):
            raise PermissionDenied
        record_event(
            actor=staff_of(request),
            action=f"{self.noun}.deleted",
            subject=obj,
            before=_values_with_links(self.model, obj.pk),
            request=request,
        )
        super().delete_model(request, obj)

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Refuse to delete what has history, with the reason."""
        with remembered_looks():
            row = self.get_object(request, unquote(object_id))
            reason = self.find_history(row) if row is not None else ""
            if row is None or not reason:
                return super().delete_view(request, object_id, extra_context)
        self.message_user(request, f"“{row}” {translate(reason)}", messages.ERROR)
        page = f"admin:{self.opts.app_label}_{self.opts.model_name}_change"
        return redirect(reverse(page, args=[row.pk]))


class SelfRecordedAdmin(RecordedAdmin):
    """Rows that domain functions make and change, which lock, record and link them by themselves.

    What is changed of a row is what was changed in its form: `form` is a `ShownForm`. A subclass
    has `make_row` and `change_row`, or a `write` of its own that does without; a test sees to it.
    """

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Have the row made or changed."""
        self.write(request, obj, form, change)

    def write(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Have the row made, or changed in what was changed in its form."""
        adopt(obj, (self.change_row if change else self.make_row)(request, obj, form.given()))

    def make_row(self, request: HttpRequest, row: Any, values: dict[str, Any]) -> models.Model:
        """Return the row that a domain function has made; `row` is the one not yet saved."""
        raise NotImplementedError

    def change_row(self, request: HttpRequest, row: Any, values: dict[str, Any]) -> models.Model:
        """Return the row as a domain function has changed it; `values` are what was changed."""
        raise NotImplementedError

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        """Save what is edited beside the row; its links were written with it."""
        for formset in formsets:
            self.save_formset(request, form, formset, change)


def adopt(row: models.Model, made: models.Model) -> None:
    """Make the form's instance the row that a domain function has made."""
    row.__dict__.update(made.__dict__)


def _values_with_links(model: type[models.Model], pk: Any) -> dict[str, Any]:
    row = model._default_manager.get(pk=pk)
    links = {
        field.name: sorted(getattr(row, field.name).values_list("pk", flat=True)[:1_000], key=str)
        for field in row._meta.many_to_many
    }
    return {**values_of(row), **links}
