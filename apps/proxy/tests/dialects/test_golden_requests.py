"""Requests from one dialect into another, cell by cell of the compatibility matrix."""

from typing import Any

import orjson
import pytest

from apps.core.errors import GatewayError
from apps.proxy.dialects.conversion import DIALECTS
from apps.proxy.dialects.neutral import EXTENSIONS, Target
from apps.proxy.tests.dialects.golden_cells import OUTPUT_CAP, SENT, Cell, golden_cells
from apps.proxy.tests.dialects.strangers import with_a_stranger
from tests.support.cases import for_all


def convert(cell: Cell, body: dict[str, Any]) -> dict[str, Any]:
    request = DIALECTS[cell.client].read_request(body)
    written = DIALECTS[cell.provider].write_request(request, cell.target)
    loaded: dict[str, Any] = orjson.loads(orjson.dumps(written))
    return loaded


@for_all("cell", golden_cells("request", "exact", "adapted"))
def test_a_request_is_written_as_the_golden_file_says(cell: Cell) -> None:
    assert convert(cell, cell.request) == {**SENT[cell.provider], **cell.written}


@for_all("cell", golden_cells("request", "refused"))
def test_what_cannot_be_said_is_refused_by_the_clients_name_for_it(cell: Cell) -> None:
    with pytest.raises(GatewayError) as refusal:
        convert(cell, cell.request)

    assert (refusal.value.row, refusal.value.param) == ("E14", cell.param)


@for_all("cell", golden_cells("request", "exact"))
def test_what_is_exact_comes_back_as_it_was_said(cell: Cell) -> None:
    client, provider = DIALECTS[cell.client], DIALECTS[cell.provider]
    itself = Target(
        model="sent",
        output_cap=OUTPUT_CAP,
        reasoning=cell.target.reasoning,
        extensions=frozenset(EXTENSIONS) - {"media_results"},
    )

    back = provider.read_request({**SENT[cell.provider], **cell.written})

    asked = client.read_request(cell.request)
    assert client.write_request(back, itself) == client.write_request(asked, itself)


@for_all("cell", golden_cells("request", "exact", "adapted"))
def test_a_member_that_nobody_knows_is_refused_wherever_it_stands(cell: Cell) -> None:
    for place, body in with_a_stranger(cell.request):
        with pytest.raises(GatewayError) as refusal:
            convert(cell, body)

        assert (refusal.value.row, refusal.value.param) == ("E14", place)
