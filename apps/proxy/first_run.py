"""The first run of an installation: the administrator, and a demo that can be called at once.

It happens while there are no users, and only then: what was renamed or deleted later stays so.
Passwords and the demo key stand in clear in one place, `first-run.txt` in DATA_DIR, mode 0600.
"""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import transaction

from apps.ai_models.catalogue import create_model
from apps.api_keys.issue import issue_key
from apps.audit.events import record_event, values_of
from apps.billing.adjustments import adjust_balance
from apps.billing.customers import create_user
from apps.core.domain_errors import DomainError
from apps.model_groups.models import ModelGroup
from apps.providers.credentials import add_key
from apps.providers.models import Provider
from apps.users.models import User

DEMO_USER: Final = "demo"
DEMO_EMAIL: Final = "demo@example.com"
DEMO_MODEL: Final = "demo-chat"
DEMO_PROVIDER: Final = "demo"
DEMO_WALLET_NANOS: Final = 10 * 10**9
# Nanos per million tokens: 2.50 and 10 USD.
DEMO_PRICES: Final = {"input": 2_500_000_000, "output": 10_000_000_000}
# Lower than any position an operator is likely to give: first in GET /v1/models.
DEMO_POSITION: Final = -1000
FILE_NAME: Final = "first-run.txt"


@dataclass(frozen=True, slots=True)
class Credentials:
    """What somebody needs to sign in and to call the demo model."""

    url: str
    administrator: str
    administrator_password: str
    demo_user: str = ""
    demo_password: str = ""
    demo_key: str = ""

    @property
    def curl(self) -> str:
        """Return a command line that calls the demo model."""
        body = (
            f'{{"model": "{DEMO_MODEL}", "stream": true, '
            '"messages": [{"role": "user", "content": "Hello!"}]}'
        )
        return (
            f"curl -sN {self.url}/v1/chat/completions"
            f" -H 'Authorization: Bearer {self.demo_key}'"
            f" -H 'Content-Type: application/json' -d '{body}'"
        )


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the operator asked for; empty where it is to be made up."""

    admin_username: str
    admin_email: str
    admin_password: str
    demo_api_key: str
    # Where the demo provider is reached; None leaves the whole demo out.
    demo_base_url: str | None


def read_wishes(*, demo_port: int | None) -> Wishes:
    """Return what the settings ask for, with a demo provider on `demo_port` unless that is None."""
    environment = settings.ENVIRONMENT
    return Wishes(
        admin_username=environment.admin_username,
        admin_email=environment.admin_email,
        admin_password=environment.admin_password,
        demo_api_key=environment.demo_api_key,
        demo_base_url=None if demo_port is None else demo_base_url(demo_port),
    )


def perform_first_run(*, wishes: Wishes, url: str, data_dir: Path) -> Credentials | None:
    """Create what a new installation needs and return the credentials, None if it is not new.

    The file is written before the commit: an installation never has a password that nobody knows.
    Raises ImproperlyConfigured when the wishes contradict each other.
    """
    _refuse_contradictions(wishes)
    with transaction.atomic():
        if User.objects.exists():
            return None
        try:
            found = _create_administrator(wishes, url)
            if wishes.demo_base_url is not None:
                found = _create_demo(wishes.demo_base_url, wishes.demo_api_key, found)
        except DomainError as error:
            raise ImproperlyConfigured(f"The first run is not possible: {error}") from error
        write_credentials(found, data_dir=data_dir)
    return found


def _refuse_contradictions(wishes: Wishes) -> None:
    if wishes.demo_base_url is None:
        return
    if wishes.admin_username.lower() == DEMO_USER or wishes.admin_email.lower() == DEMO_EMAIL:
        raise ImproperlyConfigured(
            "ADMIN_USERNAME and ADMIN_EMAIL must not be the demo user's: "
            f"{DEMO_USER}, {DEMO_EMAIL}."
        )


def _create_administrator(wishes: Wishes, url: str) -> Credentials:
    password = wishes.admin_password or secrets.token_urlsafe(15)
    create_user(
        username=wishes.admin_username,
        email=wishes.admin_email,
        password=password,
        is_superuser=True,
    )
    # A password that the operator chose is known already and better not written down once more.
    shown = "the one in ADMIN_PASSWORD" if wishes.admin_password else password
    return Credentials(url=url, administrator=wishes.admin_username, administrator_password=shown)


def _create_demo(base_url: str, api_key: str, found: Credentials) -> Credentials:
    password = secrets.token_urlsafe(15)
    user = create_user(username=DEMO_USER, email=DEMO_EMAIL, password=password, name="Demo")
    adjust_balance(
        customer_id=user.customer_id,
        amount_nanos=DEMO_WALLET_NANOS,
        actor=None,
        reason="first run",
        idempotency_key="first-run:wallet",
    )
    _, raw_key = issue_key(user=user, name="demo", is_default=True, raw=api_key or None)
    provider = Provider.objects.create(name=DEMO_PROVIDER, base_url=base_url)
    record_event(actor=None, action="provider.created", subject=provider, after=values_of(provider))
    # The demo provider takes any key; a route without one would not be used.
    add_key(provider=provider, secret=f"demo-{secrets.token_urlsafe(24)}", name="demo")
    model = create_model(
        name=DEMO_MODEL,
        display_name="Demo chat",
        description="Answers without a model behind it.",
        provider=provider,
        upstream_name=DEMO_MODEL,
        prices=DEMO_PRICES,
        position=DEMO_POSITION,
    )
    group = ModelGroup.objects.create(
        name="public", description="Open to every user.", is_public=True
    )
    group.models.add(model)
    record_event(
        actor=None,
        action="model_group.created",
        subject=group,
        after={**values_of(group), "models": [model.pk]},
    )
    return replace(found, demo_user=DEMO_USER, demo_password=password, demo_key=raw_key)


def find_demo_port() -> int | None:
    """Return the loopback port at which the demo provider is expected, None if there is none."""
    provider = Provider.objects.filter(name=DEMO_PROVIDER, is_active=True).first()
    if provider is None:
        return None
    parts = urlsplit(provider.base_url)
    return parts.port if parts.hostname == "127.0.0.1" else None


def move_demo_provider(*, port: int) -> None:
    """Point the demo provider to another port."""
    with transaction.atomic():
        provider = Provider.objects.get(name=DEMO_PROVIDER)
        before = {"base_url": provider.base_url}
        provider.base_url = demo_base_url(port)
        provider.save(update_fields=["base_url", "updated_at"])
        record_event(
            actor=None,
            action="provider.changed",
            subject=provider,
            before=before,
            after={"base_url": provider.base_url},
            reason="its port was taken",
        )


def demo_base_url(port: int) -> str:
    """Return where a demo provider on `port` is reached."""
    return f"http://127.0.0.1:{port}/v1"


def render(credentials: Credentials) -> str:
    """Return the text for people, one fact a line."""
    lines = [f"{_label(name)}: {value}" for name, value in _values(credentials).items() if value]
    if credentials.demo_key:
        lines += ["", "Try it:", credentials.curl]
    return "\n".join(lines) + "\n"


def write_credentials(credentials: Credentials, *, data_dir: Path) -> None:
    """Write the file, whole or not at all, readable by its owner only."""
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    aside = data_dir / f".{FILE_NAME}.{os.getpid()}"
    aside.unlink(missing_ok=True)
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(render(credentials))
        file.flush()
        os.fsync(file.fileno())
    aside.replace(data_dir / FILE_NAME)


def find_credentials(*, data_dir: Path, url: str) -> Credentials | None:
    """Return what the first run wrote, for a gateway that is reached at `url` now."""
    path = data_dir / FILE_NAME
    if not path.exists():
        return None
    pairs = (line.partition(": ") for line in path.read_text().splitlines())
    written = {label: value for label, _, value in pairs}
    values = {field.name: written.get(_label(field.name), "") for field in fields(Credentials)}
    return Credentials(**{**values, "url": url})


def _values(credentials: Credentials) -> dict[str, str]:
    return {field.name: getattr(credentials, field.name) for field in fields(credentials)}


def _label(name: str) -> str:
    return "URL" if name == "url" else name.replace("_", " ").capitalize()
