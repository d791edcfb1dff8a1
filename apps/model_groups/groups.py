"""Making, changing and removing model groups."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final, TypeVar

from django.contrib.auth.base_user import AbstractBaseUser
from django.db import IntegrityError, transaction
from django.db import models as db
from django.http import HttpRequest

from apps.ai_models.models import AIModel
from apps.audit.events import changed_values, record_event, set_values, values_of
from apps.core.domain_errors import DomainError, Gone
from apps.core.locks import lock_row
from apps.model_groups.models import ModelGroup
from apps.users.models import UserGroup

MEMBERS_MAX: Final = 1_000  # of each kind

_Member = TypeVar("_Member", AIModel, UserGroup)


class GroupExists(DomainError):
    """There is a model group of this name."""

    status_code = 409
    code = "model_group_exists"
    message = "A model group with this name already exists."


class GroupGone(Gone):
    """The group was deleted meanwhile."""


class MemberGone(DomainError):
    """A model or user group was deleted meanwhile."""

    status_code = 409
    code = "member_gone"
    message = "A model or user group that was named was deleted meanwhile."


def create_group(
    *,
    name: str,
    models: Collection[AIModel] = (),
    user_groups: Collection[UserGroup] = (),
    description: str = "",
    is_public: bool = False,
    is_active: bool = True,
    multiplier_millionths: int = 1_000_000,
    actor: AbstractBaseUser | None = None,
    request: HttpRequest | None = None,
) -> ModelGroup:
    """Make a group of models. Raises GroupExists and MemberGone."""
    with transaction.atomic():
        group = ModelGroup(
            name=name,
            description=description,
            is_public=is_public,
            is_active=is_active,
            multiplier_millionths=multiplier_millionths,
        )
        _save(group)
        group.models.set(_lock_members(AIModel, models))
        group.user_groups.set(_lock_members(UserGroup, user_groups))
        record_event(
            actor=actor,
            action="model_group.created",
            subject=group,
            after=_values_with_links(group),
            request=request,
        )
    return group


def change_group(
    *,
    group: ModelGroup,
    values: Mapping[str, Any],
    models: Collection[AIModel] | None = None,
    user_groups: Collection[UserGroup] | None = None,
    actor: AbstractBaseUser | None = None,
    request: HttpRequest | None = None,
) -> ModelGroup:
    """Set the given fields, replace the given members, and return the group as it is now.

    Raises GroupExists, GroupGone and MemberGone.
    """
    with transaction.atomic():
        locked = lock_group(group)
        links = _links_of(locked)
        old, new = set_values(locked, values)
        if new:
            _save(locked, fields=list(new))
        if models is not None:
            locked.models.set(_lock_members(AIModel, models))
        if user_groups is not None:
            locked.user_groups.set(_lock_members(UserGroup, user_groups))
        links_before, links_after = changed_values(links, _links_of(locked))
        if new or links_after:
            record_event(
                actor=actor,
                action="model_group.changed",
                subject=locked,
                before={**old, **links_before},
                after={**new, **links_after},
                request=request,
            )
    return locked


def remove_group(
    *,
    group: ModelGroup,
    actor: AbstractBaseUser | None = None,
    request: HttpRequest | None = None,
) -> bool:
    """Delete a group and return True; deactivate one that has quotas and return False."""
    with transaction.atomic():
        locked = lock_group(group)
        if locked.quotas.exists():
            if locked.is_active:
                locked.is_active = False
                locked.save(update_fields=["is_active"])
                record_event(
                    actor=actor,
                    action="model_group.deactivated",
                    subject=locked,
                    before={"is_active": True},
                    after={"is_active": False},
                    request=request,
                )
            return False
        record_event(
            actor=actor,
            action="model_group.deleted",
            subject=locked,
            before=_values_with_links(locked),
            request=request,
        )
        locked.delete()
    return True


def lock_group(group: ModelGroup) -> ModelGroup:
    """Return the row as it is now, locked until the end of the transaction. Raises GroupGone."""
    return lock_row(ModelGroup.objects, group.pk, gone=GroupGone)


def _lock_members(kind: type[_Member], members: Collection[_Member]) -> list[_Member]:
    """Keep members from being deleted before the links to them are committed."""
    wanted = {member.pk for member in members}
    # Keys stay as they are, so that others who only refer to the rows need not wait.
    rows: db.QuerySet[_Member] = kind._default_manager.select_for_update(no_key=True)
    found = list(rows.filter(pk__in=wanted).order_by("pk"))
    if len(found) != len(wanted):
        raise MemberGone
    return found


def _values_with_links(group: ModelGroup) -> dict[str, Any]:
    return {**values_of(group), **_links_of(group)}


def _links_of(group: ModelGroup) -> dict[str, list[int]]:
    return {
        "models": sorted(group.models.values_list("pk", flat=True)),
        "user_groups": sorted(group.user_groups.values_list("pk", flat=True)),
    }


def _save(group: ModelGroup, *, fields: list[str] | None = None) -> None:
    try:
        with transaction.atomic():
            group.save(update_fields=fields)
    except IntegrityError as error:
        if ModelGroup.objects.filter(name=group.name).exclude(pk=group.pk).exists():
            raise GroupExists from error
        raise
