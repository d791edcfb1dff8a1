"""A form of the Django admin that changes only what somebody changed in it."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from django import forms
from django.core import signing
from django.utils.functional import cached_property

from apps.audit.admin_fields import LOST
from apps.core.languages import translate, translate_lazily

if TYPE_CHECKING:
    _ModelForm = forms.ModelForm[Any]
else:
    # Generic only in the type stubs.
    _ModelForm = forms.ModelForm


class ShownForm(_ModelForm):
    """Compares what is sent with what its page showed, and not with the row as it is by then.

    An old page would else undo what others have changed since. `changed_data` is what was changed
    here; who saves writes that alone. What was shown comes back signed, in a hidden field, which
    the page has to have among its fields.
    """

    as_shown = forms.CharField(
        widget=forms.HiddenInput,
        error_messages={"required": translate_lazily(LOST)},
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.pk is None:
            del self.fields["as_shown"]
        else:
            self.fields["as_shown"].initial = self._sign_shown

    @cached_property
    def changed_data(self) -> list[str]:
        """Return the names of the fields that were changed in this form."""
        if "as_shown" not in self.fields:
            return super().changed_data
        shown = self._read_shown() or {}
        return [
            name
            for name, value in shown.items()
            if name in self.fields
            and self.fields[name].has_changed(_moment_of(self.fields[name], value), self[name].data)
        ]

    def clean_as_shown(self) -> str:
        """Refuse what this row's page has not shown."""
        if self._read_shown() is None:
            raise forms.ValidationError(translate(LOST))
        return str(self.cleaned_data["as_shown"])

    def clean(self) -> dict[str, Any] | None:
        """Tell at the top what is wrong with fields that nobody sees."""
        values = super().clean()
        for bound in self.hidden_fields():
            if bound.errors:
                self.add_error(None, list(bound.errors))
        return values

    def _sign_shown(self) -> str:
        values = {
            name: self.get_initial_for_field(field, name)
            for name, field in self.fields.items()
            if name != "as_shown"
        }
        plain = {
            name: value.isoformat() if isinstance(value, datetime) else value
            for name, value in values.items()
        }
        return signing.dumps(plain, salt=self._salt(), compress=True)

    def _read_shown(self) -> dict[str, Any] | None:
        sent = self.data.get(self.add_prefix("as_shown"), "")
        try:
            shown: dict[str, Any] = signing.loads(sent, salt=self._salt())
        except signing.BadSignature:
            return None
        return shown

    def _salt(self) -> str:
        return f"shown:{self.instance._meta.label_lower}:{self.instance.pk}"


def _moment_of(field: forms.Field, value: Any) -> Any:
    """Return a value as the field had it: moments are text while they are in the page."""
    is_moment = isinstance(field, (forms.DateTimeField, forms.SplitDateTimeField))
    return datetime.fromisoformat(value) if is_moment and value is not None else value
