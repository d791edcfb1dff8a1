"""Adjustments that want a second administrator, over REST."""

from __future__ import annotations

from typing import Any, Final

import pytest
from pytest_django import Settings
from rest_framework.test import APIClient

from apps.billing.adjustments import adjust_balance
from apps.billing.models import Entry, ProposedAdjustment, Transaction
from apps.users.models import User
from tests.support.people import balance_of, make_admin, make_user, rest_client

USD: Final = 10**9
BASE: Final = "/api/admin/proposed-adjustments/"

pytestmark = pytest.mark.usefixtures("db")


@pytest.fixture
def root(settings: Settings) -> User:
    """The administrator who asks; each may move 100 dollars alone."""
    settings.ADJUSTMENT_NANOS_ALONE = 100 * USD
    return make_admin(username="root")


@pytest.fixture
def asking(root: User) -> APIClient:
    """A client of who asks."""
    return rest_client(root)


@pytest.fixture
def deciding(root: User) -> APIClient:
    """A client of the second administrator."""
    return rest_client(make_admin(username="grace"))


@pytest.fixture
def ada(root: User) -> User:
    """Whose balance it is."""
    return make_user(username="ada")


def _adjust(client: APIClient, user: User, **given: Any) -> Any:
    body = {"amount": "100.01", "reason": "invoice", **given}
    return client.post(f"/api/admin/users/{user.pk}/adjust-balance/", body)


def test_an_adjustment_above_the_limit_is_accepted_approved_and_shown(
    asking: APIClient, deciding: APIClient, root: User, ada: User
) -> None:
    asked = _adjust(asking, ada)
    made = asked.json()

    assert asked.status_code == 202
    assert {name: made[name] for name in made if not name.endswith(("_at", "id"))} == {
        "user": ada.pk,
        "user_name": "ada",
        "amount": "100.01",
        "reason": "invoice",
        "corrects": None,
        "status": "pending",
        "requested_by": root.pk,
        "requested_by_name": "root",
        "decided_by": None,
        "decided_by_name": "",
        "decision_reason": "",
        "transaction": None,
    }
    assert made["expires_at"][11:] == made["requested_at"][11:]
    assert balance_of(ada) == 0

    approved = deciding.post(f"{BASE}{made['id']}/approve/", {})
    shown = asking.get(f"{BASE}{made['id']}/")

    assert (approved.status_code, shown.json()) == (200, approved.json())
    assert (shown.json()["status"], shown.json()["decided_by_name"]) == ("approved", "grace")
    assert shown.json()["transaction"] == str(Transaction.objects.get().pk)
    assert balance_of(ada) == 100_010_000_000


def test_the_same_key_again_gets_202_again_and_does_nothing_twice(
    asking: APIClient, deciding: APIClient, ada: User
) -> None:
    headers = {"Idempotency-Key": "invoice-1701"}
    path, body = f"/api/admin/users/{ada.pk}/adjust-balance/", {"amount": "101", "reason": "x"}

    first = asking.post(path, body, headers=headers)
    again = asking.post(path, body, headers=headers)
    deciding.post(f"{BASE}{first.json()['id']}/approve/", {})
    later = asking.post(path, body, headers=headers)
    other = asking.post(path, {**body, "amount": "102"}, headers=headers)

    assert [first.status_code, again.status_code, later.status_code] == [202, 202, 202]
    assert first.json() == again.json()
    assert (later.json()["id"], later.json()["status"]) == (first.json()["id"], "approved")
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert ProposedAdjustment.objects.count() == Transaction.objects.count() == 1


def test_what_cannot_be_decided_is_refused_and_goes_on_waiting(
    asking: APIClient, deciding: APIClient, ada: User
) -> None:
    path = f"{BASE}{_adjust(asking, ada, amount='-101').json()['id']}/"

    answers = [
        asking.post(f"{path}approve/", {}),
        asking.post(f"{path}reject/", {"reason": "no"}),
        deciding.post(f"{path}withdraw/", {}),
        deciding.post(f"{path}approve/", {}),
        deciding.post(f"{path}reject/", {}),
        deciding.post(f"{path}reject/", {"reason": ""}),
        deciding.post(f"{path}approve/", {"amount": "1"}),
        deciding.post(f"{BASE}987654321/approve/", {}),
    ]

    assert [(one.status_code, one.json().get("code", one.json())) for one in answers] == [
        (403, "second_administrator_needed"),
        (403, "second_administrator_needed"),
        (403, "not_requester"),
        (409, "insufficient_balance"),
        (400, {"reason": ["This field is required."]}),
        (400, {"reason": ["This field may not be blank."]}),
        (400, {"amount": ["Unknown field."]}),
        (404, "not_found"),
    ]
    assert asking.get(path).json()["status"] == "pending"
    assert Entry.objects.count() == 0


def test_a_rejected_or_withdrawn_one_is_not_approved_any_more(
    asking: APIClient, deciding: APIClient, ada: User
) -> None:
    rejected, withdrawn = (f"{BASE}{_adjust(asking, ada).json()['id']}/" for _ in range(2))

    no = deciding.post(f"{rejected}reject/", {"reason": "paid already"})
    back = asking.post(f"{withdrawn}withdraw/", {})
    late = [deciding.post(f"{path}approve/", {}) for path in (rejected, withdrawn)]

    assert (no.json()["status"], no.json()["decision_reason"]) == ("rejected", "paid already")
    assert back.json()["status"] == "withdrawn"
    assert [(one.status_code, one.json()["code"], one.json()["status"]) for one in late] == [
        (409, "proposal_decided", "rejected"),
        (409, "proposal_decided", "withdrawn"),
    ]
    assert balance_of(ada) == 0


def test_the_list_is_filtered_and_read_page_by_page(
    asking: APIClient, deciding: APIClient, root: User, ada: User
) -> None:
    other = make_user()
    ids = [_adjust(asking, user).json()["id"] for user in (ada, ada, other)]
    ids.append(_adjust(deciding, ada).json()["id"])
    posted = deciding.post(f"{BASE}{ids[0]}/approve/", {}).json()["transaction"]

    found = {
        query: [row["id"] for row in asking.get(f"{BASE}?{query}").json()["results"]]
        for query in (
            "",
            "status=pending",
            "status=approved",
            f"user={other.pk}",
            f"status=pending&requested_by={root.pk}",
            f"transaction={posted}",
        )
    }
    first = asking.get(f"{BASE}?page_size=3").json()
    second = asking.get(first["next"]).json()

    assert list(found.values()) == [
        ids[::-1],
        ids[:0:-1],
        [ids[0]],
        [ids[2]],
        [ids[2], ids[1]],
        [ids[0]],
    ]
    assert [row["id"] for row in first["results"] + second["results"]] == ids[::-1]
    assert second["next"] is None
    assert asking.get(f"{BASE}?status=waiting").status_code == 400


def test_an_adjustment_that_corrects_an_entry_says_so_in_the_ledger(
    asking: APIClient, deciding: APIClient, ada: User
) -> None:
    wrong = adjust_balance(
        customer_id=ada.customer_id, amount_nanos=200 * USD, actor=None, reason="typo"
    ).entries.get(account__kind="wallet")

    alone = _adjust(asking, ada, amount="-1", corrects=wrong.pk)
    waiting = _adjust(asking, ada, amount="-150", corrects=wrong.pk)
    deciding.post(f"{BASE}{waiting.json()['id']}/approve/", {})
    listed = asking.get(f"/api/admin/users/{ada.pk}/ledger/").json()["results"]

    assert (alone.status_code, waiting.status_code) == (200, 202)
    assert waiting.json()["corrects"] == wrong.pk
    assert [(row["amount"], row["corrects"]) for row in listed] == [
        ("-150", wrong.pk),
        ("-1", wrong.pk),
        ("200", None),
    ]


@pytest.mark.parametrize("amount", ["1", "101"])
def test_an_entry_of_somebody_else_cannot_be_corrected(
    asking: APIClient, ada: User, amount: str
) -> None:
    posted = adjust_balance(
        customer_id=make_user().customer_id, amount_nanos=USD, actor=None, reason="gift"
    )
    theirs = [entry.pk for entry in posted.entries.all()]

    answers = [_adjust(asking, ada, amount=amount, corrects=pk) for pk in (*theirs, 2**63 - 1)]

    assert [one.status_code for one in answers] == [400, 400, 400]
    assert all(
        one.json() == {"corrects": ["This user has no ledger entry with this id."]}
        for one in answers
    )
    assert _adjust(asking, ada, corrects=2**63).status_code == 400
    assert Transaction.objects.count() == 1
    assert ProposedAdjustment.objects.count() == 0
