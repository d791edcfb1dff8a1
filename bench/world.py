"""What the calls of the benchmark need: customers with money and a key each, models, providers.

`python -m bench.world '{"customers": 16, "models": {"bench": ["openai", "http://…/v1"]}}'` writes
them into the database of the environment and prints the keys as JSON.
"""

from __future__ import annotations

import json
import os
import sys

import django

BALANCE_NANOS = 1_000_000 * 10**9
# For each million tokens: an input token costs 1,000 nanos and an output token 4,000.
PRICES = {"input": 1_000_000_000, "output": 4_000_000_000}


def make_world(*, customers: int, models: dict[str, tuple[str, str]]) -> list[str]:
    """Write the rows and return the raw keys, one of each customer.

    `models` tells by name in which dialect their provider answers, and where.
    """
    from apps.ai_models.catalogue import create_model
    from apps.api_keys.issue import issue_key
    from apps.billing.adjustments import adjust_balance
    from apps.billing.customers import create_user
    from apps.model_groups.models import ModelGroup
    from apps.providers.credentials import add_key
    from apps.providers.models import Provider

    group = ModelGroup.objects.create(name="public", is_public=True)
    for name, (dialect, base_url) in models.items():
        provider = Provider.objects.create(
            name=f"provider of {name}", dialect=dialect, base_url=base_url
        )
        add_key(provider=provider, secret="sk-upstream-of-the-benchmark")
        model = create_model(name=name, provider=provider, upstream_name=name, prices=PRICES)
        group.models.add(model)
    keys = []
    for number in range(customers):
        user = create_user(
            username=f"bench{number}", email=f"bench{number}@example.com", password=None
        )
        adjust_balance(
            customer_id=user.customer_id,
            amount_nanos=BALANCE_NANOS,
            actor=None,
            reason="for the benchmark",
        )
        keys.append(issue_key(user=user, name=f"key {number}")[1])
    return keys


def main() -> None:
    """Write the world that the argument describes."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "auditing.settings")
    wishes = json.loads(sys.argv[1])
    django.setup()
    keys = make_world(customers=wishes["customers"], models=wishes["models"])
    print(json.dumps(keys))


if __name__ == "__main__":
    main()
