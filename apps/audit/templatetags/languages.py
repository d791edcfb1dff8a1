"""Our own texts in templates; Django's `translate` knows Django's only."""

from django import template

from apps.core.languages import translate

register = template.Library()
register.filter("in_language", translate)
