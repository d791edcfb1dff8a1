"""Tests of changing things in the Django admin: through the domain, on record, secrets unseen.

Over 400 lines because every page that changes something is tried by the same administrators.
"""

from __future__ import annotations

from typing import Any

import pytest
from django import forms
from django.db import models
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import Settings

from apps.ai_models.models import AIModel, PriceVersion, Route
from apps.api_keys.issue import digest_of, issue_key
from apps.api_keys.models import APIKey
from apps.audit.models import AdminEvent, APIRequest
from apps.billing.accounts import find_standing
from apps.billing.models import Entry
from apps.core.admin_fields import NanosFormField
from apps.model_groups.models import ModelGroup
from apps.providers.credentials import open_secret
from apps.providers.models import Provider, ProviderKey
from apps.quotas.allowances import remaining
from apps.quotas.models import UserQuota
from apps.users.models import Session, User, UserGroup
from tests.support.calls import record_call
from tests.support.house import (
    DOLLAR,
    House,
    page_of,
    read_values,
    send,
    send_values,
    texts_of,
)
from tests.support.people import PASSWORD


def test_a_provider_is_made_with_a_sealed_key(client: Client, house: House) -> None:
    answer = send(
        client,
        page_of(Provider, "add"),
        **{
            "name": "elsewhere",
            "base_url": "https://elsewhere.example.com/v1",
            "keys-TOTAL_FORMS": "1",
            "keys-0-name": "first",
            "keys-0-secret": "sk-CANARY-TWO-0123456789",
            "keys-0-weight": "2",
            "keys-0-daily_cost_nanos": "12.5",
            "keys-0-is_active": "on",
        },
    )

    key = ProviderKey.objects.get(provider__name="elsewhere")
    assert answer.status_code == 200
    assert key.daily_cost_nanos == 12_500_000_000  # Dollars were typed.
    assert open_secret(key) == "sk-CANARY-TWO-0123456789"
    assert (key.name, key.weight, key.last_four) == ("first", 2, "6789")
    assert b"CANARY-TWO" not in answer.content
    events = AdminEvent.objects.filter(actor_id=house.root.pk).order_by("-id")[:2]
    assert [event.action for event in events] == ["provider_key.created", "provider.created"]
    assert "CANARY-TWO" not in repr(list(AdminEvent.objects.values()))


def test_saving_a_provider_keeps_its_secret(client: Client, house: House) -> None:
    before = house.provider_key.sealed_secret

    send(client, page_of(Provider, "change", house.provider_key.provider_id), priority="4")

    house.provider_key.refresh_from_db()
    assert house.provider_key.sealed_secret == before
    event = AdminEvent.objects.latest("id")
    assert (event.action, event.before, event.after) == (
        "provider.changed",
        {"priority": 0},
        {"priority": 4},
    )


def test_a_provider_that_moves_leaves_its_keys_behind(client: Client, house: House) -> None:
    path = page_of(Provider, "change", house.provider_key.provider_id)

    answer = send(client, path, base_url="https://api.example.com/v2")

    assert list(ProviderKey.objects.values_list("is_active", flat=True)) == [False]
    assert "its stored keys were deactivated" in texts_of(answer)[0]


def test_a_key_typed_again_moves_with_its_provider(client: Client, house: House) -> None:
    send(
        client,
        page_of(Provider, "change", house.provider_key.provider_id),
        **{
            "base_url": "https://new.example.net/v1",
            "keys-0-secret": "sk-CANARY-NEW-0123456789",
        },
    )

    house.provider_key.refresh_from_db()
    assert house.provider_key.is_active
    assert open_secret(house.provider_key) == "sk-CANARY-NEW-0123456789"


def test_addresses_inside_are_refused(client: Client, house: House, settings: Settings) -> None:
    settings.PRIVATE_UPSTREAMS = ()
    path = page_of(Provider, "change", house.provider_key.provider_id)

    answer = send(client, path, base_url="http://127.0.0.1:8080/v1")

    assert "This URL is not allowed." in answer.content.decode()
    assert Provider.objects.get().base_url == "https://api.example.com/v1"


def test_a_new_key_of_a_provider_needs_its_secret(client: Client, house: House) -> None:
    path = page_of(ProviderKey, "add")

    refused = send(client, path, provider=str(house.provider_key.provider_id))
    made = send(
        client, path, provider=str(house.provider_key.provider_id), secret="sk-two-0123456789ab"
    )

    assert "A new key needs its secret." in refused.content.decode()
    assert made.status_code == 200
    assert open_secret(ProviderKey.objects.latest("id")) == "sk-two-0123456789ab"


def test_an_api_key_is_shown_once(client: Client, house: House) -> None:
    answer = send(
        client,
        page_of(APIKey, "add"),
        user=str(house.user.pk),
        name="laptop",
        allowed_models="big\nsmall\n",
        allowed_networks="10.0.0.0/8",
        allowed_operations=["chat", "usage"],
        cap_nanos="2.5",
        rpm="60",
    )

    shown = next(text for text in texts_of(answer) if "shown this once" in text)
    raw = shown.rpartition(" ")[2]
    key = APIKey.objects.get(digest=digest_of(raw))
    assert (key.user, key.name, key.cap_nanos, key.rpm) == (house.user, "laptop", 2_500_000_000, 60)
    assert (key.allowed_models, key.allowed_networks) == (["big", "small"], ["10.0.0.0/8"])
    assert key.allowed_operations == ["chat", "usage"]
    assert raw not in client.get(page_of(APIKey, "change", key.pk)).content.decode()
    assert AdminEvent.objects.latest("id").action == "api_key.created"


def test_an_api_key_can_be_restricted_and_deactivated(client: Client, house: House) -> None:
    path = page_of(APIKey, "change", house.key.pk)

    wrong = send(client, path, allowed_networks="elsewhere")
    unknown = send(client, path, allowed_operations=["chats"])
    send(
        client,
        path,
        is_active=None,
        allowed_networks="10.0.0.7",
        allowed_operations=["models"],
        cap_nanos="0.5",
    )

    house.key.refresh_from_db()
    assert "chats is not one of the available choices" in unknown.content.decode()
    assert house.key.allowed_operations == ["models"]
    assert "An allowed network is an address" in wrong.content.decode()
    assert (house.key.is_active, house.key.allowed_networks) == (False, ["10.0.0.7"])
    assert house.key.cap_nanos == 500_000_000
    assert bytes(house.key.digest) == digest_of(house.raw)
    assert AdminEvent.objects.latest("id").action == "api_key.changed"


def test_a_price_is_added_in_dollars_and_never_edited(client: Client, house: House) -> None:
    answer = send(
        client, page_of(PriceVersion, "add"), model=str(house.model.pk), input_nanos="2.5",
        output_nanos="10", request_nanos="0", web_search_nanos="0.01", minimum_nanos="0.001",
        terms='{"service_tiers": [{"name": "flex", "multiplier_millionths": 500000}]}',
    )  # fmt: skip

    price = PriceVersion.objects.latest("id")
    assert answer.status_code == 200
    assert (price.input_nanos, price.output_nanos) == (2_500_000_000, 10_000_000_000)
    assert (price.web_search_nanos, price.minimum_nanos) == (10_000_000, 1_000_000)
    assert price.terms == {"service_tiers": [{"name": "flex", "multiplier_millionths": 500_000}]}
    assert price.reasoning_nanos is None
    assert client.post(page_of(PriceVersion, "change", price.pk), {}).status_code == 403
    assert client.post(page_of(PriceVersion, "delete", price.pk), {}).status_code == 403


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ('{"tiers": []}', "terms has unknown fields: tiers."),
        (
            '{"context_tiers": [{"above_input_tokens": 9, "amounts": {"output": 5}}]}',
            "Above 9 input tokens output costs less than below.",
        ),
    ],
)
def test_terms_that_cannot_be_used_make_no_price(
    client: Client, house: House, terms: str, message: str
) -> None:
    before = PriceVersion.objects.count()

    answer = send(
        client, page_of(PriceVersion, "add"), model=str(house.model.pk), input_nanos="2.5",
        output_nanos="10", request_nanos="0", minimum_nanos="0", terms=terms,
    )  # fmt: skip

    assert message in answer.content.decode()
    assert PriceVersion.objects.count() == before


@pytest.mark.sqlite  # What a form refuses is decided before any database is asked.
@pytest.mark.parametrize(
    ("given", "refused"),
    [
        ({}, {"model": ["Choose a model (what clients pay) or a route (our cost)."]}),
        (
            {"model": True, "input_nanos": "1000001", "minimum_nanos": "2000000"},
            {
                "input_nanos": ["An amount must not exceed 1000000 USD."],
                "minimum_nanos": ["An amount must not exceed 1000000 USD."],
            },
        ),
        (
            {"terms": '{"context_tiers": [{"above_input_tokens": 9, "amounts": {"output": 5}}]}'},
            {
                "model": ["Choose a model (what clients pay) or a route (our cost)."],
                "terms": ["Above 9 input tokens output costs less than below."],
            },
        ),
    ],
)
def test_what_is_wrong_with_a_price_is_said_beside_its_field_and_once(
    client: Client, house: House, given: dict[str, Any], refused: dict[str, list[str]]
) -> None:
    values = {"input_nanos": "1", "output_nanos": "1", **given}
    if given.get("model"):
        values["model"] = str(house.model.pk)

    answer = send(client, page_of(PriceVersion, "add"), **values)

    assert answer.context["adminform"].form.errors == refused


def test_a_multiplier_is_written_as_a_number(client: Client, house: House) -> None:
    group = ModelGroup.objects.get()

    send(client, page_of(ModelGroup, "change", group.pk), multiplier_millionths="1.25")

    group.refresh_from_db()
    assert group.multiplier_millionths == 1_250_000
    assert list(group.models.all()) == [house.model]


def test_what_is_kept_in_whole_numbers_is_shown_in_dollars_and_as_numbers(
    client: Client, house: House
) -> None:
    price = PriceVersion.objects.create(
        model=house.model, effective_at=timezone.now(), input_nanos=2_500_000_000, output_nanos=1
    )
    call = record_call(multiplier_millionths=900_000)
    entry = Entry.objects.filter(amount_nanos__lt=0).earliest("id")

    priced = client.get(page_of(PriceVersion, "change", price.pk)).content.decode()
    called = client.get(page_of(APIRequest, "change", call.pk)).content.decode()

    assert "$2.5<" in priced
    assert "$0.000000001<" in priced
    assert "2500000000" not in priced
    assert "<label>Input:</label>" in priced
    assert ">0.9<" in called
    assert "900000" not in called
    assert str(entry) == "debit -$10"


@pytest.mark.parametrize(
    ("field", "typed", "reason"),
    [
        ("daily_budget_nanos", "-1", "An amount must not be below $0."),
        ("cap_nanos", "9000001", "An amount must not exceed 9000000 USD."),
        ("monthly_budget_nanos", "much", "An amount must be a decimal number such as 9.99."),
        ("multiplier_millionths", "-1", "Enter a number from 0 to 1000"),
        ("multiplier_millionths", "1001", "Enter a number from 0 to 1000"),
        ("multiplier_millionths", "0.0000001", "Enter a number from 0 to 1000"),
        ("multiplier_millionths", "half", "Enter a number from 0 to 1000"),
    ],
)
def test_what_is_wrong_about_an_amount_is_said_beside_it(
    client: Client, house: House, field: str, typed: str, reason: str
) -> None:
    group = UserGroup.objects.create(name="of the test")

    answer = send(client, page_of(UserGroup, "change", group.pk), **{field: typed})

    form = answer.context["adminform"].form
    assert list(form.errors) == [field]
    assert form.errors[field][0].startswith(reason)
    group.refresh_from_db()
    assert (group.daily_budget_nanos, group.cap_nanos, group.monthly_budget_nanos) == (None,) * 3
    assert group.multiplier_millionths == 1_000_000


@pytest.mark.sqlite  # What a form refuses is decided before any database is asked.
@pytest.mark.parametrize("typed", ["-1", "99999999999999999999999"])
@pytest.mark.parametrize(
    "kind", [AIModel, APIKey, ModelGroup, Provider, ProviderKey, Route, User, UserGroup]
)
def test_no_number_is_answered_with_the_name_of_a_constraint(
    client: Client, house: House, kind: type[models.Model], typed: str
) -> None:
    row = kind._default_manager.order_by("-pk")[:1].get()
    before = kind._default_manager.filter(pk=row.pk).values().get()
    page = page_of(kind, "change", row.pk)
    shown = client.get(page)
    form = shown.context["adminform"].form
    kinds = (forms.FloatField, forms.IntegerField, NanosFormField)
    numbers = [name for name, field in form.fields.items() if isinstance(field, kinds)]

    values = read_values(shown)
    for name in numbers:
        context = send_values(client, page, values, **{name: typed}).context
        # Elsewhere it was taken: some numbers may be below zero, such as priorities.
        if "adminform" in context:
            assert list(context["adminform"].form.errors) == [name], name

    assert numbers
    after = kind._default_manager.filter(pk=row.pk).values().get()
    changed = {name for name in before if before[name] != after[name]}
    assert changed <= {"priority", "weight", "position", "updated_at"}


def test_the_share_of_an_answer_given_again_is_written_as_a_part(
    client: Client, house: House
) -> None:
    page = page_of(AIModel, "change", house.model.pk)

    refused = send(client, page, cache_share_millionths="1.1")
    send(client, page, cache_share_millionths="0.1")

    errors = refused.context["adminform"].form.errors["cache_share_millionths"]
    assert errors[0].startswith("Enter a number from 0 to 1 with")
    house.model.refresh_from_db()
    assert house.model.cache_share_millionths == 100_000


def test_a_user_is_made_with_accounts(client: Client, house: House) -> None:
    answer = send(
        client, page_of(User, "add"), username="eve", email="Eve@Example.com", name="Eve",
        role="analyst", password1=PASSWORD, password2=PASSWORD,
    )  # fmt: skip

    user = User.objects.get(username="eve")
    assert answer.status_code == 200
    assert (user.email, user.role, user.is_superuser) == ("eve@example.com", "analyst", False)
    assert user.check_password(PASSWORD)
    assert user.customer.accounts.count() == 2
    assert AdminEvent.objects.filter(action="user.created", object_id=str(user.pk)).count() == 1


def test_money_moves_only_by_an_adjustment(client: Client, house: House) -> None:
    send(client, page_of(User, "change", house.user.pk), name="Ada L.", balance_nanos="999")
    assert find_standing(house.user.customer_id).balance_nanos == 10 * DOLLAR

    path = reverse("admin:users_user_adjust_balance", args=[house.user.pk])
    given = send(client, path, amount="2.5", reason="refund")
    too_much = send(client, path, amount="-100", reason="mistake")

    assert texts_of(given) == ["Adjusted by $2.5."]
    assert "The balance does not cover this." in too_much.content.decode()
    assert find_standing(house.user.customer_id).balance_nanos == 12_500_000_000
    event = AdminEvent.objects.filter(action="user.balance_adjusted").latest("id")
    assert (event.actor_id, event.reason) == (house.root.pk, "refund")


def test_the_default_key_is_reset_from_the_user(client: Client, house: House) -> None:
    answer = send(client, reverse("admin:users_user_reset_key", args=[house.user.pk]))

    raw = texts_of(answer)[0].rpartition(" ")[2]
    assert APIKey.objects.get(digest=digest_of(raw)).is_default
    house.key.refresh_from_db()
    assert not house.key.is_active


def test_a_user_is_signed_out_everywhere(client: Client, house: House) -> None:
    send(client, reverse("admin:users_user_end_sessions", args=[house.user.pk]))

    assert Session.objects.filter(user=house.user, ended_at__isnull=True).count() == 0
    assert AdminEvent.objects.latest("id").action == "user.sessions_ended"


def test_a_password_set_by_an_administrator_is_on_record(client: Client, house: House) -> None:
    path = reverse("admin:auth_user_password_change", args=[house.user.pk])

    send(client, path, new_password1=PASSWORD, new_password2=PASSWORD)

    house.user.refresh_from_db()
    assert house.user.check_password(PASSWORD)
    actions = AdminEvent.objects.order_by("-id").values_list("action", flat=True)[:2]
    assert list(actions) == ["user.sessions_ended", "user.password_set"]


@pytest.mark.parametrize("changes", [{"is_active": None}, {"is_superuser": None}, {"role": "user"}])
def test_somebody_stays_in_charge(
    client: Client, house: House, changes: dict[str, str | None]
) -> None:
    send(client, page_of(User, "change", house.root.pk), **changes)

    house.root.refresh_from_db()
    assert (house.root.is_active, house.root.is_superuser, house.root.role) == (True, True, "admin")


def test_a_quota_changes_by_a_transaction(client: Client, house: House) -> None:
    path = page_of(UserQuota, "change", house.quota.pk)

    without_reason = send(client, path, total="5")
    send(client, path, total="5", reason="more")

    quota = UserQuota.objects.select_related("account").get(pk=house.quota.pk)
    assert "This field is required." in without_reason.content.decode()
    assert (quota.total_nanos, remaining(quota).remaining_nanos) == (5 * DOLLAR, 5 * DOLLAR)
    event = AdminEvent.objects.latest("id")
    assert (event.action, event.reason) == ("quota.changed", "more")


def test_a_quota_is_given_in_the_admin(client: Client, house: House) -> None:
    send(
        client, page_of(UserQuota, "add"), user=str(house.root.pk),
        model_group=str(ModelGroup.objects.get().pk), total="3", reason="gift",
    )  # fmt: skip

    quota = UserQuota.objects.get(user=house.root)
    assert quota.account.posted_nanos == 3 * DOLLAR


@pytest.mark.parametrize("kind", ["user", "api_key", "provider", "provider_key", "model", "quota"])
def test_what_has_history_is_kept(client: Client, house: House, kind: str) -> None:
    row: models.Model = {
        "user": house.user,
        "api_key": house.key,
        "provider": house.provider_key.provider,
        "provider_key": house.provider_key,
        "model": house.model,
        "quota": house.quota,
    }[kind]

    answer = client.post(page_of(type(row), "delete", row.pk), {"post": "yes"}, follow=True)

    assert "Deactivate" in texts_of(answer)[0]
    assert type(row)._default_manager.filter(pk=row.pk).exists()


def test_what_was_never_used_can_be_deleted_and_is_on_record(client: Client, house: House) -> None:
    key, _ = issue_key(user=house.user, name="unused")

    client.post(page_of(APIKey, "delete", key.pk), {"post": "yes"})

    assert not APIKey.objects.filter(pk=key.pk).exists()
    event = AdminEvent.objects.latest("id")
    assert (event.action, event.object_id) == ("api_key.deleted", str(key.pk))
    assert event.before is not None
    assert event.before["name"] == "unused"
