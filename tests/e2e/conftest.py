"""One gateway and one demo provider for the tests of a module; each test makes its own callers.

A module may name CONSTANTS and what to PLANT into its gateway (see tests.support.serve). When its
tests are over, the books must be in order, whatever they did.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.db.models import Sum
from pytest_django import DjangoDbBlocker

from apps.audit.models import APIRequest
from apps.billing.models import Account, Entry, Hold
from tests.e2e.dialects import PROVIDER_DIALECTS, Stages
from tests.support.bench import INPUT_NANOS, OUTPUT_NANOS, Bench, open_bench
from tests.support.databases import Database, TestDatabases
from tests.support.gateway import FAST, DemoThread


@pytest.fixture(scope="module")
def module_db(
    test_databases: TestDatabases, django_db_blocker: DjangoDbBlocker
) -> Iterator[Database]:
    """Give the tests of a module one database, in which they commit for real."""
    with django_db_blocker.unblock():
        database = test_databases.clone()
        with test_databases.selected(database):
            yield database
        test_databases.drop(database)


@pytest.fixture(scope="module")
def demo() -> Iterator[DemoThread]:
    """Run a demo provider."""
    provider = DemoThread()
    yield provider
    provider.stop()


@pytest.fixture(scope="module")
def module_bench(
    request: pytest.FixtureRequest,
    module_db: Database,
    demo: DemoThread,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Bench]:
    """Run a gateway."""
    bench = open_bench(
        tmp_path_factory.mktemp("gateway"),
        module_db,
        demo,
        constants=getattr(request.module, "CONSTANTS", FAST),
        plant=getattr(request.module, "PLANT", ()),
    )
    yield bench
    bench.gateway.stop()
    check_books()


@pytest.fixture(scope="module")
def counting(module_bench: Bench) -> None:
    """Have the gateway's tokenizer loaded: on a busy machine that takes longer than a call waits.

    Until then an estimate goes by the characters.
    """
    stage = module_bench.stage("demo-chat:tokens=3,fault=no_usage")
    client = stage.client(max_retries=0)
    for number in range(1, 11):
        client.chat.completions.create(**stage.body())
        if stage.settled(number).charges[-1] == 10 * INPUT_NANOS + 3 * OUTPUT_NANOS:
            return
    raise AssertionError("the tokenizer does not count")


@pytest.fixture
def bench(module_bench: Bench) -> Iterator[Bench]:
    """Return the module's gateway and close what the test connected to it."""
    yield module_bench
    module_bench.close_clients()


@pytest.fixture(params=PROVIDER_DIALECTS)
def stages(request: pytest.FixtureRequest, bench: Bench) -> Stages:
    """Stages at a provider of each dialect in turn."""
    return Stages(bench, request.param)


def check_books() -> None:
    """Check that all is balanced, nothing held, and nothing charged that SDKs repeat (I-24)."""
    repeated = APIRequest.objects.exclude(status_code__in=[200, 499])
    assert not repeated.exclude(charge_nanos=0).exists()
    assert not Entry.objects.filter(request_id__in=repeated.values("pk")).exists()
    assert not Hold.objects.exists()
    assert not Account.objects.exclude(held_nanos=0).exists()
    assert Entry.objects.aggregate(total=Sum("amount_nanos"))["total"] in (0, None)
    charged = APIRequest.objects.aggregate(total=Sum("charge_nanos"))["total"] or 0
    earned = Account.objects.filter(kind="revenue").aggregate(total=Sum("posted_nanos"))["total"]
    assert charged == (earned or 0)
