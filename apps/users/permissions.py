"""Who may do what over REST. The role comes from the database at every call, never from a token."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request

from apps.audit.events import record_event
from apps.core.counters import count_up
from apps.users.models import Role, User

if TYPE_CHECKING:
    # Views import the default permissions: at run time this would go round in a circle.
    from rest_framework.views import APIView

_EVENT_SECONDS: Final = 60


class _RolePermission(BasePermission):
    """Lets active users of some roles in; who is turned away is on record."""

    readers: ClassVar[frozenset[str]]
    writers: ClassVar[frozenset[str]]

    def has_permission(self, request: Request, view: APIView) -> bool:
        """Return whether the caller may come in."""
        user = request.user
        if not (isinstance(user, User) and user.is_active):
            return False
        roles = self.readers if request.method in SAFE_METHODS else self.writers
        if user.role in roles:
            return True
        _record_denial(user, request)
        return False


class IsAdmin(_RolePermission):
    """Lets administrators in."""

    readers = writers = frozenset({Role.ADMIN})


class AnalystsRead(_RolePermission):
    """Lets administrators in, and analysts to read."""

    readers = frozenset({Role.ANALYST, Role.ADMIN})
    writers = frozenset({Role.ADMIN})


class ViewersRead(_RolePermission):
    """Lets administrators in, and analysts and viewers to read."""

    readers = frozenset({Role.VIEWER, Role.ANALYST, Role.ADMIN})
    writers = frozenset({Role.ADMIN})


class IsSignedIn(_RolePermission):
    """Lets every active user in."""

    readers = writers = frozenset(Role.values)


def _record_denial(user: User, request: Request) -> None:
    # One event a minute: whoever goes on trying cannot fill the table.
    if count_up(f"denied:{user.pk}", seconds=_EVENT_SECONDS, locks_at=1) == 1:
        record_event(
            actor=user,
            action="access.denied",
            subject=None,
            after={"method": request.method or "", "path": request.path[:200]},
            request=request._request,
        )
