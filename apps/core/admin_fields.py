"""Fields of forms in the Django admin: money in dollars, multipliers, lists by the line, ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final
from uuid import uuid4

from django import forms
from django.contrib import admin
from django.contrib.admin.widgets import AutocompleteSelect
from django.core.validators import ProhibitNullCharactersValidator
from django.db import models
from django.forms.fields import InvalidJSONInput
from django.http import HttpRequest
from django.utils.text import capfirst

from apps.core.filters import is_id
from apps.core.languages import translate, translate_lazily
from apps.core.money import InvalidAmount, format_usd, parse_usd, show_usd

if TYPE_CHECKING:
    _BaseModelAdmin = admin.options.BaseModelAdmin[Any]
    _ModelMultipleChoiceField = forms.ModelMultipleChoiceField[Any]
else:
    # Generic only in the type stubs.
    _BaseModelAdmin = admin.options.BaseModelAdmin
    _ModelMultipleChoiceField = forms.ModelMultipleChoiceField

LOST: Final = "This form cannot be sent. Open it again."
_LINES_MAX: Final = 1_000
_SHOWN_LENGTH: Final = 40
_MULTIPLIER_NANOS_PER_MILLIONTH: Final = 1_000
_MILLIONTHS_OF_ONE: Final = 1_000_000
_MILLIONTHS_MAX: Final = 1_000 * _MILLIONTHS_OF_ONE


class NanosFormField(forms.CharField):
    """Dollars in the form, nanos in the row.

    `nanos_min` is the least that may be entered: in most places money is not negative.
    """

    def __init__(self, *, nanos_min: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._nanos_min = nanos_min

    def prepare_value(self, value: Any) -> Any:
        """Return dollars for stored nanos; what was typed stays as it was typed."""
        return format_usd(value) if isinstance(value, int) else value

    def to_python(self, value: Any) -> Any:
        """Return nanos, None for an empty field."""
        if value in self.empty_values:
            return None
        try:
            nanos = parse_usd(str(value).strip())
        except InvalidAmount as error:
            raise forms.ValidationError(translate(str(error))) from error
        if self._nanos_min is not None and nanos < self._nanos_min:
            raise forms.ValidationError(
                translate("An amount must not be below {}.").format(show_usd(self._nanos_min))
            )
        return nanos

    def has_changed(self, initial: Any, data: Any) -> bool:
        """Return whether the amounts differ, however they are written."""
        return _has_changed(self, initial, data)


class MillionthsFormField(NanosFormField):
    """A decimal multiplier in the form, millionths in the row: from 0 to `millionths_max`."""

    def __init__(self, *, millionths_max: int = _MILLIONTHS_MAX, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._nanos_max = millionths_max * _MULTIPLIER_NANOS_PER_MILLIONTH

    def prepare_value(self, value: Any) -> Any:
        """Return the multiplier for stored millionths."""
        if isinstance(value, int):
            return format_usd(value * _MULTIPLIER_NANOS_PER_MILLIONTH)
        return value

    def to_python(self, value: Any) -> Any:
        """Return millionths."""
        if value in self.empty_values:
            return None
        try:
            nanos = parse_usd(str(value).strip())
        except InvalidAmount:
            nanos = -1
        millionths, rest = divmod(nanos, _MULTIPLIER_NANOS_PER_MILLIONTH)
        if rest or not 0 <= nanos <= self._nanos_max:
            raise forms.ValidationError(
                translate(
                    "Enter a number from 0 to {} with at most six decimals, such as 0.5."
                ).format(format_usd(self._nanos_max))
            )
        return millionths


class LinesFormField(forms.CharField):
    """One item a line in the form, a list in the row."""

    widget = forms.Textarea(attrs={"rows": 4, "cols": 60})

    def prepare_value(self, value: Any) -> Any:
        """Return lines for a stored list; what was typed stays as it was typed."""
        return "\n".join(str(item) for item in value) if isinstance(value, list) else value

    def to_python(self, value: Any) -> Any:
        """Return the list."""
        text = str(value or "")
        # What CharField has for it looks at one text, and the value is a list by then.
        _refuse_null(text)
        lines = [line.strip() for line in text.splitlines()]
        found = [line for line in lines if line]
        if len(found) > _LINES_MAX:
            raise forms.ValidationError(translate("Enter at most {} lines.").format(_LINES_MAX))
        return found

    def has_changed(self, initial: Any, data: Any) -> bool:
        """Return whether the lists differ, however they are written."""
        return _has_changed(self, initial, data)


_refuse_null: Final = ProhibitNullCharactersValidator()


def _has_changed(field: forms.Field, initial: Any, data: Any) -> bool:
    """Return whether a value was changed; what cannot be read is not what there was."""
    try:
        return bool(field.to_python(field.prepare_value(initial)) != field.to_python(data))
    except forms.ValidationError:
        return True


class JSONFormField(forms.JSONField):
    """JSON, shown again as it was typed where something is wrong.

    Python's parser has errors of its own, which Django lets pass, for numbers of thousands of
    digits and for endless nesting.
    """

    def to_python(self, value: Any) -> Any:
        """Return the parsed value, None for an empty field."""
        try:
            return super().to_python(value)
        except (ValueError, RecursionError) as error:
            raise forms.ValidationError(self.error_messages["invalid"], code="invalid") from error

    def bound_data(self, data: Any, initial: Any) -> Any:
        """Return what was typed, of the kind that Django shows without parsing it."""
        return InvalidJSONInput(data) if isinstance(data, str) and not self.disabled else initial


class RowsFormField(_ModelMultipleChoiceField):
    """Several rows by their ids; what does not fit the column of a key is refused."""

    def clean(self, value: Any) -> Any:
        """Return the rows."""
        for pk in value or ():
            if not is_id(str(pk)):
                raise forms.ValidationError(
                    self.error_messages["invalid_pk_value"],
                    code="invalid_pk_value",
                    params={"pk": str(pk)[:_SHOWN_LENGTH]},
                )
        return super().clean(value)


class IdempotencyKeyField(forms.UUIDField):
    """Names a form: made when its page is shown, so that one that is sent twice counts once."""

    widget = forms.HiddenInput

    def __init__(self) -> None:
        lost = translate_lazily(LOST)
        super().__init__(
            label=translate_lazily("idempotency key"),
            initial=uuid4,
            error_messages={"required": lost, "invalid": lost},
        )


class IdSelect(AutocompleteSelect):
    """Finds a row while its name is typed; what is no id is the id of none."""

    def optgroups(self, name: str, value: Sequence[str], attr: Any = None) -> list[Any]:
        """Return the row that is chosen: Django's own looks for anything in a column of numbers."""
        return super().optgroups(name, [one for one in value if is_id(one)], attr)


class FieldsOfForms(_BaseModelAdmin):
    """What fields every form has, inlines too: dollars and multipliers instead of nanos and
    millionths; JSON and rows that refuse what neither Python nor a database can read.
    """

    formfield_overrides: ClassVar[Mapping[type[models.Field[Any, Any]], Mapping[str, Any]]] = {
        models.JSONField: {"form_class": JSONFormField},
        models.ManyToManyField: {"form_class": RowsFormField},
    }

    def formfield_for_dbfield(
        self, db_field: models.Field[Any, Any], request: HttpRequest, **kwargs: Any
    ) -> forms.Field | None:
        """Return the form field of a column."""
        text = str(db_field.help_text)
        given: dict[str, Any] = {
            "required": not db_field.blank,
            "initial": db_field.get_default() if db_field.has_default() else None,
        }
        if db_field.name.endswith("_nanos"):
            # Whatever is entered here is a price or a limit; what can be negative is typed nowhere.
            return NanosFormField(
                nanos_min=0,
                label=f"{_label_of(db_field, '_nanos')} (USD)",
                help_text=text.replace("Nano-USD", "USD").replace("nano-USD", "USD"),
                **given,
            )
        if db_field.name.endswith("_millionths"):
            text, most = "1 charges the list price, 0.5 half of it.", _MILLIONTHS_MAX
            if db_field.name.endswith("share_millionths"):
                text = "A part of its price, such as 0.1; empty: all of it."
                most = _MILLIONTHS_OF_ONE
            return MillionthsFormField(
                millionths_max=most,
                label=_label_of(db_field, "_millionths"),
                help_text=translate(text),
                **given,
            )
        return super().formfield_for_dbfield(db_field, request, **kwargs)


def _label_of(field: models.Field[Any, Any], suffix: str) -> str:
    return capfirst(translate(field.name.removesuffix(suffix).replace("_", " ")))
