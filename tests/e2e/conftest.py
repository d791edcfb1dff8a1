"""One gateway and one demo provider for all modules; each test makes its own callers and models.

A module that names CONSTANTS or what to PLANT into its gateway (see tests.support.serve) has one of
its own, even where it names what all have. When the tests of a module are over, the books must be
in order, whatever they did, and when a gateway ends, all that it wrote is verified.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
from django.db.models import Sum
from pytest_django import DjangoDbBlocker

from apps.ai_models.models import AIModel
from apps.audit.models import APIRequest
from apps.billing.models import Account, Entry, Hold
from apps.billing.verification import anchors_path, report
from apps.model_groups.models import ModelGroup
from tests.e2e.dialects import PROVIDER_DIALECTS, Stages
from tests.support.bench import INPUT_NANOS, OUTPUT_NANOS, Bench, open_bench
from tests.support.databases import TestDatabases
from tests.support.gateway import FAST, DemoThread
from tests.support.processes import wait_until

_SETTLED_SECONDS = 20  # As long as a gateway that is stopped may take.
# What a change of the configuration costs grows with the models of its group, and with all.
_MODELS_MAX = 200


@pytest.fixture(scope="module")
def demo() -> Iterator[DemoThread]:
    """Run a demo provider."""
    provider = DemoThread()
    yield provider
    provider.stop()


class SharedBench:
    """The gateway of all modules that wish nothing special: open while their tests run."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._bench: Bench | None = None
        self._close: Callable[[], None] | None = None

    def open(
        self, directory: Path, test_databases: TestDatabases, blocker: DjangoDbBlocker
    ) -> Bench:
        """Return a gateway with room for a module, and a group of its own for the models of that.

        The caller selects its database.
        """
        if self._bench is not None:
            with test_databases.selected(self._bench.database):
                is_full = AIModel.objects.count() > _MODELS_MAX
                self._bench.group = ModelGroup.objects.create(
                    name=f"public {next(self._numbers)}", is_public=True
                )
            if is_full:
                self.close()
        if self._bench is None:
            demo = DemoThread()
            database = test_databases.clone()
            with test_databases.selected(database):
                self._bench = open_bench(directory, database, demo)
            self._close = partial(_close_bench, self._bench, test_databases, blocker)
        return self._bench

    def close(self) -> None:
        """Stop the gateway if it runs, and check what is left."""
        close, self._bench, self._close = self._close, None, None
        if close is not None:
            close()


def _close_bench(bench: Bench, test_databases: TestDatabases, blocker: DjangoDbBlocker) -> None:
    bench.gateway.stop()
    bench.demo.stop()
    with blocker.unblock(), test_databases.selected(bench.database):
        check_books()
        verify_all()
    test_databases.drop(bench.database)


_shared = SharedBench()


def _shares_bench(item: pytest.Item) -> bool:
    return "module_bench" in getattr(item, "fixturenames", ()) and not _is_special(
        getattr(item, "module", None)
    )


def _is_special(module: object) -> bool:
    return hasattr(module, "CONSTANTS") or hasattr(module, "PLANT")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have those who share a gateway run one after the other; their order stays random."""
    items.sort(key=_shares_bench, reverse=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """Stop the shared gateway when the next test does not need it: idle ones take time, too.

    Within a module it is still needed: the module's own books are checked at its end.
    """
    try:
        yield
    finally:
        if nextitem is None or not (_shares_bench(nextitem) or nextitem.path == item.path):
            _shared.close()


@pytest.fixture(scope="module")
def module_bench(
    request: pytest.FixtureRequest,
    test_databases: TestDatabases,
    django_test_environment: None,
    django_db_blocker: DjangoDbBlocker,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Bench]:
    """Give a gateway: the shared one, or one of this module where it wishes anything special."""
    if _is_special(request.module):
        yield from _open_own_bench(request)
        return
    with django_db_blocker.unblock():
        bench = _shared.open(tmp_path_factory.mktemp("shared"), test_databases, django_db_blocker)
        with test_databases.selected(bench.database):
            yield bench
            try:
                wait_until(
                    lambda: not Hold.objects.exists(),
                    timeout_seconds=_SETTLED_SECONDS,
                    what="the end of all calls",
                )
                check_books()
            except Exception:  # raised again: the next module must not fail for what this one left
                _shared.close()
                raise


def _open_own_bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    bench = open_bench(
        request.getfixturevalue("tmp_path_factory").mktemp("gateway"),
        request.getfixturevalue("module_db"),
        request.getfixturevalue("demo"),
        constants=getattr(request.module, "CONSTANTS", FAST),
        plant=getattr(request.module, "PLANT", ()),
    )
    yield bench
    bench.gateway.stop()
    check_books()
    verify_all()


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


def verify_all() -> None:
    """Verify everything that a gateway has written, as `verify_ledger --full` does.

    Once a gateway and not once a module: it takes half a millisecond of the processor for a call.
    """
    found = report(is_full=True, anchors_path=anchors_path(), now=datetime.now(UTC))
    assert [str(finding) for finding in found.findings] == []
