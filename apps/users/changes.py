"""Changing people: what an administrator may change of others, and what of nobody.

- Nobody changes his own role, activity, group, limits, cap or budgets, or sets his own password
  here; nor does he give himself money while there is another active administrator.
- Who may not use the Django admin does not take over an account that may.
- Only who is an active administrator at that moment gives a role: nobody gives one above his own.
- Only administrators use the Django admin (`is_superuser`); another role takes it away.
- An active administrator always remains. Whoever changes roles or activity locks the rows of all
  active administrators, by id, so that two who demote each other queue up.
- A new role, a new password and deactivation end the user's sessions in the same transaction.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final, TypedDict, Unpack

from django.db import IntegrityError, transaction
from django.db.models import Q
from django.http import HttpRequest

from apps.audit.events import changed_values, record_event, values_of
from apps.core.domain_errors import DomainError, Gone
from apps.users.hashing import hash_password
from apps.users.models import Role, User, UserGroup
from apps.users.names import UserExists, are_names_taken, clean_names
from apps.users.tokens import end_sessions

_NOT_OWN: Final = frozenset(
    {
        *("role", "is_active", "is_superuser", "user_group_id"),
        *("rpm", "tpm", "concurrency"),
        *("cap_nanos", "daily_budget_nanos", "monthly_budget_nanos"),
    }
)
# Whoever sets one of these can sign in as somebody else, or keep him from signing in.
_OF_ACCESS: Final = frozenset({"password", "email", "username", "role", "is_active"})
_LEAD: Final = frozenset({"role", "is_active", "is_superuser"})
_OF_ROLE: Final = frozenset({"role", "is_staff", "is_superuser"})


class OwnAccount(DomainError):
    """An administrator would change his own powers."""

    status_code = 403
    code = "own_account"
    message = "You cannot change this of your own account."


class AboveOwn(DomainError):
    """Who may not use the Django admin would take over an account that may."""

    status_code = 403
    code = "above_own"
    message = "This account has more rights than yours."


class LastAdmin(DomainError):
    """Nobody would be left to administrate."""

    status_code = 409
    code = "last_admin"
    message = "This is the last active administrator."


class RoleLost(DomainError):
    """The caller was an administrator when he called, but is none any more."""

    status_code = 403
    code = "permission_denied"
    message = "You do not have permission to perform this action."


class UserGone(Gone):
    """The user was deleted meanwhile."""


class UserGroupGone(DomainError):
    """The user group was deleted meanwhile."""

    status_code = 409
    code = "user_group_gone"
    message = "This user group does not exist any more."


class UserLimits(TypedDict, total=False):
    """What a user may be limited to; the fields of User. None is no limit."""

    rpm: int | None
    tpm: int | None
    concurrency: int | None
    cap_nanos: int | None
    daily_budget_nanos: int | None
    monthly_budget_nanos: int | None


class UserChanges(UserLimits, total=False):
    """What can be changed of a user."""

    username: str
    email: str
    name: str
    role: str
    user_group: UserGroup | None
    is_active: bool
    is_superuser: bool  # may use the Django admin; not offered over REST
    password: str


@dataclass(frozen=True, slots=True)
class LockedUser:
    """A user's row under lock, and the active administrators locked with it."""

    row: User
    lead_ids: frozenset[int]  # empty unless the lead is at stake

    def check_lead(self, actor: User | None, *, is_leaving: bool) -> None:
        """Refuse to take the last administrator away, and who has lost the role meanwhile.

        Raises LastAdmin and RoleLost.
        """
        if is_leaving and self.lead_ids == {self.row.pk}:
            raise LastAdmin
        if actor is not None and actor.pk not in self.lead_ids:
            raise RoleLost


def change_user(
    *,
    user: User,
    actor: User | None,
    request: HttpRequest | None = None,
    **changes: Unpack[UserChanges],
) -> User:
    """Change what is given of a user and return the user as he is now. No actor is the system.

    Raises OwnAccount, AboveOwn, LastAdmin, RoleLost, UserGone, UserGroupGone, UserExists,
    UsernameAmbiguous and HashingBusy.
    """
    is_about_lead = not _LEAD.isdisjoint(changes)
    # Before the transaction: no lock waits for a hash.
    hashed = hash_password(changes["password"]) if "password" in changes else ""
    row = user
    try:
        with transaction.atomic():
            locked = lock_user(user, with_lead=is_about_lead)
            row = locked.row
            if not _OF_ACCESS.isdisjoint(changes):
                refuse_above(row, actor)
            before = values_of(row)
            _apply(row, changes, hashed)
            old, new = changed_values(before, values_of(row))
            if is_own(row, actor) and ("password" in changes or not _NOT_OWN.isdisjoint(new)):
                raise OwnAccount
            if not _LEAD.isdisjoint(new):
                locked.check_lead(actor, is_leaving=not is_lead(row))
            _save(row, old, new, changes, actor=actor, request=request)
    except IntegrityError as error:
        if are_names_taken(row):
            raise UserExists from error
        if row.user_group_id and not UserGroup.objects.filter(pk=row.user_group_id).exists():
            raise UserGroupGone from error
        raise
    return row


def deactivate_user(*, row: User, actor: User | None, request: HttpRequest | None = None) -> None:
    """Deactivate a user who cannot be deleted, and end his sessions.

    For callers that hold the locks of `lock_user` and have asked it about the lead.
    """
    if not row.is_active:
        return
    row.is_active = False
    row.save(update_fields=["is_active"])
    record_event(
        actor=actor,
        action="user.deactivated",
        subject=row,
        before={"is_active": True},
        after={"is_active": False},
        request=request,
    )
    end_all_sessions(user=row, actor=actor, request=request)


def lock_user(user: User, *, with_lead: bool) -> LockedUser:
    """Lock a user's row, with the active administrators where the lead is at stake.

    Call it in a transaction. Raises UserGone.
    """
    wanted = Q(pk=user.pk)
    if with_lead:
        wanted |= Q(role=Role.ADMIN, is_active=True)
    rows = {row.pk: row for row in User.objects.select_for_update().filter(wanted).order_by("pk")}
    if user.pk not in rows:
        raise UserGone
    lead_ids = frozenset(pk for pk, row in rows.items() if with_lead and is_lead(row))
    return LockedUser(rows[user.pk], lead_ids)


def lock_users(user_ids: Collection[int]) -> dict[int, User]:
    """Keep users from being deleted until the transaction ends; return id → row of who exists.

    Call it before accounts are locked. Who only refers to the users need not wait.
    """
    rows = User.objects.select_for_update(of=("self",), no_key=True).filter(pk__in=user_ids)
    return {row.pk: row for row in rows.order_by("pk")}


def is_own(user: User, actor: User | None) -> bool:
    """Return whether the actor would act on himself."""
    return actor is not None and actor.pk == user.pk


def refuse_above(user: User, actor: User | None) -> None:
    """Keep administrators without the Django admin from those who have it. Raises AboveOwn."""
    if actor is not None and user.is_superuser and not actor.is_superuser:
        raise AboveOwn


def refuse_own_money(user: User, actor: User | None) -> None:
    """Keep administrators from giving themselves money, where there is another one to ask.

    Raises OwnAccount.
    """
    if is_own(user, actor) and (
        User.objects.filter(role=Role.ADMIN, is_active=True).exclude(pk=user.pk).exists()
    ):
        raise OwnAccount("Another administrator has to do this for your own account.")


def end_all_sessions(*, user: User, actor: User | None, request: HttpRequest | None = None) -> int:
    """Sign a user out everywhere, on record, and return how many sessions were open."""
    with transaction.atomic():
        count = end_sessions(user=user)
        if count:
            record_event(
                actor=actor,
                action="user.sessions_ended",
                subject=user,
                after={"sessions": count},
                request=request,
            )
    return count


def is_lead(row: User) -> bool:
    """Return whether this is an active administrator."""
    return row.role == Role.ADMIN and row.is_active


def _apply(row: User, changes: UserChanges, hashed: str) -> None:
    """Set what is given on the row, without saving."""
    names = {"username", "email"} & changes.keys()
    for name, value in changes.items():
        if name == "password":
            row.password = hashed
        else:
            setattr(row, name, value)
    if names:
        row.username, row.email = clean_names(username=row.username, email=row.email)
    row.is_superuser = row.is_superuser and row.role == Role.ADMIN
    row.is_staff = row.is_superuser


def _save(
    row: User,
    old: dict[str, Any],
    new: dict[str, Any],
    changes: UserChanges,
    *,
    actor: User | None,
    request: HttpRequest | None,
) -> None:
    """Write what differs, with its events, and end the sessions that must not go on."""
    is_password_new = "password" in changes
    if not new and not is_password_new:
        return
    row.save(update_fields=[*new, *(["password"] if is_password_new else [])])
    for action, names in (
        ("user.role_changed", new.keys() & _OF_ROLE),
        ("user.changed", new.keys() - _OF_ROLE),
    ):
        if names:
            record_event(
                actor=actor,
                action=action,
                subject=row,
                before={name: old[name] for name in names},
                after={name: new[name] for name in names},
                request=request,
            )
    if is_password_new:
        record_event(actor=actor, action="user.password_set", subject=row, request=request)
    if is_password_new or "role" in new or new.get("is_active") is False:
        end_all_sessions(user=row, actor=actor, request=request)
