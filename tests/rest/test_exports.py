"""Tests that no export runs in a spreadsheet what somebody has named something (O2)."""

from __future__ import annotations

import csv
import io
from typing import Any, Final

import orjson
import pytest
from django.db import models
from hypothesis import example, given
from hypothesis import strategies as st

from apps.audit.export import csv_lines, write_csv
from apps.audit.models import APIRequest
from apps.audit.serializers import OwnRequestOutput, RequestOutput
from tests.rest.world import RestWorld, undone
from tests.support.calls import record_call

STARTS: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
EXPORTS: Final = {
    "/api/admin/requests/export/": ("analyst", RequestOutput),
    "/api/user/requests/export/": ("user", OwnRequestOutput),
}
ATTACKS: Final = [
    "=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(1)", "\t=1", "\r=1", "\n=1", '"=1', "＝1", "'=1",
    ',=1\r\n=2,"', "=HYPERLINK(\"http://evil.example\")",
]  # fmt: skip


def _cells(raw: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(raw.decode(), newline="")))


@given(st.text())
@example("\x00=1")
@example("\x00\x00-1")
@example("\r\n=1")
def test_no_text_begins_like_a_formula(text: str) -> None:
    (row,) = _cells(write_csv(["user_agent", "user_agent"], [[text, f"={text}"]]))

    clean = text.replace("\x00", "")
    assert row[0] in (clean, f"'{clean}")
    assert not row[0].startswith(STARTS)
    assert row[1] == f"'={clean}"


@given(st.integers(-(2**63), 2**63 - 1))
def test_numbers_stay_numbers(number: int) -> None:
    assert _cells(write_csv(["sequence"], [[number]])) == [[str(number)]]


@given(st.lists(st.text(st.characters(codec="utf-8")), min_size=1))
def test_a_row_stays_a_row(texts: list[str]) -> None:
    assert _cells(csv_lines([texts, texts])) == [texts, texts]


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("path", EXPORTS)
def test_every_text_of_every_export_is_harmless(world: RestWorld, path: str, attack: str) -> None:
    role, columns = EXPORTS[path]
    texts = {
        field.name: attack[: field.max_length]
        for field in APIRequest._meta.concrete_fields
        # Counts are JSON that the ledger writes: no text of anybody.
        if isinstance(field, models.CharField) and not field.choices and field.name != "counts"
    }
    user = world.users["user"]
    shown = {name: text for name, text in texts.items() if name in columns().fields}

    with undone():
        record_call(
            **{**texts, "user_id": user.pk, "customer_id": user.customer_id, "sequence": 77}
        )
        status, _, body = world.read(role, path)
        _, _, lines = world.read(role, f"{path}?format=jsonl")

    assert status == 200
    header, first, *_ = _cells(body)
    found: dict[str, Any] = dict(zip(header, first, strict=True))
    for row in _cells(body):
        assert [cell for cell in row if cell.startswith(STARTS)] == []
    expected = f"'{attack}" if attack.startswith(STARTS) else attack
    assert len(shown) >= 8
    for name in shown:
        assert found[name] == expected[: len(found[name])], name
        assert orjson.loads(lines.splitlines()[0])[name] == texts[name]
