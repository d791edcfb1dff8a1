"""What goes beyond what one administrator may move alone waits for a second one.

Over 400 lines because each way out of waiting is tried with each that excludes it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from django.db import IntegrityError, transaction
from pytest_django import Settings

from apps.audit.models import AdminEvent
from apps.billing.adjustments import (
    AmountOutOfRange,
    InsufficientBalance,
    NoSuchEntry,
    adjust_balance,
)
from apps.billing.customers import adjust_user_balance, delete_user
from apps.billing.models import Entry, ProposedAdjustment, Transaction
from apps.billing.proposals import (
    PENDING_MAX,
    NotRequester,
    ProposalDecided,
    ProposalExpired,
    SecondNeeded,
    TooManyProposals,
    approve_adjustment,
    expire_adjustments,
    reject_adjustment,
    sum_alone,
    withdraw_adjustment,
)
from apps.core.idempotency_keys import IdempotencyKeyReused
from apps.users.changes import OwnAccount, RoleLost, UserChanges, change_user
from apps.users.models import User
from tests.support.admin_events import list_actions
from tests.support.people import balance_of, make_admin, make_user

USD = 10**9

pytestmark = pytest.mark.usefixtures("db")


@pytest.fixture
def limit(settings: Settings) -> Callable[[int | None], None]:
    """Return what sets how many dollars one administrator may move alone; at first 100."""

    def choose(dollars: int | None) -> None:
        settings.ADJUSTMENT_NANOS_ALONE = None if dollars is None else dollars * USD

    choose(100)
    return choose


@pytest.fixture
def root(limit: object) -> User:
    """The administrator who asks."""
    return make_admin(username="root")


@pytest.fixture
def grace(root: User) -> User:
    """The second administrator."""
    return make_admin(username="grace")


@pytest.fixture
def ada(root: User) -> User:
    """Whose balance it is."""
    return make_user(username="ada")


def _propose(user: User, actor: User, dollars: int = 101, key: str = "") -> ProposedAdjustment:
    made = adjust_user_balance(
        user=user, amount_nanos=dollars * USD, reason="invoice", actor=actor, idempotency_key=key
    )
    assert isinstance(made, ProposedAdjustment)
    return made


def _outdate(proposal: ProposedAdjustment) -> None:
    """Let the proposal have waited for seven days."""
    ProposedAdjustment.objects.filter(pk=proposal.pk).update(
        requested_at=datetime.now(UTC) - timedelta(days=7)
    )


def test_given_and_taken_are_added_up_and_what_is_above_the_limit_waits(
    root: User, ada: User
) -> None:
    made = [
        adjust_user_balance(user=ada, amount_nanos=nanos, reason="x", actor=root)
        for nanos in (60 * USD, -39 * USD, USD, 1, -1)
    ]

    assert [type(one) for one in made] == [Transaction] * 3 + [ProposedAdjustment] * 2
    assert balance_of(ada) == 22 * USD
    assert sum_alone(actor_id=root.pk, now=datetime.now(UTC)) == 100 * USD
    assert Transaction.objects.count() == 3


def test_without_a_limit_nothing_waits_and_with_none_left_everything_does(
    limit: Callable[[int | None], None], root: User, ada: User
) -> None:
    limit(None)
    alone = adjust_user_balance(user=ada, amount_nanos=10**6 * USD, reason="x", actor=root)
    limit(0)
    waiting = adjust_user_balance(user=ada, amount_nanos=1, reason="x", actor=root)
    system = adjust_user_balance(user=ada, amount_nanos=1, reason="x", actor=None)

    kinds = [type(one) for one in (alone, waiting, system)]
    assert kinds == [Transaction, ProposedAdjustment, Transaction]
    assert balance_of(ada) == 10**6 * USD + 1


def test_what_was_moved_more_than_24_hours_ago_counts_no_more(root: User, ada: User) -> None:
    now = datetime.now(UTC)
    for age in (timedelta(hours=24, minutes=1), timedelta(hours=23, minutes=59)):
        adjust_balance(
            customer_id=ada.customer_id,
            amount_nanos=60 * USD,
            actor=root,
            reason="x",
            now=now - age,
        )

    within = adjust_user_balance(user=ada, amount_nanos=40 * USD, reason="x", actor=root)
    beyond = adjust_user_balance(user=ada, amount_nanos=1, reason="x", actor=root)

    assert [type(within), type(beyond)] == [Transaction, ProposedAdjustment]


def test_each_administrator_has_a_sum_of_his_own_and_the_approved_counts_for_nobody(
    root: User, grace: User, ada: User
) -> None:
    approve_adjustment(proposal=_propose(ada, root, 500), actor=grace)

    by_root = adjust_user_balance(user=ada, amount_nanos=100 * USD, reason="x", actor=root)
    by_grace = adjust_user_balance(user=ada, amount_nanos=100 * USD, reason="x", actor=grace)

    assert [type(by_root), type(by_grace)] == [Transaction, Transaction]
    assert balance_of(ada) == 700 * USD


def test_what_waits_moves_nothing_and_is_on_record(root: User, ada: User) -> None:
    made = _propose(ada, root)

    assert (made.status, made.requested_by, made.transaction) == ("pending", root, None)
    assert (made.amount_nanos, made.reason) == (101 * USD, "invoice")
    assert Transaction.objects.count() == Entry.objects.count() == 0
    event = AdminEvent.objects.latest("id")
    assert (event.action, event.actor_id, event.reason) == (
        "proposed_adjustment.created",
        root.pk,
        "invoice",
    )
    assert (event.after or {})["amount_nanos"] == 101 * USD


def test_an_approval_posts_in_the_name_of_who_asked(root: User, grace: User, ada: User) -> None:
    done = approve_adjustment(proposal=_propose(ada, root), actor=grace)

    posted = Transaction.objects.get()
    assert (done.status, done.decided_by, done.transaction) == ("approved", grace, posted)
    assert (posted.kind, posted.actor_id, posted.reason) == ("adjustment", root.pk, "invoice")
    assert posted.idempotency_key == f"proposed_adjustment:{done.pk}"
    assert balance_of(ada) == 101 * USD
    events = list(AdminEvent.objects.order_by("-id")[:2])
    assert [(event.action, event.actor_id) for event in events] == [
        ("proposed_adjustment.approved", grace.pk),
        ("user.balance_adjusted", grace.pk),
    ]
    assert (events[0].before or {})["status"] == "pending"
    assert (events[0].after or {})["transaction_id"] == str(posted.pk)
    assert (events[1].after or {})["proposed_adjustment"] == done.pk


def test_nobody_decides_on_his_own(root: User, grace: User, ada: User) -> None:
    made = _propose(ada, root)

    with pytest.raises(SecondNeeded):
        approve_adjustment(proposal=made, actor=root)
    with pytest.raises(SecondNeeded):
        reject_adjustment(proposal=made, actor=root, reason="no")
    with pytest.raises(NotRequester):
        withdraw_adjustment(proposal=made, actor=grace)

    made.refresh_from_db()
    assert made.status == "pending"
    assert balance_of(ada) == 0
    assert list_actions() == ["proposed_adjustment.created"]


@pytest.mark.parametrize("status", ["approved", "rejected"])
def test_the_database_takes_nobody_for_his_own_second(root: User, ada: User, status: str) -> None:
    made = _propose(ada, root)
    posted = adjust_balance(
        customer_id=ada.customer_id, amount_nanos=USD, actor=None, reason="by hand"
    )

    with pytest.raises(IntegrityError, match="billing_proposal_second"), transaction.atomic():
        ProposedAdjustment.objects.filter(pk=made.pk).update(
            status=status,
            decided_by=root,
            decided_at=datetime.now(UTC),
            transaction=posted if status == "approved" else None,
        )


def test_nobody_approves_money_for_himself(root: User, grace: User) -> None:
    made = _propose(grace, root)

    with pytest.raises(OwnAccount):
        approve_adjustment(proposal=made, actor=grace)
    assert balance_of(grace) == 0


@pytest.mark.parametrize("changes", [{"role": "analyst"}, {"is_active": False}])
def test_who_is_no_active_administrator_any_more_decides_nothing(
    root: User, grace: User, ada: User, changes: UserChanges
) -> None:
    made = _propose(ada, root)
    change_user(user=User.objects.get(pk=grace.pk), actor=root, **changes)

    with pytest.raises(RoleLost):
        approve_adjustment(proposal=made, actor=grace)
    with pytest.raises(RoleLost):
        reject_adjustment(proposal=made, actor=grace, reason="no")
    with pytest.raises(RoleLost):
        adjust_user_balance(user=ada, amount_nanos=USD, reason="x", actor=grace)
    assert balance_of(ada) == 0
    made.refresh_from_db()
    assert made.status == "pending"


def test_what_is_decided_stays_so(root: User, grace: User, ada: User) -> None:
    decided = [
        approve_adjustment(proposal=_propose(ada, root), actor=grace),
        reject_adjustment(proposal=_propose(ada, root), actor=grace, reason="paid already"),
        withdraw_adjustment(proposal=_propose(ada, root), actor=root),
    ]

    for done in decided:
        with pytest.raises(ProposalDecided):
            approve_adjustment(proposal=done, actor=grace)
        with pytest.raises(ProposalDecided):
            reject_adjustment(proposal=done, actor=grace, reason="no")
        with pytest.raises(ProposalDecided):
            withdraw_adjustment(proposal=done, actor=root)

    rows = ProposedAdjustment.objects.order_by("id")
    assert list(rows.values_list("status", "decided_by_id", "decision_reason")) == [
        ("approved", grace.pk, ""),
        ("rejected", grace.pk, "paid already"),
        ("withdrawn", root.pk, ""),
    ]
    assert balance_of(ada) == 101 * USD


def test_where_the_balance_does_not_cover_it_an_approval_leaves_it_waiting(
    root: User, grace: User, ada: User
) -> None:
    made = _propose(ada, root, -101)

    with pytest.raises(InsufficientBalance):
        approve_adjustment(proposal=made, actor=grace)

    made.refresh_from_db()
    assert (made.status, made.decided_by) == ("pending", None)
    assert list_actions() == ["proposed_adjustment.created"]
    adjust_user_balance(user=ada, amount_nanos=101 * USD, reason="x", actor=None)
    assert approve_adjustment(proposal=made, actor=grace).status == "approved"
    assert balance_of(ada) == 0


def test_after_seven_days_it_is_too_late(root: User, grace: User, ada: User) -> None:
    old, young = _propose(ada, root), _propose(ada, root)
    _outdate(old)

    for decide in (approve_adjustment, withdraw_adjustment):
        with pytest.raises(ProposalExpired):
            decide(proposal=old, actor=grace)
    assert expire_adjustments() == 1
    assert expire_adjustments() == 0

    old.refresh_from_db()
    young.refresh_from_db()
    assert (old.status, old.decided_by, young.status) == ("expired", None, "pending")
    assert old.decided_at is not None
    assert balance_of(ada) == 0
    event = AdminEvent.objects.latest("id")
    assert (event.action, event.actor_name) == ("proposed_adjustment.expired", "system")


def test_more_than_one_piece_expires_in_one_run(root: User, ada: User) -> None:
    for _ in range(45):
        _propose(ada, root)
    ProposedAdjustment.objects.update(requested_at=datetime.now(UTC) - timedelta(days=8))

    assert expire_adjustments() == 45


def test_a_hundred_may_wait_for_each_administrator(root: User, grace: User, ada: User) -> None:
    for _ in range(PENDING_MAX):
        _propose(ada, root)

    with pytest.raises(TooManyProposals):
        _propose(ada, root)
    _propose(ada, grace)
    withdraw_adjustment(proposal=ProposedAdjustment.objects.all()[0], actor=root)
    _propose(ada, root)

    assert ProposedAdjustment.objects.filter(status="pending").count() == PENDING_MAX + 1


def test_the_same_key_again_is_the_same_proposal_also_when_it_is_decided(
    limit: Callable[[int | None], None], root: User, grace: User, ada: User
) -> None:
    made = _propose(ada, root, key="k1")
    assert _propose(ada, root, key="k1").pk == made.pk
    approve_adjustment(proposal=made, actor=grace)
    again = _propose(ada, root, key="k1")
    limit(None)
    without_limit = _propose(ada, root, key="k1")

    assert (again.pk, again.status, without_limit.pk) == (made.pk, "approved", made.pk)
    with pytest.raises(IdempotencyKeyReused):
        _propose(ada, root, 102, key="k1")
    assert balance_of(ada) == 101 * USD
    assert ProposedAdjustment.objects.count() == Transaction.objects.count() == 1


def test_what_was_posted_alone_is_not_judged_again_when_its_key_comes_again(
    root: User, ada: User
) -> None:
    first, again = (
        adjust_user_balance(
            user=ada, amount_nanos=100 * USD, reason="x", actor=root, idempotency_key="k1"
        )
        for _ in range(2)
    )

    assert isinstance(again, Transaction)
    assert first.pk == again.pk
    assert ProposedAdjustment.objects.count() == 0


def test_what_can_never_be_posted_is_not_kept(root: User, ada: User) -> None:
    with pytest.raises(AmountOutOfRange):
        _propose(ada, root, 1_000_001)
    make_admin()
    with pytest.raises(OwnAccount):
        _propose(root, root)
    with pytest.raises(NoSuchEntry):
        adjust_user_balance(user=ada, amount_nanos=101 * USD, reason="x", actor=root, corrects_id=1)
    assert ProposedAdjustment.objects.count() == 0


def test_who_is_named_in_a_proposal_is_not_deleted(root: User, grace: User, ada: User) -> None:
    made = _propose(ada, root)
    reject_adjustment(proposal=made, actor=grace, reason="no")
    last = make_admin()

    gone = [delete_user(user=user, actor=last) for user in (ada, root, grace)]

    assert gone == [False, False, False]
    made.refresh_from_db()
    assert (made.user, made.requested_by, made.decided_by) == (ada, root, grace)


def test_an_adjustment_names_the_entry_that_it_corrects(root: User, grace: User, ada: User) -> None:
    wrong = adjust_balance(
        customer_id=ada.customer_id, amount_nanos=200 * USD, actor=None, reason="typo"
    ).entries.get(account__kind="wallet")

    alone = adjust_user_balance(
        user=ada, amount_nanos=-50 * USD, reason="x", actor=root, corrects_id=wrong.pk
    )
    waiting = adjust_user_balance(
        user=ada, amount_nanos=-130 * USD, reason="x", actor=root, corrects_id=wrong.pk
    )
    assert isinstance(waiting, ProposedAdjustment)
    approve_adjustment(proposal=waiting, actor=grace)

    rows = Entry.objects.order_by("id").values_list("amount_nanos", "corrects_id")
    assert list(rows)[2:] == [
        (50 * USD, None),
        (-50 * USD, wrong.pk),
        (130 * USD, None),
        (-130 * USD, wrong.pk),
    ]
    assert isinstance(alone, Transaction)
    assert balance_of(ada) == 20 * USD


def test_only_an_entry_of_the_user_s_own_can_be_corrected(root: User, ada: User) -> None:
    posted = adjust_balance(
        customer_id=make_user().customer_id, amount_nanos=USD, actor=None, reason="gift"
    )

    for entry in posted.entries.all():
        with pytest.raises(NoSuchEntry):
            adjust_user_balance(
                user=ada, amount_nanos=USD, reason="x", actor=root, corrects_id=entry.pk
            )
    assert Transaction.objects.count() == 1


def test_the_same_key_with_another_entry_to_correct_is_refused(root: User, ada: User) -> None:
    gift = adjust_balance(
        customer_id=ada.customer_id, amount_nanos=USD, actor=None, reason="gift"
    ).entries.get(account__kind="wallet")
    for dollars in (1, 101):
        adjust_user_balance(
            user=ada, amount_nanos=dollars * USD, reason="x", actor=root,
            idempotency_key=f"k{dollars}", corrects_id=gift.pk,
        )  # fmt: skip

        with pytest.raises(IdempotencyKeyReused):
            adjust_user_balance(
                user=ada, amount_nanos=dollars * USD, reason="x", actor=root,
                idempotency_key=f"k{dollars}",
            )  # fmt: skip
    assert balance_of(ada) == 2 * USD
