"""What REST refuses of providers, models, groups and rules, the Django admin refuses too."""

from __future__ import annotations

from typing import Any, Final

import pytest
from django.db import models
from django.test import Client

from apps.ai_models.models import AIModel, PriceVersion, Route
from apps.audit.models import AdminEvent
from apps.model_groups.models import ModelGroup
from apps.providers.models import Provider, ProviderKey
from apps.risk.models import RiskRule
from apps.users.models import User, UserGroup
from tests.support.house import (
    House,
    columns_of,
    page_of,
    read_values,
    send,
    send_values,
)
from tests.support.people import rest_client

_SECONDS: Final = ("connect", "first_byte", "idle", "total")
_LIMITS: Final = tuple((name, 2**31) for name in ("rpm", "tpm", "concurrency"))
# By the kind: its path over REST, and for each field what is refused of it.
REFUSED: Final[dict[type[models.Model], tuple[str, tuple[tuple[str, Any], ...]]]] = {
    Provider: (
        "providers/{row.pk}",
        (
            ("name", "some\u200bwhere"),
            ("priority", 1_000_001),
            ("priority", -1_000_001),
            ("weight", 1_000_001),
            *((f"{name}_timeout_seconds", 0.05) for name in _SECONDS),
            *((f"{name}_timeout_seconds", 86_401) for name in _SECONDS),
            ("drain_seconds", 601),
            ("drain_seconds", 0.05),
            ("failures_max", 0),
            ("failures_max", 1_000_001),
            ("check_seconds", 86_401),
            *_LIMITS,
        ),
    ),
    ProviderKey: (
        "providers/{row.provider_id}/keys/{row.pk}",
        (("name", "a\u200bb"), ("weight", 1_000_001), *_LIMITS),
    ),
    AIModel: (
        "models/{row.pk}",
        (
            ("name", "a model"),
            ("name", "a\u200bmodel"),
            ("description", "x" * 10_001),
            ("context_length", 0),
            ("context_length", 100_000_001),
            ("max_output_tokens", 0),
            ("max_output_tokens", 10_000_001),
            ("image_tokens_max", 10_000_001),
            ("position", 2**31),
            ("position", -(2**31)),
        ),
    ),
    Route: (
        "routes/{row.pk}",
        (
            ("max_tokens_parameter", "Max tokens"),
            ("max_tokens_parameter", "_max"),
            ("weight", 1_000_001),
            ("priority", 2**31),
            ("priority", -(2**31)),
        ),
    ),
    ModelGroup: ("model-groups/{row.pk}", (("description", "x" * 10_001),)),
    UserGroup: ("user-groups/{row.pk}", (("description", "x" * 10_001), *_LIMITS)),
    RiskRule: (
        "risk-rules/{row.pk}",
        (
            ("description", "x" * 2_001),
            ("priority", 1_000_001),
            ("priority", -1_000_001),
            ("networks", ["fe80::1%" + "x" * 60]),
            ("networks", ["10.0.0.1"] * 101),
            ("operations", ["messages"] * 11),
            ("words", ["a\x00b"]),
        ),
    ),
}


def _row_of(kind: type[models.Model], house: House) -> Any:
    if kind is AIModel:
        # Of one that was called the name is only shown.
        return AIModel.objects.create(name="never-called")
    return kind._default_manager.order_by("pk")[:1].get()


@pytest.mark.sqlite  # What a form and a body refuse is decided before any database is asked.
@pytest.mark.parametrize("kind", REFUSED, ids=lambda kind: kind._meta.model_name)
def test_what_is_refused_over_rest_is_refused_in_the_admin(
    client: Client, house: House, kind: type[models.Model]
) -> None:
    path, refused = REFUSED[kind]
    row, rest = _row_of(kind, house), rest_client(house.root)
    page = page_of(kind, "change", row.pk)
    shown = read_values(client.get(page))
    before, count = columns_of(row), AdminEvent.objects.count()

    for field, value in refused:
        typed = "\n".join(value) if isinstance(value, list) else str(value)
        answer = send_values(client, page, shown, **{field: typed})
        assert list(answer.context["adminform"].form.errors) == [field], (field, value)
        over_rest = rest.patch(f"/api/admin/{path.format(row=row)}", {field: value}, format="json")
        assert (over_rest.status_code, list(over_rest.json())) == (400, [field]), (field, value)

    assert columns_of(row) == before
    assert AdminEvent.objects.count() == count


@pytest.mark.sqlite  # As above.
def test_a_group_has_no_more_members_than_over_rest(
    client: Client, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = ModelGroup.objects.get()
    more = AIModel.objects.create(name="more")
    page = page_of(ModelGroup, "change", group.pk)
    monkeypatch.setattr("apps.model_groups.admin.MEMBERS_MAX", 1)

    answer = send_values(
        client, page, read_values(client.get(page)), models=[str(house.model.pk), str(more.pk)]
    )

    assert answer.context["adminform"].form.errors == {"models": ["Choose at most 1."]}
    assert list(group.models.all()) == [house.model]


@pytest.mark.parametrize("pk", ["9" * 25, "9" * 5_000, str(2**63)], ids=len)
def test_an_id_that_fits_no_column_is_none_of_the_choices(
    client: Client, house: House, pk: str
) -> None:
    group = ModelGroup.objects.get()
    before = columns_of(group)

    for name in ("models", "user_groups"):
        answer = send(client, page_of(ModelGroup, "change", group.pk), **{name: [pk]})
        errors = answer.context["adminform"].form.errors
        assert errors == {name: [f"“{pk[:40]}” is not a valid value."]}

    assert columns_of(group) == before


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (User, "id__in"),
        (User, "user_group__exact"),
        (ModelGroup, "user_groups__exact"),
        (AdminEvent, "id__in"),
    ],
)
def test_a_list_is_not_filtered_by_a_number_that_fits_no_column(
    client: Client, house: House, kind: type[models.Model], name: str
) -> None:
    page = page_of(kind, "changelist")
    numbers = ("9" * 25, "-" + "9" * 25, "1," + "9" * 25, str(2**63))

    statuses = [client.get(page, {name: number}).status_code for number in numbers]

    assert statuses == [400] * 4
    assert client.get(page, {name: str(2**63 - 1)}).status_code == 200
    # No number at all: the list tells it above itself.
    assert client.get(page, {name: "9" * 5_000}).headers["Location"] == f"{page}?e=1"


@pytest.mark.sqlite  # As above.
@pytest.mark.parametrize(
    "text", ['{"a": %s}' % ("9" * 5_000), "[" * 100_000, '{"a": '], ids=["long", "deep", "cut"]
)
def test_json_that_cannot_be_read_is_shown_again_as_it_was_typed(
    client: Client, house: House, text: str
) -> None:
    fields = (
        (AIModel, "capabilities"),
        (Route, "overrides"),
        (Provider, "headers"),
        (PriceVersion, "terms"),
    )
    for kind, name in fields:
        pk = kind._default_manager.order_by("pk")[:1].get().pk
        page = page_of(kind, "add") if kind is PriceVersion else page_of(kind, "change", pk)
        answer = send(client, page, **{name: text})
        form = answer.context["adminform"].form
        assert form.errors[name] == ["Enter a valid JSON."], kind
        assert form[name].value() == text
    assert not AdminEvent.objects.filter(action__endswith=".changed").exists()


@pytest.mark.sqlite  # As above.
def test_why_a_name_is_refused_is_said_in_chinese(client: Client, house: House) -> None:
    page = page_of(Route, "change", Route.objects.get().pk)
    values = read_values(client.get(page))

    answer = client.post(
        page, {**values, "max_tokens_parameter": "X"}, headers={"accept-language": "zh-CN"}
    )

    assert "请输入参数名，例如 max_tokens。" in answer.content.decode()
