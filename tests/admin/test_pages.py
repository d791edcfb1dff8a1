"""Tests of the Django admin: every page opens and tells no secret; history stays as it is."""

from __future__ import annotations

from typing import Any, Final

import pytest
from django.apps import apps
from django.contrib import admin
from django.db import models
from django.test import Client, RequestFactory
from pytest_django import DjangoAssertNumQueries

from apps.ai_models.catalogue import create_model
from apps.ai_models.models import PriceVersion, Route
from apps.api_keys.issue import digest_of, issue_key
from apps.api_keys.models import APIKey
from apps.audit.admin_pages import SelfRecordedAdmin
from apps.audit.models import AdminEvent, APIRequest, Payload
from apps.billing.models import Account
from apps.model_groups.groups import create_group
from apps.model_groups.models import ModelGroup
from apps.providers.models import Provider, ProviderKey
from apps.providers.registration import create_provider
from apps.quotas.allowances import create_quota
from apps.quotas.models import UserQuota
from apps.users.models import Session, User, UserGroup
from tests.support.house import OURS, SECRET, House, find_inline, page_of
from tests.support.people import PASSWORD, make_admin, make_user, rest_client

READ_ONLY: Final = {
    "analytics.rolledup",
    "analytics.rollup",
    "audit.apirequest",
    "audit.attempt",
    "audit.callkey",
    "audit.payload",
    "audit.adminevent",
    "audit.refusalcount",
    "audit.storedanswer",
    "billing.account",
    "billing.transaction",
    "billing.entry",
    "billing.proposedadjustment",
    "billing.hold",
    "billing.incarnation",
    "billing.spendcounter",
    "billing.verifiedhead",
    "billing.verification",
    "proxy.circuitrest",
    "proxy.configurationversion",
    "proxy.configurationchange",
    "risk.riskfinding",
    "users.session",
}


@pytest.mark.parametrize("model", OURS, ids=lambda model: model._meta.label_lower)
def test_every_page_opens_and_tells_no_secret(
    client: Client, house: House, model: type[models.Model]
) -> None:
    page = admin.site.get_model_admin(model)
    rows = list(model._default_manager.all()[:3])
    assert rows, "The test writes one of everything; this model is missing."
    paths = [page_of(model, "changelist"), f"{page_of(model, 'changelist')}?q=nothing%25"]
    paths += [page_of(model, "change", row.pk) for row in rows]
    if model._meta.label_lower not in READ_ONLY and model is not UserGroup:
        paths += [page_of(model, "add")] if page.has_add_permission(_request(house.root)) else []

    for path in paths:
        answer = client.get(path)
        assert answer.status_code == 200, path
        text = answer.content.decode()
        assert SECRET not in text, path
        assert house.raw not in text, path
        assert house.provider_key.sealed_secret not in text, path
        assert digest_of(house.raw).hex() not in text, path
        assert house.user.password not in text, path
        assert "<script>alert" not in text, path
        assert find_inline(text) == [], path
        for session in Session.objects.all():
            assert session.refresh_id not in text, path
            assert session.auth_hash not in text, path


@pytest.mark.sqlite  # What a field can show is decided before any statement runs.
@pytest.mark.parametrize("value", ["xx", "²", "9" * 25, "\x00"])
@pytest.mark.parametrize(
    ("model", "name"),
    [(UserQuota, "user"), (UserQuota, "expires_at"), (PriceVersion, "route")],
)
def test_a_form_leaves_out_what_a_link_fills_in_and_its_field_cannot_show(
    client: Client, model: type[models.Model], name: str, value: str
) -> None:
    answer = client.get(page_of(model, "add"), {name: value})

    assert answer.status_code == 200
    assert f'value="{value}"' not in answer.content.decode()


def test_a_form_has_what_a_link_fills_in(client: Client, house: House) -> None:
    filled = {"user": str(house.user.pk), "expires_at": "2031-02-03T04:05:06Z"}

    form = client.get(page_of(UserQuota, "add"), filled).content.decode()

    assert f'<option value="{house.user.pk}" selected>' in form
    assert 'value="2031-02-03"' in form
    assert 'value="04:05:06"' in form


@pytest.mark.sqlite  # As above.
def test_a_form_that_names_no_row_says_so(client: Client) -> None:
    answer = client.post(page_of(UserQuota, "add"), {"user": "xx"})

    assert answer.status_code == 200
    assert "not one of the available choices" in answer.content.decode()


def test_the_history_of_a_row_is_its_events_wherever_it_was_changed(
    client: Client, house: House
) -> None:
    rest = rest_client(house.root)
    assert rest.patch(f"/api/admin/users/{house.user.pk}/", {"name": "Ada L."}).status_code == 200
    assert rest.patch(f"/api/admin/users/{house.root.pk}/", {"name": "Boss"}).status_code == 200

    answer = client.get(page_of(User, "history", house.user.pk), follow=True)

    shown = answer.context["cl"].result_list
    assert ("user.changed", {"name": "Ada L."}) in [(event.action, event.after) for event in shown]
    assert {(event.object_type, event.object_id) for event in shown} == {
        ("users.user", str(house.user.pk))
    }


@pytest.mark.sqlite  # No row is read for it.
@pytest.mark.parametrize("model", OURS, ids=lambda model: model._meta.label_lower)
def test_every_page_knows_its_history(client: Client, model: type[models.Model]) -> None:
    answer = client.get(page_of(model, "history", 1))

    query = f"?object_type={model._meta.label_lower}&object_id=1"
    assert (answer.status_code, answer["Location"]) == (
        302,
        page_of(AdminEvent, "changelist") + query,
    )


def test_the_first_page_has_no_list_of_what_was_done_that_lacks_half_of_it(client: Client) -> None:
    page = client.get("/admin/").content.decode()

    assert "recent-actions" not in page
    assert page_of(AdminEvent, "changelist") in page


def test_a_browser_that_asks_for_an_icon_is_told_that_there_is_none(db: None) -> None:
    answer = Client().get("/favicon.ico")

    assert (answer.status_code, answer.content) == (204, b"")


def _request(user: User) -> Any:
    request = RequestFactory().get("/")
    request.user = user
    return request


@pytest.mark.parametrize("label", sorted(READ_ONLY))
def test_history_offers_no_change(client: Client, house: House, label: str) -> None:
    model = apps.get_model(label)
    row = model._default_manager.all()[:1].get()

    shown = client.get(page_of(model, "change", row.pk)).content.decode()
    listed = client.get(page_of(model, "changelist")).content.decode()

    assert client.get(page_of(model, "add")).status_code == 403
    assert client.post(page_of(model, "change", row.pk), {}).status_code == 403
    assert client.post(page_of(model, "delete", row.pk), {"post": "yes"}).status_code == 403
    assert 'name="_save"' not in shown
    assert "deletelink" not in shown
    assert 'name="action"' not in listed
    assert page_of(model, "add") not in listed


@pytest.mark.sqlite  # How many statements there are is decided before any runs.
@pytest.mark.parametrize(
    ("model", "queries"),
    [
        (User, 5),
        (APIKey, 4),
        (Provider, 4),
        (ProviderKey, 5),
        (Route, 5),
        (PriceVersion, 4),
        (ModelGroup, 5),
        (UserQuota, 5),
        (Account, 4),
        (APIRequest, 4),
        (AdminEvent, 6),
    ],
)
def test_a_list_takes_few_queries_whatever_its_length(
    client: Client,
    house: House,
    django_assert_num_queries: DjangoAssertNumQueries,
    model: type[models.Model],
    queries: int,
) -> None:
    for number in range(5):
        provider = create_provider(
            name=f"provider{number}", base_url="https://api.example.com/v1", secret=SECRET
        )
        made = create_model(name=f"model{number}", provider=provider, prices={"input": 1})
        group = create_group(name=f"group{number}", models=[made])
        user = make_user(user_group=UserGroup.objects.get())
        issue_key(user=user, name="main")
        create_quota(user=user, model_group=group, total_nanos=1)

    with django_assert_num_queries(queries):
        client.get(page_of(model, "changelist"))


def test_reading_a_payload_is_on_record(client: Client, house: House) -> None:
    listed = client.get(page_of(Payload, "changelist"))
    assert "CANARY" not in listed.content.decode()
    assert AdminEvent.objects.filter(action="payload.read").count() == 0

    shown = client.get(page_of(Payload, "change", house.payload.pk)).content.decode()

    assert "CANARY prompt &lt;script&gt;" in shown
    event = AdminEvent.objects.get(action="payload.read")
    assert (event.actor_id, event.object_id) == (house.root.pk, str(house.payload.pk))


@pytest.mark.parametrize("method", ["OPTIONS", "PUT", "PATCH", "DELETE", "TRACE", "LOOK"])
def test_a_payload_is_shown_to_who_asks_for_it_openly(
    client: Client, house: House, method: str
) -> None:
    answer = client.generic(method, page_of(Payload, "change", house.payload.pk))

    assert answer.status_code == 405
    assert b"CANARY" not in answer.content
    assert AdminEvent.objects.filter(action="payload.read").count() == 0


@pytest.mark.parametrize(
    "page",
    [page for page in admin.site._registry.values() if isinstance(page, SelfRecordedAdmin)],
    ids=str,
)
def test_what_records_itself_says_how_a_row_is_made_and_changed(page: SelfRecordedAdmin) -> None:
    kind, base = type(page), SelfRecordedAdmin
    both = kind.make_row is not base.make_row and kind.change_row is not base.change_row

    assert both or kind.write is not base.write


def test_only_superusers_get_in(house: House) -> None:
    browser = Client()
    browser.force_login(house.user)

    for path in ("/admin/", page_of(User, "changelist")):
        assert browser.get(path).status_code == 302


def test_signing_in_is_locked_after_ten_failures(db: None) -> None:
    make_admin(username="boss", password=PASSWORD)
    browser = Client()

    def sign_in(password: str) -> int:
        fields = {"username": "boss", "password": password, "next": "/admin/"}
        return browser.post("/admin/login/", fields).status_code

    assert sign_in(PASSWORD) == 302
    for _ in range(10):
        assert sign_in("wrong") == 200
    assert sign_in(PASSWORD) == 200
    assert AdminEvent.objects.filter(action="sign_in.locked").count() == 1
