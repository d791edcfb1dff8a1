"""A key that signed anchors can go when a newer one vouches for them; nobody gains by that (I-69).

The forger here writes the file, and has the old key. Lines 1 to 3 are of the old key, 4 is of the
new one and vouches for them, 5 and 6 are of the new one.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pytest
from pytest_django import Settings

from apps.billing.anchor_checks import read_promises
from apps.billing.anchors import Place, append_anchor, read_anchors
from apps.billing.findings import Finding, Findings
from apps.billing.models import VerifiedHead
from apps.billing.sealing_keys import AnchorsUnsound, vouch_for_anchors
from tests.support.world import NOW

OLD, NEW, NEWEST = "11" * 32, "22" * 32, "33" * 32
STRANGER = "it is signed with a key that is not in ENCRYPTION_KEY"
ELSEWHERE = "it does not follow the line before it"

pytestmark = pytest.mark.usefixtures("db")


@pytest.fixture
def path(tmp_path: Path, settings: Settings) -> Path:
    """The six lines, after the old key was removed."""
    path = tmp_path / "anchors.jsonl"
    settings.ENCRYPTION_KEY = OLD
    append(path, 3)
    settings.ENCRYPTION_KEY = f"{NEW},{OLD}"
    vouch_for_anchors(path, now=NOW)
    settings.ENCRYPTION_KEY = NEW
    append(path, 2)
    return path


def append(path: Path, count: int, now: datetime = NOW) -> None:
    for _ in range(count):
        append_anchor(path, now)


def find(path: Path) -> list[tuple[str, str]]:
    findings = Findings()
    read_promises(path, findings)
    return [told(finding) for finding in findings.items]


def told(finding: Finding) -> tuple[str, str]:
    return finding.subject, finding.message


def lines_of(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


def forge(path: Path, settings: Settings, *, after: int, count: int, key: str = OLD) -> list[bytes]:
    """Return lines that follow a line of the file and are signed with a key of the forger's."""
    aside = path.with_name("forged.jsonl")
    aside.write_bytes(b"".join(lines_of(path)[:after]))
    kept = settings.ENCRYPTION_KEY
    # The database's memory of the last line is not the forger's concern.
    noted = list(VerifiedHead.objects.all())
    VerifiedHead.objects.all().delete()
    settings.ENCRYPTION_KEY = key
    append(aside, count, NOW + timedelta(hours=1))
    settings.ENCRYPTION_KEY = kept
    VerifiedHead.objects.all().delete()
    VerifiedHead.objects.bulk_create(noted)
    return lines_of(aside)[after:]


def test_lines_of_a_removed_key_that_are_vouched_for_are_sound(path: Path) -> None:
    assert find(path) == []
    assert [anchor.vouched is not None for anchor in read_anchors(path)] == [
        False, False, False, True, False, False
    ]  # fmt: skip


def test_a_chain_alone_vouches_for_nothing(path: Path, settings: Settings) -> None:
    settings.ENCRYPTION_KEY = NEWEST
    append(path, 1)

    assert find(path) == [("anchors 1 to 3", STRANGER), ("anchors 4 to 6", STRANGER)]


def test_keys_can_be_changed_again_and_again(path: Path, settings: Settings) -> None:
    settings.ENCRYPTION_KEY = f"{NEWEST},{NEW}"
    vouch_for_anchors(path, now=NOW)
    settings.ENCRYPTION_KEY = NEWEST

    assert find(path) == []


@pytest.mark.parametrize("replaced", [1, 2, 3])
def test_a_replaced_line_of_the_old_key_is_found(
    path: Path, settings: Settings, replaced: int
) -> None:
    lines = lines_of(path)
    forged = forge(path, settings, after=replaced - 1, count=4 - replaced)
    path.write_bytes(b"".join([*lines[: replaced - 1], *forged, *lines[3:]]))

    assert find(path) == [("anchor 4", ELSEWHERE), ("anchors 1 to 3", STRANGER)]


def test_a_line_replaced_alone_is_not_covered_by_what_follows(
    path: Path, settings: Settings
) -> None:
    forged = forge(path, settings, after=0, count=1)
    path.write_bytes(b"".join([*forged, *lines_of(path)[1:]]))

    assert find(path) == [("anchor 2", ELSEWHERE), ("anchor 1", STRANGER)]


@pytest.mark.parametrize("after", [0, 1, 3, 4, 5])
@pytest.mark.parametrize("key", [OLD, NEWEST], ids=["old key", "made up key"])
def test_an_inserted_line_is_found(path: Path, settings: Settings, after: int, key: str) -> None:
    lines = lines_of(path)
    forged = forge(path, settings, after=after, count=1, key=key)
    path.write_bytes(b"".join([*lines[:after], *forged, *lines[after:]]))

    assert find(path) != []


@pytest.mark.parametrize("kept", [[1, 2, 3, 4, 5], [0, 2, 3, 4, 5], [3, 4, 5], [0, 1, 2]], ids=str)
def test_missing_lines_are_found(path: Path, kept: list[int]) -> None:
    lines = lines_of(path)
    path.write_bytes(b"".join(lines[number] for number in kept))

    assert find(path) != []


def test_a_line_put_at_the_end_is_found_however_many_follow(path: Path, settings: Settings) -> None:
    path.write_bytes(path.read_bytes() + forge(path, settings, after=6, count=1)[0])

    append(path, 2)

    assert find(path) == [("anchor 7", STRANGER)]


def test_what_is_not_sound_is_never_vouched_for(path: Path, settings: Settings) -> None:
    path.write_bytes(path.read_bytes() + forge(path, settings, after=6, count=1)[0])
    append(path, 1)
    settings.ENCRYPTION_KEY = f"{NEWEST},{NEW}"
    before = path.read_bytes()

    with pytest.raises(AnchorsUnsound, match="1 findings, the first: I-69 anchor 7"):
        vouch_for_anchors(path, now=NOW)

    assert path.read_bytes() == before
    settings.ENCRYPTION_KEY = NEWEST
    assert find(path) != []


def test_the_old_key_vouches_for_nobody_once_it_is_gone(path: Path, settings: Settings) -> None:
    aside = path.with_name("aside.jsonl")
    VerifiedHead.objects.all().delete()
    settings.ENCRYPTION_KEY = OLD
    append(aside, 2)
    last = [*read_anchors(aside)][-1]
    append_anchor(aside, NOW, vouched=(last.number, last.digest))
    settings.ENCRYPTION_KEY = NEW

    assert find(aside) == [("anchors 1 to 3", STRANGER)]


@pytest.mark.parametrize(
    "place", [(3, bytes(32)), (2, None), (7, None)], ids=["digest", "too few", "of the future"]
)
def test_a_vouch_covers_what_it_names_and_no_more(
    path: Path, settings: Settings, place: Place
) -> None:
    aside = path.with_name("aside.jsonl")
    VerifiedHead.objects.all().delete()
    settings.ENCRYPTION_KEY = OLD
    append(aside, 3)
    digests = {anchor.number: anchor.digest for anchor in read_anchors(aside)}
    settings.ENCRYPTION_KEY = NEW
    number, digest = place
    append_anchor(aside, NOW, vouched=(number, digest or digests.get(number, bytes(32))))

    assert find(aside) == [("anchor 3" if number == 2 else "anchors 1 to 3", STRANGER)]


def test_lines_of_the_first_format_are_still_believed(path: Path) -> None:
    recorded = (
        b'{"format":1,"number":1,"previous":"","at":"2026-11-21T12:00:00+00:00","key":"92642f1d",'
        b'"totals":{"accounts":0,"entries":0,"posted_nanos":0},"accounts":[],"incarnations":[],'
        b'"signature":"doIit01GtEF8OCat2ThZ3QFn1Ony6XXEFbJr+Gjw9+fujw9+iBPIwEXzjsnA6KRvn00Alw1+'
        b'RJ97XTkEP/1BDw=="}\n'
    )
    path.write_bytes(recorded)
    VerifiedHead.objects.all().delete()

    assert find(path) == []
