"""Wiring: settings, urls, ASGI and Celery. Apps never import from here."""

from auditing.celery import app as celery_app

__all__ = ["celery_app"]
