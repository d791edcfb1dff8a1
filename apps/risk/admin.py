"""Risk rules and findings in the Django admin."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest
from django.utils.text import capfirst, format_lazy

from apps.audit.admin_pages import ReadOnlyAdmin, SelfRecordedAdmin, staff_of
from apps.core.admin_fields import LinesFormField
from apps.core.admin_forms import ShownForm
from apps.core.languages import translate, translate_lazily
from apps.risk.changes import (
    IDS_MAX,
    RuleInvalid,
    change_rule,
    check_ids,
    check_rule,
    create_rule,
)
from apps.risk.models import OPERATIONS, RiskFinding, RiskRule

_ID_MAX = 2**63 - 1
_IDS_WANTED = "Enter ids, one a line: whole numbers from 1 on."


class IdsFormField(LinesFormField):
    """One id a line in the form, a list of numbers in the row."""

    def to_python(self, value: Any) -> Any:
        """Return the ids."""
        lines = super().to_python(value)
        if len(lines) > IDS_MAX:
            raise forms.ValidationError(translate("Enter at most {} ids.").format(IDS_MAX))
        if not all(line.isascii() and line.isdigit() and len(line) < 20 for line in lines):
            raise forms.ValidationError(translate(_IDS_WANTED))
        found = [int(line) for line in lines]
        if not all(0 < pk <= _ID_MAX for pk in found):
            raise forms.ValidationError(translate(_IDS_WANTED))
        return found


def _ids(what: str) -> IdsFormField:
    return IdsFormField(
        required=False, label=capfirst(what), help_text=f"Ids of {what}, one a line. Empty: all."
    )


def _as_typed(name: str) -> forms.CharField:
    """Return the field of a text whose blanks count: with one at its end a pattern matches less."""
    column: Any = RiskRule._meta.get_field(name)
    return forms.CharField(
        required=False, strip=False, max_length=column.max_length, help_text=column.help_text
    )


class RiskRuleForm(ShownForm):
    """A rule."""

    users = _ids("users")
    user_groups = _ids("user groups")
    api_keys = _ids("API keys")
    models = _ids("models")
    model_groups = _ids("model groups")
    networks = LinesFormField(
        required=False, help_text="Addresses or networks, one a line. Empty: from anywhere."
    )
    operations = LinesFormField(
        required=False,
        help_text=format_lazy(
            translate_lazily("One a line, of {}. Empty: any."), ", ".join(OPERATIONS)
        ),
    )
    user_agent = _as_typed("user_agent")
    pattern = _as_typed("pattern")
    words = LinesFormField(
        required=False, help_text="Words and phrases that a content rule looks for, one a line."
    )

    class Meta:
        model = RiskRule
        fields = (
            *("name", "description", "kind", "action", "priority", "is_active", "message"),
            *("users", "user_groups", "api_keys", "models", "model_groups"),
            *("networks", "user_agent", "operations", "words", "are_whole_words", "pattern"),
        )

    def clean(self) -> dict[str, Any]:
        """Refuse what could not be in force."""
        values = super().clean() or self.cleaned_data
        if not self.errors:
            try:
                check_ids({name: values[name] for name in self.changed_data})
                check_rule(values)
            except RuleInvalid as error:
                self.add_error(error.field, translate(str(error)))
        return values


@admin.register(RiskRule)
class RiskRuleAdmin(SelfRecordedAdmin):
    """Rules, in the order in which they are looked at."""

    noun = "risk_rule"
    form = RiskRuleForm
    list_display = ("name", "kind", "action", "priority", "is_active", "updated_at")
    list_filter = ("kind", "action", "is_active")
    search_fields = ("name", "description")
    readonly_fields = ("created_at", "updated_at")
    ordering = ("priority", "id")

    def make_row(self, request: HttpRequest, row: Any, values: dict[str, Any]) -> RiskRule:
        """Make the rule; there is a bound to their number."""
        return create_rule(values=values, actor=staff_of(request), request=request)

    def change_row(self, request: HttpRequest, row: Any, values: dict[str, Any]) -> RiskRule:
        """Change the rule."""
        return change_rule(rule=row, values=values, actor=staff_of(request), request=request)


@admin.register(RiskFinding)
class RiskFindingAdmin(ReadOnlyAdmin):
    """Calls that rules found."""

    list_display = (
        *("created_at", "rule_name", "action", "user_name", "api_key_name"),
        *("requested_model", "operation", "ip_address", "request_id"),
    )
    list_filter = ("kind", "action", "created_at")
    search_fields = ("=rule_id", "=user_id", "=api_key_id", "=request_id")
    ordering = ("-id",)
