"""Who may do what over REST. The role comes from the database at every call, never from a token."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from apps.users.models import Role, User

if TYPE_CHECKING:
    # Views import the default permissions: at run time this would go round in a circle.
    from rest_framework.views import APIView


class IsAdmin(BasePermission):
    """Lets active administrators in."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        """Return whether the caller is one."""
        user = request.user
        return isinstance(user, User) and user.is_active and user.role == Role.ADMIN


class IsSignedIn(BasePermission):
    """Lets every active user in."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        """Return whether the caller has signed in."""
        return isinstance(request.user, User) and request.user.is_active
