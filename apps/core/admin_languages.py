"""Marks what the Django admin shows, so that it is looked up in the reader's language.

Names and help texts stand in models and admin classes as plain English, and would be shown so
beside Django's own words in Chinese. They are replaced once, after all of them are known.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, cast

from django import forms
from django.apps import AppConfig, apps
from django.contrib.admin import AdminSite, ModelAdmin
from django.db import models
from django.utils.text import capfirst
from django.views.i18n import JavaScriptCatalog

from apps.core.languages import translate, translate_lazily

# What the script of a choice of many says, and Django has no Chinese for yet.
_OF_SCRIPTS: Final = (
    "(click to clear)",
    'Choose %s by selecting them and then select the "Choose" arrow button.',
    "Choose all %s",
    "Choose selected %s",
    'Remove %s by selecting them and then select the "Remove" arrow button.',
    "Remove all %s",
    "Remove selected %s",
)


class ScriptTextsView(JavaScriptCatalog):
    """What the scripts of the Django admin say, in the language of the reader."""

    def get_catalog(self) -> dict[str, Any]:
        """Return the texts by their English."""
        texts = cast("dict[str, Any]", super().get_catalog())
        return {**{text: translate(text) for text in _OF_SCRIPTS}, **texts}


def mark_texts(site: AdminSite) -> None:
    """Mark the texts of our apps, their models and the admin classes of a site. Idempotent."""
    for config in apps.get_app_configs():
        if config.name.startswith("apps."):
            _mark_app(config)
    for page in site._registry.values():
        if type(page).__module__.startswith("apps."):
            _mark_page(page)


def _marked(text: Any) -> Any:
    """Return a text that is looked up when it is shown; what is none, or marked, as it is."""
    return translate_lazily(text) if isinstance(text, str) and text else text


def _mark_app(config: AppConfig) -> None:
    config.verbose_name = _marked(config.verbose_name)
    for model in config.get_models():
        options = model._meta
        # Where it is not given it is lazy: what the singular is now, and an s.
        if isinstance(options.verbose_name, str):
            options.verbose_name_plural = _marked(str(options.verbose_name_plural))
        options.verbose_name = _marked(options.verbose_name)
        for field in (*options.local_fields, *options.local_many_to_many):
            _mark_column(field)


def _mark_column(field: models.Field[Any, Any]) -> None:
    field.verbose_name = _marked(field.verbose_name)
    field.help_text = _marked(field.help_text)
    if field.choices:
        field.choices = [(value, _marked(label)) for value, label in field.choices]


def _mark_page(page: ModelAdmin[Any]) -> None:
    own: dict[str, Any] = vars(page)  # Of the instance: classes share what they inherit.
    own["search_help_text"] = _marked(page.search_help_text)
    if page.fieldsets:
        own["fieldsets"] = tuple((_marked(title), given) for title, given in page.fieldsets)
    columns: list[Any] = [
        value for kind in type(page).__mro__ for value in vars(kind).values() if callable(value)
    ]
    for column in (*columns, *(one for one in page.list_display if callable(one))):
        if isinstance(getattr(column, "short_description", None), str):
            column.short_description = _marked(column.short_description)
    _mark_form(page.form)
    _mark_form(getattr(page, "add_form", None))
    for inline in page.inlines:
        _mark_form(inline.form)


def _mark_form(form: Any) -> None:
    if form is None or not form.__module__.startswith("apps."):
        return
    named: Iterable[tuple[str, forms.Field]] = form.declared_fields.items()
    for name, field in named:
        field.help_text = _marked(field.help_text)
        # Django makes a label of the field's name where there is none, too late to look it up.
        field.label = _marked(field.label) or capfirst(_marked(name.replace("_", " ")))
