"""Quotas of many users at once, in pieces that are short enough not to keep the ledger waiting.

Each piece is complete: its quotas, their money, their events and how far the call got commit
together. A call that broke off goes on where it stopped when it comes again with its key.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from django.db import transaction

from apps.core.domain_errors import DomainError
from apps.core.pieces import leave_to_others
from apps.quotas.allowances import (
    Cause,
    Grant,
    QuotaChanges,
    change_quotas,
    check_changes,
    check_grant,
    give_quotas,
)
from apps.quotas.models import RepeatKey
from apps.quotas.repeats import Repeat, claim, find_claimed
from apps.users.models import User, UserGroup

SUBJECTS_MAX: Final = 1_000
# SQLite has one writer: a piece takes about 10 ms and must leave the lock within 50.
PIECE: Final = 20


class GroupTooLarge(DomainError):
    """A user group has more members than one call can serve."""

    code = "user_group_too_large"
    message = f"This user group has more than {SUBJECTS_MAX} active users. Name them in parts."


class GroupEmpty(DomainError):
    """A user group has nobody to give a quota to."""

    code = "user_group_empty"
    message = "This user group has no active users."


class StoppedHalfway(DomainError):
    """A later piece is refused by what has changed since the call was checked."""

    status_code = 409
    code = "stopped_halfway"
    message = "Only some are done. The same call with the same key goes on when this is put right."


def list_members(group: UserGroup) -> list[int]:
    """Return the ids of the group's active users. Raises GroupTooLarge and GroupEmpty."""
    rows = User.objects.filter(user_group=group, is_active=True).order_by("pk")
    found = list(rows.values_list("pk", flat=True)[: SUBJECTS_MAX + 1])
    if len(found) > SUBJECTS_MAX:
        raise GroupTooLarge
    if not found:
        raise GroupEmpty
    return found


def give_in_bulk(
    *, user_ids: Sequence[int], grant: Grant, cause: Cause, repeat: Repeat
) -> list[int]:
    """Give each user a quota and return the ids of the quotas, in the order of the users.

    Users that are gone by then are left out. Raises TotalOutOfRange, ExpiryPassed, GroupGone,
    IdempotencyKeyReused and StoppedHalfway.
    """
    _check_first(repeat, lambda: check_grant(grant))

    def give(piece: Sequence[int]) -> list[int]:
        made = give_quotas(user_ids=piece, grant=grant, cause=cause)
        by_user = {quota.user_id: quota.pk for quota in made}
        return [by_user.get(user_id, 0) for user_id in piece]

    return _in_pieces(subjects=user_ids, act=give, repeat=repeat)


def change_in_bulk(
    *, quota_ids: Sequence[int], changes: QuotaChanges, cause: Cause, repeat: Repeat
) -> list[int]:
    """Change quotas alike and return the ids of those that still exist.

    Nothing is changed where one of them refuses it. Raises TotalOutOfRange, TotalBelowUse,
    IdempotencyKeyReused and, where something else has come in between, StoppedHalfway.
    """
    _check_first(repeat, lambda: check_changes(quota_ids=quota_ids, changes=changes))

    def change(piece: Sequence[int]) -> list[int]:
        found = change_quotas(quota_ids=piece, changes=changes, cause=cause)
        known = {quota.pk for quota in found}
        return [quota_id if quota_id in known else 0 for quota_id in piece]

    return _in_pieces(subjects=quota_ids, act=change, repeat=repeat)


def _check_first(repeat: Repeat, check: Callable[[], None]) -> None:
    """Check a call before its first piece; one that has begun goes on as far as it can."""
    if find_claimed(repeat) is not None:
        return
    try:
        check()
    except DomainError:
        # The same call, come twice at once, may have begun meanwhile.
        if find_claimed(repeat) is None:
            raise


def _in_pieces(
    *, subjects: Sequence[int], act: Callable[[Sequence[int]], list[int]], repeat: Repeat
) -> list[int]:
    """Do a piece of work in each transaction until all is done, and return what was done."""
    while True:  # Each turn is a piece nearer to the end, and subjects are bounded by the views.
        with transaction.atomic():
            row = claim(repeat, subjects)
            piece = row.subjects[len(row.done) : len(row.done) + PIECE]
            if not piece:
                return [quota_id for quota_id in row.done if quota_id]
            try:
                row.done = row.done + act(piece)
            except DomainError as error:
                if not row.done:
                    raise
                raise _stopped(row, error) from error
            row.save(update_fields=["done"])
        if len(row.done) < len(row.subjects):
            leave_to_others()


def _stopped(row: RepeatKey, error: DomainError) -> StoppedHalfway:
    """Return what says how far the call got, and why no further."""
    done = [quota_id for quota_id in row.done if quota_id]
    left = len(row.subjects) - len(row.done)
    return StoppedHalfway(
        f"{StoppedHalfway.message} {left} are left: {error}", details={"done": done}
    )
