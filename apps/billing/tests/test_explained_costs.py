"""What a provider bills is explained as far as the record goes, and no further."""

from __future__ import annotations

import pytest

from apps.audit.models import APIRequest
from apps.billing.explanation import explain_request
from apps.billing.ledger.commands import Held
from tests.support.world import Gateway, django_engine, make_world


@pytest.mark.django_db
def test_a_cost_that_does_not_fit_its_price_sends_nobody_to_where_it_is_not_looked_for() -> None:
    gateway = Gateway(make_world(), django_engine())
    held = gateway.hold(100_000)
    assert isinstance(held, Held)
    gateway.resolve(held, 100, cost_version_id=gateway.world.price.pk, cost_nanos=100_007)

    cost = explain_request(APIRequest.objects.get()).cost

    assert cost is not None
    (rest,) = cost.adjustments
    assert (rest.kind, rest.amount_nanos) == ("unexplained", 7)
    assert rest.note == (
        "The stored usage and the provider's price do not give this amount. verify_ledger compares "
        "it with what the attempts cost, not with the price."
    )
