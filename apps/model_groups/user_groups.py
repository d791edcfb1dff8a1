"""User groups: made, changed and deleted, with the model groups that are open to them.

They live here and not with users because the link to model groups does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict, Unpack

from django.contrib.auth.base_user import AbstractBaseUser
from django.db import IntegrityError, transaction
from django.db.models import Count, QuerySet
from django.http import HttpRequest

from apps.audit.events import changed_values, record_event, set_values, values_of
from apps.core.domain_errors import DomainError, Gone
from apps.core.locks import lock_row
from apps.model_groups.models import ModelGroup
from apps.users.models import UserGroup


class UserGroupExists(DomainError):
    """There is a user group of this name."""

    status_code = 409
    code = "user_group_exists"
    message = "A user group with this name already exists."


class UserGroupInUse(DomainError):
    """The group still has users."""

    status_code = 409
    code = "in_use"
    message = "This user group still has users. Move them to another group first."


class UserGroupMissing(Gone):
    """The group was deleted meanwhile."""


class ModelGroupMissing(DomainError):
    """A model group was deleted meanwhile."""

    status_code = 409
    code = "model_group_gone"
    message = "A model group does not exist any more."


class UserGroupValues(TypedDict, total=False):
    """What a user group has; the fields of UserGroup."""

    name: str
    description: str
    multiplier_millionths: int
    rpm: int | None
    tpm: int | None
    concurrency: int | None
    cap_nanos: int | None
    daily_budget_nanos: int | None
    monthly_budget_nanos: int | None


def list_user_groups() -> QuerySet[UserGroup]:
    """Return the groups with `user_count` and their model groups."""
    return (
        UserGroup.objects.annotate(user_count=Count("users"))
        .prefetch_related("model_groups")
        .order_by("name", "id")
    )


def create_user_group(
    *,
    model_groups: Sequence[ModelGroup] = (),
    actor: AbstractBaseUser | None = None,
    request: HttpRequest | None = None,
    **values: Unpack[UserGroupValues],
) -> UserGroup:
    """Make a user group. Raises UserGroupExists and ModelGroupMissing."""
    group = UserGroup(**values)
    try:
        with transaction.atomic():
            group.save(force_insert=True)
            group.model_groups.set(model_groups)
            record_event(
                actor=actor,
                action="user_group.created",
                subject=group,
                after=_values_with_links(group),
                request=request,
            )
    except IntegrityError as error:
        raise _explain(error, group) from error
    return group


def change_user_group(
    *,
    group: UserGroup,
    model_groups: Sequence[ModelGroup] | None = None,
    actor: AbstractBaseUser | None = None,
    request: HttpRequest | None = None,
    **values: Unpack[UserGroupValues],
) -> UserGroup:
    """Change what is given of a user group and return it; None leaves its model groups.

    Raises UserGroupExists, UserGroupMissing and ModelGroupMissing.
    """
    row = group
    try:
        with transaction.atomic():
            row = _lock(group)
            links = _links_of(row)
            old, new = set_values(row, values)
            if new:
                row.save(update_fields=list(new))
            if model_groups is not None:
                row.model_groups.set(model_groups)
            links_before, links_after = changed_values(links, _links_of(row))
            if new or links_after:
                record_event(
                    actor=actor,
                    action="user_group.changed",
                    subject=row,
                    before={**old, **links_before},
                    after={**new, **links_after},
                    request=request,
                )
    except IntegrityError as error:
        raise _explain(error, row) from error
    return row


def delete_user_group(
    *, group: UserGroup, actor: AbstractBaseUser | None, request: HttpRequest | None = None
) -> None:
    """Delete a user group without users. Raises UserGroupInUse and UserGroupMissing."""
    try:
        with transaction.atomic():
            row = _lock(group)
            if row.users.exists():
                raise UserGroupInUse
            record_event(
                actor=actor,
                action="user_group.deleted",
                subject=row,
                before=_values_with_links(row),
                request=request,
            )
            row.delete()
    except IntegrityError as error:
        if group.users.exists():  # Somebody joined between the look and the commit.
            raise UserGroupInUse from error
        raise


def _lock(group: UserGroup) -> UserGroup:
    return lock_row(UserGroup.objects, group.pk, gone=UserGroupMissing)


def _values_with_links(group: UserGroup) -> dict[str, Any]:
    return {**values_of(group), **_links_of(group)}


def _links_of(group: UserGroup) -> dict[str, list[int]]:
    linked = group.model_groups.order_by("pk").values_list("pk", flat=True)
    return {"model_groups": list(linked)}


def _explain(error: IntegrityError, group: UserGroup) -> Exception:
    """Return what a constraint has refused."""
    if UserGroup.objects.exclude(pk=group.pk).filter(name=group.name).exists():
        return UserGroupExists()
    if "foreign key" in str(error).lower():
        return ModelGroupMissing()
    return error
