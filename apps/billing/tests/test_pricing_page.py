"""docs/pricing.md: each of its examples is charged what it says."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from apps.ai_models.price_serializers import PricesInput, show_price
from apps.billing.pricing import Price, charge_nanos, conditions_of, price_of_columns
from apps.core.money import format_usd
from apps.core.usage import COUNTS, TOKEN_CLASSES, Usage

PAGE = Path(settings.BASE_DIR) / "docs" / "pricing.md"
NOON = datetime(2026, 11, 29, 12, tzinfo=UTC)
EXAMPLES = [
    json.loads(text)
    for text in re.findall(r"```json\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
]


def _read(prices: dict[str, Any]) -> Price:
    """Return a price as it is charged after it was set and stored."""
    given = PricesInput(data=prices)
    given.is_valid(raise_exception=True)
    price = given.validated_data
    price.check()
    empty = dict.fromkeys([f"{name}_nanos" for name in (*TOKEN_CLASSES, *COUNTS)])
    assert show_price(price) == prices
    return price_of_columns({"id": 1, **empty, **price.columns()})


def test_the_page_has_an_example_for_each_feature() -> None:
    assert len(EXAMPLES) == 8
    assert {name for example in EXAMPLES for name in example["prices"].get("terms", ())} == {
        "context_tiers",
        "service_tiers",
        "windows",
    }


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_is_charged_what_the_page_says(example: dict[str, Any]) -> None:
    started_at = datetime.fromisoformat(example.get("started_at", NOON.isoformat()))
    conditions = conditions_of(example.get("service_tier", ""), started_at)
    multiplier = int(float(example.get("multiplier", "1")) * 1_000_000)

    charge = charge_nanos(
        Usage.from_dict(example["usage"]), _read(example["prices"]), multiplier, conditions
    )

    assert format_usd(charge) == example["charge"]
