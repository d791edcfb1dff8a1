"""One of everything, and a browser for the Django admin."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any, Final

import zstandard
from django.apps import apps
from django.db import models
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from apps.ai_models.catalogue import create_model
from apps.ai_models.models import AIModel
from apps.analytics.rolling import roll_up
from apps.api_keys.issue import issue_key
from apps.api_keys.models import APIKey
from apps.audit.models import APIRequest, Attempt, CallKey, Payload, RefusalCount, StoredAnswer
from apps.billing.customers import adjust_user_balance
from apps.billing.models import Hold, Incarnation, SpendCounter, Verification, VerifiedHead
from apps.billing.proposals import propose_adjustment
from apps.core.ids import new_uuid7
from apps.model_groups.groups import create_group
from apps.providers.models import Provider, ProviderKey
from apps.providers.registration import create_provider
from apps.proxy.models import CircuitRest, ConfigurationChange
from apps.quotas.allowances import create_quota
from apps.quotas.models import RepeatKey, UserQuota
from apps.users.models import User, UserGroup
from apps.users.tokens import open_session
from tests.support.people import make_admin, make_user
from tests.support.risk import make_rule, note_finding

SECRET: Final = "sk-CANARY-UP-0123456789"
OURS: Final = tuple(model for model in apps.get_models() if model.__module__.startswith("apps."))
PROMPT: Final = "CANARY prompt <script>alert(1)</script>"
DOLLAR: Final = 10**9


@dataclass(frozen=True, slots=True)
class House:
    """One of everything, and what must not be seen."""

    root: User
    user: User
    key: APIKey
    raw: str
    provider_key: ProviderKey
    model: AIModel
    quota: UserQuota
    payload: Payload


def make_house() -> House:
    """Write one of everything."""
    root = make_admin(username="root")
    group = UserGroup.objects.create(name="staff")
    user = make_user(username="ada", email="ada@example.com", name="Ada", user_group=group)
    open_session(user=user, request=None)
    adjust_user_balance(user=user, amount_nanos=10 * DOLLAR, reason="welcome", actor=root)
    propose_adjustment(user=user, amount_nanos=DOLLAR, reason="bonus", actor=root)
    key, raw = issue_key(user=user, name="main", is_default=True, actor=root)
    provider = create_provider(
        name="somewhere", base_url="https://api.example.com/v1", secret=SECRET, actor=root
    )
    model = create_model(name="big", provider=provider, prices={"input": DOLLAR}, actor=root)
    models_together = create_group(name="all", models=[model], is_public=True)
    quota = create_quota(user=user, model_group=models_together, total_nanos=DOLLAR, actor=root)
    return House(
        root=root,
        user=user,
        key=key,
        raw=raw,
        provider_key=provider.keys.get(),
        model=model,
        quota=quota,
        payload=_write_history(user, key, provider, model),
    )


def _write_history(user: User, key: APIKey, provider: Provider, model: AIModel) -> Payload:
    now, request_id = timezone.now(), new_uuid7()
    APIRequest.objects.create(
        id=request_id, customer_id=user.customer_id, user_id=user.pk, user_name=user.username,
        api_key_id=key.pk, api_key_name=key.name, model_id=model.pk, requested_model=model.name,
        provider_id=provider.pk, provider_name=provider.name, upstream_model="big",
        endpoint="chat/completions", method="POST", dialect="openai", is_stream=True,
        state="completed", status_code=200, usage_source="reported", charge_nanos=5, hold_nanos=9,
        price_version_id=1, multiplier_millionths=1_000_000, input_bytes=1, output_bytes=1,
        started_at=now, duration_ms=1, settled_at=now, ip_address="192.0.2.1", user_agent="x",
        incarnation_id=1, sequence=1, hash=b"\x01" * 32,
    )  # fmt: skip
    Attempt.objects.create(
        request_id=request_id, number=1, route_id=1, provider_id=provider.pk,
        provider_name=provider.name, provider_key_id=provider.keys.get().pk, upstream_model="big",
        started_at=now, duration_ms=1, outcome="ok",
    )  # fmt: skip
    Incarnation.objects.create(
        id=1, kind="gateway", host="here", pid=1, started_at=now, renewed_at=now, expires_at=now,
        sequence=1,
    )  # fmt: skip
    Hold.objects.create(
        request_id=new_uuid7(), incarnation_id=1, customer_id=user.customer_id, amount_nanos=0,
        legs="[]", counters="[]", detail="{}", placed_at=now,
    )  # fmt: skip
    SpendCounter.objects.create(scope="api_key", scope_id=key.pk)
    VerifiedHead.objects.create(
        chain="account", chain_id=1, sequence=1, head=b"\x01", verified_at=now
    )
    Verification.objects.create(
        started_at=now, finished_at=now, is_full=False, started_by="schedule", entries=1,
        requests=1, anchors=1, finding_count=0,
    )  # fmt: skip
    RepeatKey.objects.create(key="quota:1:x", digest="0" * 64)
    CallKey.objects.create(
        request_id=request_id, user_id=user.pk, digest=b"CANARY digest", fingerprint=b"CANARY",
        status_code=200, headers="[]", body=PROMPT.encode(), created_at=now, expires_at=now,
    )  # fmt: skip
    RefusalCount.objects.create(api_key_id=key.pk, code="rate_limited", minute=now, count=3)
    note_finding(make_rule())
    roll_up(seconds=60)
    StoredAnswer.objects.create(
        digest=b"CANARY digest", provider_id=1, provider_key_id=1, user_id=user.pk, model_id=1,
        created_at=now, expires_at=now,
    )  # fmt: skip
    CircuitRest.objects.create(
        route_id=1,
        provider_id=1,
        reason="upstream_error",
        openings=1,
        began_at=timezone.now(),
        ends_at=timezone.now(),
    )
    if not ConfigurationChange.objects.exists():
        # PostgreSQL stamps at the commit, which this test never reaches.
        ConfigurationChange.objects.create(version=1, table_name="users_user", row_key=user.pk)
    return Payload.objects.create(
        request_id=request_id,
        salt=b"\x00" * 16,
        request_body=zstandard.ZstdCompressor().compress(PROMPT.encode()),
        response_body=b"",
        is_request_truncated=False,
        is_response_truncated=False,
    )


class Form(HTMLParser):
    """Reads the values of a page's form, as a browser would send them."""

    def __init__(self) -> None:
        super().__init__()
        self.values: dict[str, Any] = {}
        self._select = ""
        self._textarea = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        is_set = any(name in ("checked", "selected") for name, _ in attrs)
        if tag == "select":
            self._select = given.get("name", "")
        elif tag == "textarea":
            self._textarea = given.get("name", "")
            self.values[self._textarea] = ""
        elif tag == "option" and is_set and self._select:
            self.values.setdefault(self._select, []).append(given.get("value", ""))
        elif tag == "input" and given.get("name"):
            if given.get("type") in ("checkbox", "radio") and not is_set:
                return
            if given.get("type") != "submit":
                default = "on" if given.get("type") in ("checkbox", "radio") else ""
                self._add(given["name"], given.get("value", default), given.get("type"))

    def _add(self, name: str, value: str, kind: str | None) -> None:
        if kind == "checkbox" and name in self.values:
            old = self.values[name]
            self.values[name] = [*(old if isinstance(old, list) else [old]), value]
        else:
            self.values[name] = value

    def handle_endtag(self, tag: str) -> None:
        if tag == "select":
            self._select = ""
        elif tag == "textarea":
            self._textarea = ""

    def handle_data(self, data: str) -> None:
        if self._textarea:
            self.values[self._textarea] += data.removeprefix("\n")


def page_of(model: type[models.Model], kind: str, *args: Any) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{kind}", args=args)


def send(client: Client, path: str, **changes: Any) -> Any:
    """Open a page, change fields of its form and send it."""
    return send_values(client, path, read_values(client.get(path)), **changes)


def read_values(page: Any) -> dict[str, Any]:
    """Return what a browser would send if nothing in the form of a page were changed."""
    form = Form()
    form.feed(page.content.decode())
    return form.values


def send_values(client: Client, path: str, values: dict[str, Any], **changes: Any) -> Any:
    """Send the form of a page with some of its fields changed; None leaves a field out."""
    sent = {name: value for name, value in {**values, **changes}.items() if value is not None}
    return client.post(path, sent, follow=True)


def columns_of(row: models.Model) -> dict[str, Any]:
    """Return the columns of a row as they are now, and what it is linked with by ids."""
    now = type(row)._default_manager.get(pk=row.pk)
    links = {
        field.name: sorted(getattr(now, field.name).values_list("pk", flat=True))
        for field in row._meta.many_to_many
    }
    return {**type(row)._default_manager.filter(pk=row.pk).values().get(), **links}


def send_old(
    client: Client, row: models.Model, change_elsewhere: Callable[[], Any], **changes: Any
) -> dict[str, Any]:
    """Send a page that was opened before a change elsewhere; return the columns it changed."""
    page = page_of(type(row), "change", row.pk)
    values = read_values(client.get(page))
    change_elsewhere()
    before = columns_of(row)
    answer = send_values(client, page, values, **changes)
    assert "adminform" not in answer.context, answer.context["adminform"].form.errors
    after = columns_of(row)
    return {name: after[name] for name in after if after[name] != before[name]}


def texts_of(answer: Any) -> list[str]:
    return [str(message) for message in answer.context["messages"]]


class _Inline(HTMLParser):
    """Collects what the content security policy would block."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = {name for name, _ in attrs}
        if tag == "style" or (tag == "script" and "src" not in names):
            self.found.append(tag)
        self.found += [name for name in names if name == "style" or name.startswith("on")]


def find_inline(page: str) -> list[str]:
    """Return the inline scripts, styles and handlers of a page, which browsers would block."""
    inline = _Inline()
    inline.feed(page)
    return inline.found
