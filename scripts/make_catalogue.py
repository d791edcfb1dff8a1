"""Writes apps/ai_models/known_models.json from the package genai-prices.

Run by `make catalogue` while developing; the gateway only reads the file. The day in the file is
the day whose prices it holds: `--as-of` repeats an earlier run.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from genai_prices.data import providers
from genai_prices.types import ModelInfo, ModelPrice, Provider, StartDateConstraint, TieredPrices

FILE: Final = Path(__file__).parents[1] / "apps" / "ai_models" / "known_models.json"
BYTES_MAX: Final = 1_000_000
PACKAGE: Final = "genai-prices"
# USD per million tokens there → token class here.
CLASSES: Final = {
    "input_mtok": "input",
    "cache_read_mtok": "cache_read",
    "cache_write_mtok": "cache_write_5m",
    "cache_write_1h_mtok": "cache_write_1h",
    "output_mtok": "output",
    "output_reasoning_mtok": "reasoning",
    "input_audio_mtok": "audio_in",
    "output_audio_mtok": "audio_out",
    "input_image_mtok": "image_in",
    "output_image_mtok": "image_out",
}
PER_THOUSAND_REQUESTS: Final = "requests_kcount"
# A nano-USD; some sources carry the noise of floats behind it.
STEP: Final = Decimal("1e-9")
USD_MAX: Final = 1_000_000


def build(as_of: date) -> dict[str, Any]:
    """Return what the file holds, in an order that depends on nothing but the content."""
    known = sorted(providers, key=lambda provider: provider.id)
    models = [entry for provider in known for entry in _models_of(provider, as_of)]
    used = {entry["provider"] for entry in models}
    return {
        "source": {
            "package": PACKAGE,
            "version": version(PACKAGE),
            "url": "https://github.com/pydantic/genai-prices",
            "license": "MIT, Copyright (c) Pydantic Services Inc. 2025 to present",
            "as_of": as_of.isoformat(),
        },
        "providers": [
            {"id": provider.id, "name": provider.name} for provider in known if provider.id in used
        ],
        "models": models,
    }


def render(catalogue: Mapping[str, Any]) -> str:
    """Return the file's text: one model a line, so that a difference can be read."""
    lists = []
    for name in ("providers", "models"):
        rows = ",\n".join(
            json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in catalogue[name]
        )
        lists.append(f'"{name}": [\n{rows}\n]')
    source = json.dumps(catalogue["source"], ensure_ascii=False)
    return f'{{\n"source": {source},\n' + ",\n".join(lists) + "\n}\n"


def _models_of(provider: Provider, as_of: date) -> Iterator[dict[str, Any]]:
    for model in sorted(provider.models, key=lambda model: model.id):
        price, notes = _price_at(model, as_of)
        prices = _prices_of(price, notes)
        if "input" not in prices or "output" not in prices:
            continue
        entry: dict[str, Any] = {"provider": provider.id, "model": model.id}
        if model.name:
            entry["name"] = model.name
        if model.context_window:
            entry["context_length"] = model.context_window
        entry["prices"] = prices
        if model.deprecated:
            notes.add("deprecated")
        if notes:
            entry["notes"] = sorted(notes)
        yield entry


def _price_at(model: ModelInfo, as_of: date) -> tuple[ModelPrice, set[str]]:
    """Return the price of a day; of several in one day the dearest, with a note."""
    if isinstance(model.prices, ModelPrice):
        return model.prices, set()
    noon = datetime(as_of.year, as_of.month, as_of.day, 12, tzinfo=UTC)
    price, by_hour = model.prices[0].prices, []
    for conditional in model.prices:
        if conditional.constraint is None or (
            isinstance(conditional.constraint, StartDateConstraint)
            and conditional.constraint.active(noon)
        ):
            price = conditional.prices
        elif not isinstance(conditional.constraint, StartDateConstraint):
            by_hour.append(conditional.prices)
    if not by_hour:
        return price, set()
    return max((price, *by_hour), key=_sum), {"time_of_day"}


def _sum(price: ModelPrice) -> Decimal:
    amounts = (getattr(price, name, None) for name in ("input_mtok", "output_mtok"))
    return sum((_base(amount) for amount in amounts if amount is not None), Decimal(0))


def _prices_of(price: ModelPrice, notes: set[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, amount in sorted(vars(price).items()):
        if amount is None or name.startswith("_"):
            continue
        if isinstance(amount, TieredPrices):
            notes.add("tiered")
        if name in CLASSES:
            found[CLASSES[name]] = _text(_base(amount))
        elif name == PER_THOUSAND_REQUESTS:
            found["request"] = _text(_base(amount) / 1_000)
        else:
            notes.add("other_fees")
    return {name: found[name] for name in (*CLASSES.values(), "request") if name in found}


def _base(amount: Decimal | TieredPrices) -> Decimal:
    return amount.base if isinstance(amount, TieredPrices) else amount


def _text(amount: Decimal) -> str:
    if not 0 <= amount <= USD_MAX:
        raise ValueError(f"{amount} is no price.")
    rounded = amount.quantize(STEP, rounding=ROUND_HALF_EVEN).normalize()
    if amount and not rounded:
        raise ValueError(f"{amount} would become free.")
    return format(rounded, "f")


def main() -> int:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--as-of", type=date.fromisoformat, default=datetime.now(UTC).date())
    text = render(build(parser.parse_args().as_of))
    if len(text.encode()) > BYTES_MAX:
        sys.stderr.write(f"error: {len(text.encode())} bytes are more than {BYTES_MAX}.\n")
        return 1
    FILE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
