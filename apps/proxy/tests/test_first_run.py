"""What a new installation gets, once."""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from apps.ai_models.models import AIModel, Route
from apps.api_keys.issue import digest_of
from apps.api_keys.models import APIKey
from apps.audit.models import AdminEvent
from apps.billing.accounts import find_standing
from apps.model_groups.models import ModelGroup
from apps.providers.models import Provider
from apps.proxy.first_run import (
    Credentials,
    Wishes,
    find_credentials,
    find_demo_port,
    move_demo_provider,
    perform_first_run,
    write_credentials,
)
from apps.users.models import User

URL = "http://127.0.0.1:8000"
WISHES = Wishes(
    admin_username="root",
    admin_email="root@example.com",
    admin_password="",
    demo_api_key="",
    demo_base_url="http://127.0.0.1:9100/v1",
)

pytestmark = pytest.mark.django_db


def run(data_dir: Path, wishes: Wishes = WISHES) -> Credentials:
    """Perform a first run that must not find users."""
    made = perform_first_run(wishes=wishes, url=URL, data_dir=data_dir)
    assert made is not None
    return made


def test_the_administrator_can_sign_in_with_the_password_that_was_made_up(data_dir: Path) -> None:
    made = run(data_dir)

    administrator = User.objects.get(username="root")
    assert administrator.is_superuser
    assert administrator.role == "admin"
    assert administrator.check_password(made.administrator_password)
    assert len(made.administrator_password) == 20


def test_the_demo_user_has_ten_dollars_and_a_key(data_dir: Path) -> None:
    made = run(data_dir)

    user = User.objects.get(username="demo")
    key = APIKey.objects.get(user=user)
    assert find_standing(user.customer_id).available_nanos == 10_000_000_000
    assert bytes(key.digest) == digest_of(made.demo_key)
    assert key.is_default


def test_the_demo_model_is_priced_public_and_first(data_dir: Path) -> None:
    AIModel.objects.create(name="another", position=0)

    run(data_dir)

    model = AIModel.objects.order_by("position", "name")[0]
    assert model.name == "demo-chat"
    assert model.price_versions.get().prices() == {
        "input": 2_500_000_000,
        "output": 10_000_000_000,
    }
    group = ModelGroup.objects.get()
    assert (group.name, group.is_public, list(group.models.all())) == ("public", True, [model])
    route = Route.objects.get()
    assert (route.model, route.provider.base_url) == (model, "http://127.0.0.1:9100/v1")
    assert route.provider.keys.count() == 1


def test_the_file_can_be_read_by_its_owner_only_and_read_back(data_dir: Path) -> None:
    made = run(data_dir)

    path = data_dir / "first-run.txt"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert made.demo_key in path.read_text()
    assert find_credentials(data_dir=data_dir, url=URL) == made
    assert find_credentials(data_dir=data_dir, url="http://127.0.0.1:9") == replace(
        made, url="http://127.0.0.1:9"
    )


def test_a_later_run_changes_nothing(data_dir: Path) -> None:
    run(data_dir)
    User.objects.filter(username="demo").update(username="renamed")
    events = AdminEvent.objects.count()

    again = perform_first_run(wishes=WISHES, url=URL, data_dir=data_dir)

    assert again is None
    assert User.objects.count() == 2
    assert AdminEvent.objects.count() == events


def test_a_chosen_password_works_and_is_not_written_down(data_dir: Path) -> None:
    run(data_dir, replace(WISHES, admin_password="correct horse 1"))

    assert User.objects.get(username="root").check_password("correct horse 1")
    assert "correct horse 1" not in (data_dir / "first-run.txt").read_text()


def test_a_chosen_demo_key_is_the_demo_key(data_dir: Path) -> None:
    made = run(data_dir, replace(WISHES, demo_api_key="sk-mine"))

    assert made.demo_key == "sk-mine"
    assert bytes(APIKey.objects.get().digest) == digest_of("sk-mine")


def test_without_a_demo_there_is_the_administrator_only(data_dir: Path) -> None:
    made = run(data_dir, replace(WISHES, demo_base_url=None))

    assert [user.username for user in User.objects.all()] == ["root"]
    assert Provider.objects.count() == 0
    assert (made.demo_user, made.demo_key) == ("", "")
    assert find_demo_port() is None


@pytest.mark.parametrize(
    "wishes",
    [
        replace(WISHES, admin_username="Demo"),
        replace(WISHES, admin_email="demo@example.com"),
        replace(WISHES, admin_username="somebody@else.example"),
    ],
)
def test_contradictory_wishes_are_refused_and_leave_nothing(data_dir: Path, wishes: Wishes) -> None:
    with pytest.raises(ImproperlyConfigured):
        perform_first_run(wishes=wishes, url=URL, data_dir=data_dir)

    assert User.objects.count() == 0
    assert not (data_dir / "first-run.txt").exists()


def test_the_demo_provider_can_move_to_another_port(data_dir: Path) -> None:
    run(data_dir)
    assert find_demo_port() == 9100

    move_demo_provider(port=9200)

    assert find_demo_port() == 9200
    event = AdminEvent.objects.latest("pk")
    assert (event.action, event.after) == (
        "provider.changed",
        {"base_url": "http://127.0.0.1:9200/v1"},
    )


def test_a_demo_provider_that_was_pointed_elsewhere_is_left_alone(data_dir: Path) -> None:
    run(data_dir)

    Provider.objects.update(base_url="https://api.example.com/v1")

    assert find_demo_port() is None


def test_the_curl_line_is_one_line(data_dir: Path) -> None:
    made = run(data_dir)

    write_credentials(made, data_dir=data_dir)

    assert made.curl in (data_dir / "first-run.txt").read_text().splitlines()
