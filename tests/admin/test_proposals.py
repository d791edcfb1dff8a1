"""Adjustments that want a second administrator, in the Django admin: by the rules of REST."""

from __future__ import annotations

import pytest
from django.test import Client
from django.urls import reverse
from pytest_django import Settings

from apps.audit.models import AdminEvent
from apps.billing.customers import adjust_user_balance
from apps.billing.models import Entry, ProposedAdjustment, Transaction
from apps.users.models import User
from tests.support.house import page_of, read_values, send, send_values, texts_of
from tests.support.people import balance_of, make_admin, make_user

USD = 10**9
WAITS = "Nothing is moved yet: this waits for a second administrator."


@pytest.fixture
def ada(db: None, settings: Settings) -> User:
    """A user; each administrator may move 100 dollars alone."""
    settings.ADJUSTMENT_NANOS_ALONE = 100 * USD
    return make_user(username="ada")


def _browser(name: str) -> Client:
    browser = Client()
    browser.force_login(make_admin(username=name))
    return browser


@pytest.fixture
def asking(ada: User) -> Client:
    """The browser of who asks."""
    return _browser("root")


@pytest.fixture
def deciding(ada: User) -> Client:
    """The browser of the second administrator."""
    return _browser("grace")


def _propose(client: Client, user: User, amount: str = "101") -> ProposedAdjustment:
    path = reverse("admin:users_user_adjust_balance", args=[user.pk])
    told = texts_of(send(client, path, amount=amount, reason="invoice"))
    assert told == [WAITS]
    return ProposedAdjustment.objects.latest("id")


def _page(name: str, row: ProposedAdjustment) -> str:
    return reverse(f"admin:billing_proposedadjustment_{name}", args=[row.pk])


def test_the_form_names_the_entry_that_is_corrected_as_rest_does(
    asking: Client, deciding: Client, ada: User
) -> None:
    path = reverse("admin:users_user_adjust_balance", args=[ada.pk])
    send(asking, path, amount="50", reason="invoice")
    wrong = Entry.objects.get(account__customer_id=ada.customer_id)

    alone = send(asking, path, amount="-1", reason="mistake", corrects=str(wrong.pk))
    waiting = send(asking, path, amount="-60", reason="mistake", corrects=str(wrong.pk))

    assert texts_of(alone) == ["Adjusted by -$1."]
    assert texts_of(waiting) == [WAITS]
    made = ProposedAdjustment.objects.get()
    assert made.corrects_id == wrong.pk
    asked = deciding.get(_page("approve", made)).content.decode()
    assert f'<div class="readonly">{wrong.pk}</div>' in asked
    entries = Entry.objects.filter(account__customer_id=ada.customer_id).order_by("id")
    assert list(entries.values_list("amount_nanos", "corrects_id")) == [
        (50 * USD, None),
        (-USD, wrong.pk),
    ]


@pytest.mark.parametrize(
    ("language", "told"),
    [("en", "This user has no ledger entry with this id."), ("zh-CN", "此用户没有该 ID 的分录。")],
)
def test_what_is_no_entry_of_the_user_is_not_corrected(
    asking: Client, ada: User, language: str, told: str
) -> None:
    adjust_user_balance(user=make_user(username="eve"), amount_nanos=USD, reason="x", actor=None)
    theirs = Entry.objects.get(account__customer__user__username="eve")
    path = reverse("admin:users_user_adjust_balance", args=[ada.pk])
    values = read_values(asking.get(path)) | {"amount": "-1", "reason": "mistake"}

    for pk in (theirs.pk, 2**63 - 1):
        answer = asking.post(
            path, {**values, "corrects": str(pk)}, headers={"accept-language": language}
        )
        assert answer.context["form"].errors == {"corrects": [told]}
    for typed in ("0", "-1", str(2**63), "9" * 5_000, "x"):
        answer = send_values(asking, path, values, corrects=typed)
        assert list(answer.context["form"].errors) == ["corrects"]
    assert Entry.objects.filter(account__customer_id=ada.customer_id).count() == 0


def test_the_form_says_that_it_waits_and_the_second_one_approves(
    asking: Client, deciding: Client, ada: User
) -> None:
    made = _propose(asking, ada)
    listed = deciding.get(page_of(ProposedAdjustment, "changelist")).content.decode()
    shown = deciding.get(page_of(ProposedAdjustment, "change", made.pk)).content.decode()

    for name in ("approve", "reject"):
        assert _page(name, made) in listed
        assert _page(name, made) in shown
    assert balance_of(ada) == 0
    asked = deciding.get(_page("approve", made)).content.decode()
    assert made.reason in asked
    assert str(made.requested_by) in asked

    done = send(deciding, _page("approve", made))

    assert texts_of(done) == ["The adjustment is posted."]
    assert balance_of(ada) == 101 * USD
    assert _page("approve", made) not in done.content.decode()
    assert (
        _page("approve", made)
        not in deciding.get(page_of(ProposedAdjustment, "changelist")).content.decode()
    )
    actor = AdminEvent.objects.get(action="proposed_adjustment.approved").actor_name
    assert actor == "grace"


def test_nobody_approves_or_rejects_his_own_here_either(asking: Client, ada: User) -> None:
    made = _propose(asking, ada)

    approved = send(asking, _page("approve", made))
    rejected = send(asking, _page("reject", made), reason="no")

    refused = ["Another administrator has to decide on your adjustment."]
    assert approved.context["form"].non_field_errors() == refused
    assert rejected.context["form"].non_field_errors() == refused
    assert texts_of(send(asking, _page("withdraw", made))) == ["The adjustment is withdrawn."]
    made.refresh_from_db()
    assert made.status == "withdrawn"
    assert Transaction.objects.count() == 0


def test_a_rejection_wants_a_reason_and_decides(
    asking: Client, deciding: Client, ada: User
) -> None:
    made = _propose(asking, ada)

    without = send(deciding, _page("reject", made), reason="")
    given = send(deciding, _page("reject", made), reason="paid already")
    late = send(deciding, _page("approve", made))

    assert without.context["form"].errors == {"reason": ["This field is required."]}
    assert texts_of(given) == ["The adjustment is rejected."]
    assert late.context["form"].non_field_errors() == ["This adjustment is decided already."]
    made.refresh_from_db()
    assert (made.status, made.decision_reason) == ("rejected", "paid already")
    assert Transaction.objects.count() == 0


def test_a_balance_that_does_not_cover_it_is_told_and_it_goes_on_waiting(
    asking: Client, deciding: Client, ada: User
) -> None:
    made = _propose(asking, ada, "-101")

    refused = send(deciding, _page("approve", made))

    assert refused.context["form"].non_field_errors() == ["The balance does not cover this."]
    made.refresh_from_db()
    assert made.status == "pending"


@pytest.mark.parametrize("name", ["approve", "reject", "withdraw"])
def test_who_may_not_use_the_admin_decides_nothing(asking: Client, ada: User, name: str) -> None:
    made = _propose(asking, ada)
    stranger = Client()
    stranger.force_login(make_user(role="admin"))

    answer = stranger.post(_page(name, made), {"reason": "no"})

    assert answer.status_code == 302
    assert answer.headers["Location"].startswith(reverse("admin:login"))
    assert asking.get(_page(name, made).replace(f"/{made.pk}/", "/999/")).status_code == 404
    made.refresh_from_db()
    assert made.status == "pending"


def test_the_pages_are_in_chinese_for_who_reads_it(
    asking: Client, deciding: Client, ada: User
) -> None:
    made = _propose(asking, ada)
    headers = {"accept-language": "zh-CN"}

    page = deciding.get(_page("reject", made), headers=headers).content.decode()
    refused = asking.post(_page("approve", made), {"sent": "yes"}, headers=headers)

    assert "拒绝" in page
    assert "理由" in page or "原因" in page
    assert refused.context["form"].non_field_errors() == ["您的调整须由另一位管理员决定。"]
