"""Models that providers are known to offer, with their prices, and how they get into the catalogue.

They come from a file that `make catalogue` writes; nothing is fetched while the gateway runs.
Prices here are decimal strings, USD per million tokens.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal

from django.contrib.auth.base_user import AbstractBaseUser
from django.db import IntegrityError, transaction
from django.http import HttpRequest
from django.utils import timezone

from apps.ai_models.catalogue import ModelExists
from apps.ai_models.locks import OwnerGone
from apps.ai_models.models import AIModel, PriceVersion, Route
from apps.audit.events import record_event, values_of
from apps.core.locks import lock_row
from apps.core.money import parse_usd
from apps.core.pieces import in_pieces
from apps.providers.models import Provider

IMPORT_MAX: Final = 500
# SQLite writes this many within 30 ms.
_PIECE: Final = 50
REQUEST: Final = "request"
_FILE: Final = Path(__file__).with_name("known_models.json")
_CONTEXT_LENGTH: Final = 128_000
_OUTPUT_TOKENS: Final = 16_384


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A model as one provider offers it.

    Notes: `tiered` (long inputs cost more than this), `time_of_day` (cheaper at some hours),
    `other_fees` (searches and the like cost extra), `deprecated`.
    """

    provider: str
    model: str
    name: str
    context_length: int | None  # tokens
    prices: Mapping[str, str]  # by token class, and `request`
    notes: tuple[str, ...]

    @property
    def assumed(self) -> tuple[str, ...]:
        """The values of its model here that the file does not have."""
        if self.context_length is None:
            return ("context_length", "max_output_tokens")
        return ("max_output_tokens",)


@dataclass(frozen=True, slots=True)
class KnownModels:
    """Everything in the file."""

    source: Mapping[str, str]
    providers: Mapping[str, str]  # id → name
    models: tuple[KnownModel, ...]  # by provider and model
    by_key: Mapping[tuple[str, str], KnownModel] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Choice:
    """A known model to import, under a name of ours."""

    known: KnownModel
    name: str


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of a choice."""

    choice: Choice
    status: Literal["created", "exists"]
    id: int

    @property
    def assumed(self) -> tuple[str, ...]:
        """The values that were made up, to be set by whoever imports it."""
        return self.choice.known.assumed if self.status == "created" else ()


# One file, about 2,000 entries; read when somebody asks first.
@lru_cache(maxsize=1)
def load_known_models() -> KnownModels:
    """Return what the file holds."""
    content = json.loads(_FILE.read_text(encoding="utf-8"))
    models = tuple(
        KnownModel(
            provider=entry["provider"],
            model=entry["model"],
            name=entry.get("name", ""),
            context_length=entry.get("context_length"),
            prices=entry["prices"],
            notes=tuple(entry.get("notes", ())),
        )
        for entry in content["models"]
    )
    return KnownModels(
        source=content["source"],
        providers={entry["id"]: entry["name"] for entry in content["providers"]},
        models=models,
        by_key={(known.provider, known.model): known for known in models},
    )


def search_known_models(*, provider: str = "", text: str = "") -> list[KnownModel]:
    """Return the known models of a provider (or of all) that hold a text, whatever the case."""
    wanted = text.casefold()
    return [
        known
        for known in load_known_models().models
        if (not provider or known.provider == provider)
        and (wanted in known.model.casefold() or wanted in known.name.casefold())
    ]


def import_known_models(
    *,
    choices: Sequence[Choice],
    route_provider: Provider | None = None,
    actor: AbstractBaseUser | None = None,
    request: HttpRequest | None = None,
) -> list[Imported]:
    """Make the models that do not exist yet, with prices and routes; leave the others as they are.

    Writes in bulk and in pieces: a call that broke off can be made again. Raises ModelExists where
    somebody else made one of them at the same moment, and OwnerGone without the provider.
    """
    return [
        imported
        for piece in in_pieces(choices, _PIECE)
        for imported in _import_piece(piece, route_provider, actor=actor, request=request)
    ]


def _import_piece(
    choices: Sequence[Choice],
    route_provider: Provider | None,
    *,
    actor: AbstractBaseUser | None,
    request: HttpRequest | None,
) -> list[Imported]:
    with transaction.atomic():
        if route_provider is not None:
            lock_row(Provider.objects, route_provider.pk, gone=OwnerGone)
        names = [choice.name for choice in choices]
        existing = dict(AIModel.objects.filter(name__in=names).values_list("name", "pk"))
        new: dict[str, Choice] = {}
        for choice in choices:
            if choice.name not in existing:
                new.setdefault(choice.name, choice)
        made = _write(list(new.values()), route_provider, actor=actor, request=request)
    answered = []
    for choice in choices:
        is_created = new.get(choice.name) is choice
        model_id = made[choice.name] if choice.name in made else existing[choice.name]
        answered.append(Imported(choice, "created" if is_created else "exists", model_id))
    return answered


def _write(
    choices: Sequence[Choice],
    provider: Provider | None,
    *,
    actor: AbstractBaseUser | None,
    request: HttpRequest | None,
) -> dict[str, int]:
    """Write the models and return name → id."""
    try:
        with transaction.atomic():
            models = AIModel.objects.bulk_create([_model_of(choice) for choice in choices])
    except IntegrityError as error:
        raise ModelExists from error
    now = timezone.now()
    prices = PriceVersion.objects.bulk_create(
        [
            _price_of(choice.known, model, effective_at=now)
            for choice, model in zip(choices, models, strict=True)
        ]
    )
    routes: list[Route | None] = [None] * len(models)
    if provider is not None:
        routes = list(
            Route.objects.bulk_create(
                [
                    Route(
                        model=model,
                        provider=provider,
                        upstream_name=choice.known.model,
                        priority=provider.priority,
                        weight=provider.weight,
                    )
                    for choice, model in zip(choices, models, strict=True)
                ]
            )
        )
    for model, price, route in zip(models, prices, routes, strict=True):
        # One event tells of all three, which halves the time that others wait for SQLite.
        after: dict[str, Any] = {**values_of(model), "price": values_of(price)}
        if route is not None:
            after["route"] = values_of(route)
        record_event(
            actor=actor, action="model.imported", subject=model, after=after, request=request
        )
    return {model.name: model.pk for model in models}


def _model_of(choice: Choice) -> AIModel:
    context = choice.known.context_length or _CONTEXT_LENGTH
    return AIModel(
        name=choice.name,
        display_name=choice.known.name[:200],
        context_length=context,
        max_output_tokens=min(_OUTPUT_TOKENS, context),
    )


def _price_of(known: KnownModel, model: AIModel, *, effective_at: Any) -> PriceVersion:
    amounts = {name: parse_usd(text) for name, text in known.prices.items()}
    return PriceVersion(
        model=model,
        effective_at=effective_at,
        request_nanos=amounts.pop(REQUEST, 0),
        **{f"{name}_nanos": nanos for name, nanos in amounts.items()},
    )
