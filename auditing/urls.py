"""Where a path of the control plane goes."""

from django.urls import path

urlpatterns: list[path] = []
