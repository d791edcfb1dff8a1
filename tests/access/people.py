"""A world with one object of every kind for each of two people, and clients for all roles."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from uuid import uuid4

from django.utils import timezone
from rest_framework.test import APIClient
from rest_framework_simplejwt.tokens import AccessToken

from apps.ai_models.catalogue import create_model
from apps.api_keys.issue import issue_key
from apps.audit.models import AdminEvent, Payload
from apps.audit.payloads import seal_payload
from apps.billing.customers import adjust_user_balance
from apps.billing.proposals import propose_adjustment
from apps.model_groups.groups import create_group
from apps.providers.registration import create_provider
from apps.quotas.allowances import create_quota
from apps.users.models import Role, Session, User, UserGroup
from apps.users.tokens import SESSION_CLAIM, open_session
from tests.support.calls import record_call
from tests.support.people import make_admin, make_user, rest_client
from tests.support.risk import make_rule

_PARAMETER: Final = re.compile(r"\{\w+\}")
_DOLLAR: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Cast:
    """Clients by role, and what the parameters of each path stand for, by whose object it is."""

    clients: dict[str, APIClient]
    values: dict[str, dict[str, str]]  # "own", "other" or "missing" → path up to it → value
    api_key: str
    member: User

    def fill(self, path: str, whose: str) -> str:
        """Return the path with the ids of one person's objects in it."""
        filled = ""
        rest = path
        prefix = ""
        while found := _PARAMETER.search(rest):
            prefix += rest[: found.start()] + "{}"
            filled += rest[: found.start()] + self.values[whose][prefix]
            rest = rest[found.end() :]
        return filled + rest


def build_cast(*others: User, base_url: str = "http://127.0.0.1:9/v1") -> Cast:
    """Write the world; call it in a transaction or in a database of the test's own.

    `others` get objects of their own as well, the first of each kind.
    """
    root = make_admin()
    member, stranger = make_user(), make_user()
    clients = {
        "user": rest_client(member),
        "viewer": rest_client(make_user(role=Role.VIEWER)),
        "analyst": rest_client(make_user(role=Role.ANALYST)),
        "admin": rest_client(root),
    }
    _, raw = issue_key(user=root, name="of an administrator")
    shared = _shared(base_url)
    for person in others:
        _belongings(person, root, shared)
    own, other = _belongings(member, root, shared), _belongings(stranger, root, shared)
    missing = dict.fromkeys(other, "999999999")
    for path in ("/api/admin/requests/{}", "/api/user/requests/{}", "/api/auth/sessions/{}"):
        missing[path] = str(uuid4())
    missing["/api/admin/ledger/transactions/{}"] = str(uuid4())
    values = {"own": own, "other": other, "missing": missing}
    return Cast(clients=clients, values=values, api_key=raw, member=member)


def make_tokens(user: User) -> dict[str, str]:
    """Return access tokens that must not let anybody in, by what is wrong with them."""
    expired = AccessToken(open_session(user=user, request=None).access)  # type: ignore[arg-type]  # text
    expired.set_exp(lifetime=-timedelta(hours=1))
    ended = open_session(user=user, request=None)
    Session.objects.filter(pk=AccessToken(ended.access)[SESSION_CLAIM]).update(  # type: ignore[arg-type]  # text
        ended_at=timezone.now()
    )
    refresh = open_session(user=user, request=None).refresh
    good = open_session(user=user, request=None).access
    return {
        "expired": str(expired),
        "of an ended session": ended.access,
        "a refresh token": refresh,
        "with a changed signature": good[:-4] + ("AAAA" if not good.endswith("AAAA") else "BBBB"),
        "no token": "nonsense",
    }


def _shared(base_url: str) -> dict[str, Any]:
    provider = create_provider(name="somewhere", base_url=base_url, secret="sk-provider-0123456789")
    model = create_model(name="big", provider=provider, prices={"input": 1, "output": 1})
    group = create_group(name="everybody", models=[model], is_public=True)
    return {
        "provider": provider,
        "model": model,
        "group": group,
        "user_group": UserGroup.objects.create(name="friends"),
        "risk_rule": make_rule(),
    }


def _belongings(user: User, root: User, shared: dict[str, Any]) -> dict[str, str]:
    key, _ = issue_key(user=user, name="main", is_default=True)
    second, _ = issue_key(user=user, name="second")
    posted = adjust_user_balance(user=user, amount_nanos=_DOLLAR, reason="gift", actor=root)
    quota = create_quota(user=user, model_group=shared["group"], total_nanos=_DOLLAR)
    proposed = propose_adjustment(user=user, amount_nanos=_DOLLAR, reason="gift", actor=root)
    call = record_call(
        user_id=user.pk,
        user_name=user.username,
        customer_id=user.customer_id,
        api_key_id=key.pk,
        model_id=shared["model"].pk,
        provider_id=shared["provider"].pk,
        price_version_id=shared["model"].price_versions.get().pk,
        multiplier_millionths=1_000_000,
        charge_nanos=0,
        sequence=user.pk,
    )
    keep_payload(call.pk)
    session = open_session(user=user, request=None)
    session_id = AccessToken(session.access)[SESSION_CLAIM]  # type: ignore[arg-type]  # text
    provider = shared["provider"]
    return {
        "/api/admin/users/{}": str(user.pk),
        "/api/admin/stats/users/{}": str(user.pk),
        "/api/admin/user-groups/{}": str(shared["user_group"].pk),
        "/api/admin/providers/{}": str(provider.pk),
        "/api/admin/providers/{}/keys/{}": str(provider.keys.get().pk),
        "/api/admin/models/{}": str(shared["model"].pk),
        "/api/admin/routes/{}": str(shared["model"].routes.get().pk),
        "/api/admin/model-groups/{}": str(shared["group"].pk),
        "/api/admin/quotas/{}": str(quota.pk),
        "/api/admin/proposed-adjustments/{}": str(proposed.pk),
        "/api/admin/risk-rules/{}": str(shared["risk_rule"].pk),
        "/api/admin/keys/{}": str(second.pk),
        "/api/admin/requests/{}": str(call.pk),
        "/api/admin/ledger/accounts/{}": str(user.customer.accounts.get(kind="wallet").pk),
        "/api/admin/ledger/transactions/{}": str(posted.pk),
        "/api/admin/events/{}": str(AdminEvent.objects.latest("id").pk),
        "/api/user/keys/{}": str(second.pk),
        "/api/user/requests/{}": str(call.pk),
        "/api/user/quotas/{}": str(quota.pk),
        "/api/auth/sessions/{}": str(session_id),
    }


def keep_payload(request_id: Any) -> None:
    """Write the bodies of a call."""
    sealed = seal_payload(
        b'{"messages": []}', b'{"choices": []}', is_response_truncated=False, keeps_bodies=True
    )
    Payload.objects.create(
        request_id=request_id,
        salt=sealed.salt,
        request_body=sealed.request_body,
        response_body=sealed.response_body,
        is_request_truncated=False,
        is_response_truncated=False,
    )
