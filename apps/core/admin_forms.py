"""A form of the Django admin that changes only what somebody changed in it."""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from django import forms
from django.core import signing
from django.utils.functional import cached_property

from apps.core.admin_fields import LOST
from apps.core.languages import translate, translate_lazily

if TYPE_CHECKING:
    _ModelForm = forms.ModelForm[Any]
else:
    # Generic only in the type stubs.
    _ModelForm = forms.ModelForm

_LINE_END: Final = re.compile(r"\r\n?")


class ShownForm(_ModelForm):
    """Compares what is sent with what its page showed, and not with the row as it is by then.

    An old page would else undo what others have changed since. `changed_data` is what was changed
    here; who saves writes that alone (`given`). All else is checked as the row has it by then. What
    was shown comes back signed, in a hidden field, which the page has to have among its fields; no
    secret is in it.
    """

    as_shown = forms.CharField(
        widget=forms.HiddenInput,
        error_messages={"required": translate_lazily(LOST)},
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._is_new = self.instance.pk is None
        if self._is_new:
            self.fields["as_shown"].required = False
        else:
            self.fields["as_shown"].initial = self._sign_shown

    @cached_property
    def changed_data(self) -> list[str]:
        """Return the names of the fields that were changed in this form."""
        if self._is_new:
            return super().changed_data
        shown = self._read_shown() or {}
        return [
            name
            for name, value in shown.items()
            if name in self.fields and _has_changed(self.fields[name], value, self[name].data)
        ]

    def given(self) -> dict[str, Any]:
        """Return what is to be written: of a new row all values, else what was changed here."""
        names = self.cleaned_data.keys() if self._is_new else self.changed_data
        return {name: self.cleaned_data[name] for name in names if name != "as_shown"}

    def seen(self) -> dict[str, Any]:
        """Return what was in the form when it was sent: what it showed, with what was changed."""
        return {**(self._read_shown() or {}), **self.given()}

    def clean_as_shown(self) -> str:
        """Refuse what this row's page has not shown."""
        if not self._is_new and self._read_shown() is None:
            raise forms.ValidationError(translate(LOST))
        return str(self.cleaned_data["as_shown"])

    def clean(self) -> dict[str, Any] | None:
        """Tell at the top what is wrong with fields that nobody sees; take what stays as it is."""
        values = super().clean()
        for bound in self.hidden_fields():
            if bound.errors:
                self.add_error(None, list(bound.errors))
        if not self._is_new:
            self._keep_unchanged()
        return values

    def _keep_unchanged(self) -> None:
        kept = self.cleaned_data.keys() - set(self.changed_data)
        for column in self.instance._meta.concrete_fields:
            if column.name in kept:
                self.cleaned_data[column.name] = getattr(self.instance, column.name)

    def _sign_shown(self) -> str:
        # Those of the form alone: a formset adds fields that are no part of the row.
        plain = {
            name: self._plain_initial(name)
            for name in self.base_fields
            if name in self.fields and name != "as_shown"
        }
        return signing.dumps(plain, salt=self._salt(), compress=True)

    def _plain_initial(self, name: str) -> Any:
        """Return what a field shows, as JSON can hold it: moments as text, rows by their keys."""
        field = self.fields[name]
        if isinstance(field.widget, forms.PasswordInput):
            return None  # Nothing is shown of it.
        value = self.get_initial_for_field(field, name)
        if isinstance(field, forms.ModelChoiceField):
            return field.prepare_value(value)
        return value.isoformat() if isinstance(value, datetime) else value

    def _read_shown(self) -> dict[str, Any] | None:
        sent = self.data.get(self.add_prefix("as_shown"), "")
        try:
            shown: dict[str, Any] = signing.loads(sent, salt=self._salt())
        except signing.BadSignature:
            return None
        return shown

    def _salt(self) -> str:
        return f"shown:{self.instance._meta.label_lower}:{self.instance.pk}"


def _has_changed(field: forms.Field, shown: Any, sent: Any) -> bool:
    """Return whether something else was sent than what was shown.

    Browsers end lines in a way of their own, and what stands around a text may be stripped: neither
    is a change.
    """
    if isinstance(field, (forms.DateTimeField, forms.SplitDateTimeField)) and shown is not None:
        shown = datetime.fromisoformat(shown)
    is_text = isinstance(field, forms.CharField) and not isinstance(field, forms.JSONField)
    if is_text and isinstance(shown, str) and isinstance(sent, str):
        shown, sent = (field.to_python(_LINE_END.sub("\n", text)) for text in (shown, sent))
    return field.has_changed(shown, sent)
