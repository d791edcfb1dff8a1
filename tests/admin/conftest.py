"""One of everything for all tests of a module, and a browser for the Django admin."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy

import pytest
from django.test import Client
from pytest_django import DjangoDbBlocker

from tests.support.databases import TestDatabases
from tests.support.house import House, make_house


@pytest.fixture(scope="module")
def house_of_module(
    test_databases: TestDatabases, django_db_blocker: DjangoDbBlocker
) -> Iterator[House]:
    """Write one of everything into a database that the tests of a module share."""
    with django_db_blocker.unblock():
        database = test_databases.clone()
        with test_databases.selected(database):
            yield make_house()
        test_databases.drop(database)


@pytest.fixture
def house(house_of_module: House, db: None) -> House:
    """Return one of everything: ada has 10 dollars and a quota of one. It is rolled back."""
    return deepcopy(house_of_module)


@pytest.fixture
def client(house: House) -> Client:
    """Return a browser signed in as the administrator."""
    browser = Client()
    browser.force_login(house.root)
    return browser
