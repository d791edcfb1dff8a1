"""What is called: models of every kind, and who pays for them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from django.utils import timezone
from rest_framework_simplejwt.tokens import AccessToken

from apps.ai_models.models import AIModel, PriceVersion
from apps.billing.adjustments import adjust_balance
from apps.model_groups.models import ModelGroup
from apps.providers.demo.faults import FAULTS
from apps.providers.models import Provider
from apps.quotas.allowances import create_quota
from apps.users.models import User
from apps.users.tokens import open_session
from tests.faults.site import DOLLAR, Payer, Site
from tests.support.people import make_admin

# A call that says nothing about its length holds at least this; what it costs is far less.
POOR_NANOS: Final = 3_000_000
CAPPED_NANOS: Final = 400_000_000
_QUOTA_NANOS: Final = DOLLAR // 2
# Clocks are set back by up to a day, and a price is needed then, too.
_PRICED_SINCE: Final = timedelta(days=3)
# What a provider may take its time for.
_PATIENCE: Final = {
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
class Menu:
    """The models by what they are good for, and the payers."""

    quick: AIModel
    short: AIModel
    medium: AIModel
    long: AIModel
    paced: AIModel  # for clients that leave: PACED_TOKENS words, one after the other
    bulky: AIModel  # for slow readers: more than fits into any buffer
    shaky: list[AIModel]  # behind the connection that is harmed, alone and with a good route
    naughty: list[AIModel] = field(default_factory=list)
    rich: list[Payer] = field(default_factory=list)
    quota: Payer | None = None
    poor: Payer | None = None
    capped: Payer | None = None
    limited: Payer | None = None
    admin_token: str = ""

    @property
    def payers(self) -> list[Payer]:
        """All who pay."""
        others = (self.quota, self.poor, self.capped, self.limited)
        return [*self.rich, *(payer for payer in others if payer is not None)]


PACED_TOKENS: Final = 12


def make_menu(site: Site, shaky_port: int) -> Menu:
    """Write everything that is called, and everybody who pays."""
    Provider.objects.filter(name="demo").update(**_PATIENCE)
    demo = Provider.objects.get(name="demo")
    far = site.make_provider("far", shaky_port, cap_nanos=1_000 * DOLLAR, **_PATIENCE)
    bad = site.make_provider("bad", site.provider_port, **_PATIENCE)
    menu = Menu(
        quick=site.make_model("tokens=5"),
        short=site.make_model("tokens=20,pace=0.02"),
        medium=site.make_model("tokens=40,pace=0.1"),
        long=site.make_model("tokens=120,pace=0.1"),
        paced=site.make_model(f"tokens={PACED_TOKENS},pace=0.08"),
        bulky=site.make_model("tokens=3000"),
        shaky=[site.make_model("tokens=30,pace=0.1", provider=far) for _ in range(2)],
    )
    site.add_route(menu.shaky[0], "tokens=30,pace=0.1", provider=demo)
    for wish in MISBEHAVIOURS:
        # A refused key is used no more: it is to take no other misbehaviour along.
        provider = bad
        if wish in _REFUSING:
            provider = site.make_provider(f"bad {wish}", site.provider_port, **_PATIENCE)
        alone, backed = (site.make_model(f"fault={wish}", provider=provider) for _ in range(2))
        site.add_route(backed, "tokens=8", provider=demo)
        menu.naughty += [alone, backed]
    _price_the_past()
    _make_payers(site, menu)
    menu.admin_token = _sign_in()
    return menu


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
    menu.quota = site.make_payer(100 * DOLLAR)
    menu.poor = site.make_payer(POOR_NANOS)
    menu.capped = site.make_payer(100 * DOLLAR, cap_nanos=CAPPED_NANOS)
    menu.limited = site.make_payer(100 * DOLLAR, rpm=30, concurrency=2)
    user = User.objects.get(pk=menu.quota.user_id)
    create_quota(
        user=user, model_group=ModelGroup.objects.get(name="public"), total_nanos=_QUOTA_NANOS
    )


def pay_in(payer: Payer, nanos: int, cause: str) -> None:
    """Credit or debit a payer as an administrator does. The same cause again moves nothing."""
    adjust_balance(
        customer_id=payer.customer_id,
        amount_nanos=nanos,
        actor=None,
        reason=cause,
        idempotency_key=cause,
    )
