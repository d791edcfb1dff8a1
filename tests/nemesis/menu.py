"""What is called: models of every kind, and who pays for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random
from typing import Any, Final

from django.utils import timezone
from rest_framework_simplejwt.tokens import AccessToken

from apps.ai_models.models import AIModel, PriceVersion
from apps.api_keys.models import APIKey
from apps.billing.adjustments import adjust_balance
from apps.model_groups.models import ModelGroup
from apps.providers.demo.faults import FAULTS
from apps.providers.models import Provider
from apps.quotas.allowances import change_quota, create_quota
from apps.quotas.repeats import Repeat
from apps.users.models import User, UserGroup
from apps.users.tokens import open_session
from tests.faults.site import DOLLAR, Payer, Site
from tests.nemesis.surfaces import DIALECTS
from tests.support.people import make_admin

# A call that says nothing about its length holds at least this; what it costs is far less.
POOR_NANOS: Final = 3_000_000
# Some thirty calls; the last ones may write less and less.
CAPPED_NANOS: Final = 2_000_000
# Some hundred. A call holds up to 66 million nanos, of which a quota pays a part.
QUOTA_NANOS: Final = DOLLAR // 100
# Clocks are set back by up to a day, and a price is needed then, too.
_PRICED_SINCE: Final = timedelta(days=3)
# What a provider may take its time for.
_PATIENCE: Final[dict[str, Any]] = {
    "connect_timeout_seconds": 3.0,
    "first_byte_timeout_seconds": 6.0,
    "idle_timeout_seconds": 5.0,
    "total_timeout_seconds": 40.0,
}
_BAD_USAGE: Final = (
    "-600",
    "string",
    "9223372036854775807",
    "1.5",
    "NaN",
    "null",
    "true",
    "missing",
)
_STATUSES: Final = (
    *("400", "400,context_length_exceeded", "401", "402", "403", "404", "413", "422", "429"),
    *("429,insufficient_quota", "500", "502", "503", "529"),
)
# How a misbehaviour is asked for where once, with its defaults, is not enough or too much.
_VARIANTS: Final[dict[str, tuple[str, ...]]] = {
    "slow_first": ("slow_first(1)", "slow_first(9)"),
    "drip": ("drip(3000)",),
    "stall_after": ("stall_after(-1)", "stall_after(0)", "stall_after(3)"),
    "cut_after": ("cut_after(-1)", "cut_after(0)", "cut_after(3)"),
    "rst_after": ("rst_after(-1)", "rst_after(0)", "rst_after(3)"),
    "half_close": ("half_close(3)",),
    "cut_in_char": ("cut_in_char(cut)", "cut_in_char(clean)"),
    "cut_in_line": ("cut_in_line(cut)", "cut_in_line(clean)"),
    "cut_in_usage": ("cut_in_usage(cut)", "cut_in_usage(clean)"),
    "never_end": ("never_end,pace=0.02",),
    "huge_line": ("huge_line(2097152)",),
    "big_body": ("big_body(2097152)", "big_body(34603008)"),
    "gzip_bomb": ("gzip_bomb(1048576)",),
    "status": tuple(f"status({status})" for status in _STATUSES),
    "html": ("html(200)", "html(502)"),
    "bad_usage": tuple(f"bad_usage({value})" for value in _BAD_USAGE),
    "usage_after_finish": ("usage_after_finish(choice)", "usage_after_finish(done)"),
    "err_event_mid": ("err_event_mid(3)",),
    "no_finish": ("no_finish(3)",),
}
_REFUSING: Final = frozenset(
    f"status({status})" for status in ("401", "402", "403", "429,insufficient_quota")
)
MISBEHAVIOURS: Final = tuple(
    wish for name in FAULTS if name != "ok" for wish in _VARIANTS.get(name, (name,))
)


@dataclass(slots=True)
class Dishes:
    """What the providers of one dialect have, by what it is good for."""

    dialect: str
    quick: AIModel
    short: AIModel
    medium: AIModel
    long: AIModel
    paced: AIModel  # for clients that leave: PACED_TOKENS words, one after the other
    bulky: AIModel  # for slow readers: more than fits into any buffer
    shaky: list[AIModel]  # behind the connection that is harmed, alone and with a good route
    naughty: list[AIModel] = field(default_factory=list)


@dataclass(slots=True)
class Menu:
    """What there is, by the dialect of the providers that have it, and the payers."""

    dishes: dict[str, Dishes]
    rich: list[Payer] = field(default_factory=list)
    quotas: list[Payer] = field(default_factory=list)
    quota_ids: list[tuple[Payer, int]] = field(default_factory=list)
    poor: Payer | None = None
    capped: list[Payer] = field(default_factory=list)  # the key, the user, the user's group
    limited: Payer | None = None
    admin_token: str = ""

    @property
    def payers(self) -> list[Payer]:
        """All who pay."""
        others = [payer for payer in (self.poor, self.limited) if payer is not None]
        return [*self.rich, *self.quotas, *self.capped, *others]

    def choose(self, random: Random) -> Dishes:
        """Return what the providers of one of the dialects have."""
        return self.dishes[random.choice(DIALECTS)]


PACED_TOKENS: Final = 12


def make_menu(site: Site, shaky_port: int) -> Menu:
    """Write everything that is called, and everybody who pays."""
    near = {
        dialect: site.make_provider(f"near {dialect}", dialect=dialect, **_PATIENCE)
        for dialect in DIALECTS
    }
    menu = Menu({dialect: _make_dishes(site, near, dialect, shaky_port) for dialect in DIALECTS})
    _price_the_past()
    _make_payers(site, menu)
    menu.admin_token = _sign_in()
    return menu


def _make_dishes(site: Site, near: Mapping[str, Provider], dialect: str, shaky_port: int) -> Dishes:
    own = near[dialect]
    # What fails is answered by a provider of the next dialect, so that a call is converted that
    # passed as it is, or the other way round.
    other = near[DIALECTS[(DIALECTS.index(dialect) + 1) % len(DIALECTS)]]
    far = site.make_provider(
        f"far {dialect}", shaky_port, dialect=dialect, cap_nanos=1_000 * DOLLAR, **_PATIENCE
    )
    dishes = Dishes(
        dialect,
        quick=site.make_model("tokens=5", provider=own),
        short=site.make_model("tokens=20,pace=0.02", provider=own),
        medium=site.make_model("tokens=40,pace=0.1", provider=own),
        long=site.make_model("tokens=120,pace=0.1", provider=own),
        paced=site.make_model(f"tokens={PACED_TOKENS},pace=0.08", provider=own),
        bulky=site.make_model("tokens=3000", provider=own),
        shaky=[site.make_model("tokens=30,pace=0.1", provider=far) for _ in range(2)],
    )
    site.add_route(dishes.shaky[0], "tokens=30,pace=0.1", provider=other)
    bad = site.make_provider(f"bad {dialect}", dialect=dialect, **_PATIENCE)
    for wish in MISBEHAVIOURS:
        # A refused key is used no more: it is to take no other misbehaviour along.
        provider = bad
        if wish in _REFUSING:
            provider = site.make_provider(f"bad {dialect} {wish}", dialect=dialect, **_PATIENCE)
        dishes.naughty += _make_naughty(site, f"fault={wish}", provider, other)
    dishes.naughty += _make_naughty(site, "", _make_unproven(site, dialect), other)
    return dishes


def _make_naughty(site: Site, wish: str, provider: Provider, other: Provider) -> list[AIModel]:
    """Make a model that a provider has alone, and one that another has as well."""
    alone, backed = (site.make_model(wish, provider=provider) for _ in range(2))
    site.add_route(backed, "tokens=8", provider=other)
    return [alone, backed]


def _make_unproven(site: Site, dialect: str) -> Provider:
    """Make a provider that is to speak TLS and cannot: who was asked for is never proved."""
    provider = site.make_provider(f"unproven {dialect}", dialect=dialect, **_PATIENCE)
    provider.base_url = provider.base_url.replace("http:", "https:")
    provider.save(update_fields=["base_url"])
    return provider


def _sign_in() -> str:
    """Return an administrator's token that outlives the run."""
    token = AccessToken(open_session(user=make_admin(), request=None).access)  # type: ignore[arg-type]  # as documented
    token.set_exp(lifetime=_PRICED_SINCE)
    return str(token)


def _price_the_past() -> None:
    """Give each model the price that it has now for the days before, too."""
    versions = list(PriceVersion.objects.all())
    for version in versions:
        version.pk = None
        version.effective_at = timezone.now() - _PRICED_SINCE
    PriceVersion.objects.bulk_create(versions)


def _make_payers(site: Site, menu: Menu) -> None:
    menu.rich = [site.make_payer(1_000 * DOLLAR, rpm=1_000_000) for _ in range(3)]
    menu.quotas = [site.make_payer(100 * DOLLAR) for _ in range(2)]
    menu.poor = site.make_payer(POOR_NANOS)
    menu.capped = [site.make_payer(100 * DOLLAR) for _ in range(3)]
    menu.limited = site.make_payer(100 * DOLLAR, rpm=30, concurrency=2)
    _set_caps(menu.capped)
    _give_quotas(menu)


def _set_caps(capped: Sequence[Payer]) -> None:
    """Cap a key, a user, and a group of users."""
    by_key, by_user, by_group = (payer.user_id for payer in capped)
    APIKey.objects.filter(user_id=by_key).update(cap_nanos=CAPPED_NANOS)
    User.objects.filter(pk=by_user).update(cap_nanos=CAPPED_NANOS)
    group = UserGroup.objects.create(name="capped", cap_nanos=CAPPED_NANOS)
    User.objects.filter(pk=by_group).update(user_group=group)


def _give_quotas(menu: Menu) -> None:
    """Fund quotas: one on all models that runs out, and two beside each other, of which one is on
    the models of some providers alone.
    """
    first, second = (User.objects.get(pk=payer.user_id) for payer in menu.quotas)
    public = ModelGroup.objects.get(name="public")
    some = ModelGroup.objects.create(name="some", is_public=True)
    for dialect in ("anthropic", "gemini"):
        dishes = menu.dishes[dialect]
        some.models.add(dishes.quick, dishes.short)
    for payer, user, group, nanos in (
        (menu.quotas[0], first, public, QUOTA_NANOS),
        (menu.quotas[1], second, public, QUOTA_NANOS),
        (menu.quotas[1], second, some, 2 * QUOTA_NANOS),
    ):
        quota = create_quota(user=user, model_group=group, total_nanos=nanos)
        menu.quota_ids.append((payer, quota.pk))


def pay_in(payer: Payer, nanos: int, cause: str) -> None:
    """Credit or debit a payer as an administrator does. The same cause again moves nothing."""
    adjust_balance(
        customer_id=payer.customer_id,
        amount_nanos=nanos,
        actor=None,
        reason=cause,
        idempotency_key=cause,
    )


def add_to_quota(quota_id: int, nanos: int, cause: str) -> None:
    """Raise a quota as an administrator does. The same cause again moves nothing."""
    change_quota(
        quota_id=quota_id,
        changes={"add_nanos": nanos},
        actor=None,
        reason=cause,
        repeat=Repeat(key=cause, digest=cause),
    )
