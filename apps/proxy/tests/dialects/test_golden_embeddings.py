"""Embeddings from one dialect into another, cell by cell of the compatibility matrix."""

from typing import Any

import orjson
import pytest

from apps.core.errors import GatewayError
from apps.proxy.dialects.embedding_conversion import (
    EmbeddingConverter,
    read_embedding,
    write_embedding,
)
from apps.proxy.dialects.metered_answer import MeteredAnswer
from apps.proxy.dialects.neutral import Target
from apps.proxy.dialects.providers import PROVIDERS
from apps.proxy.tests.dialects.golden_cells import REPLY, Cell, golden_cells
from apps.proxy.tests.dialects.strangers import with_a_stranger
from tests.support.cases import for_all

ONE = {"content": {"parts": [{"text": "One."}]}}


def convert(cell: Cell, body: dict[str, Any]) -> dict[str, Any]:
    asked = read_embedding(cell.client, body)
    return write_embedding(cell.provider, asked, Target("sent"))


def read(provider: str, document: Any) -> MeteredAnswer:
    dialect = PROVIDERS[provider]
    return dialect.read_answer(dialect.endpoint_for("embeddings"), orjson.dumps(document))


def answer(cell: Cell) -> Any:
    converter = EmbeddingConverter(cell.provider, cell.client, cell.reply)
    return orjson.loads(converter.convert_metered(read(cell.provider, cell.given)))


@for_all("cell", golden_cells("embedding_request", "exact", "adapted"))
def test_a_request_is_written_as_the_golden_file_says(cell: Cell) -> None:
    assert convert(cell, cell.given) == cell.written


@for_all("cell", golden_cells("embedding_request", "refused"))
def test_what_cannot_be_said_is_refused_by_the_clients_name_for_it(cell: Cell) -> None:
    with pytest.raises(GatewayError) as refusal:
        convert(cell, cell.given)

    assert (refusal.value.row, refusal.value.param) == ("E14", cell.param)


@for_all("cell", golden_cells("embedding_request", "exact"))
def test_what_is_exact_comes_back_as_it_was_said(cell: Cell) -> None:
    back = read_embedding(cell.provider, {**cell.written, "model": "asked"})
    asked = read_embedding(cell.client, cell.given)

    assert (back.texts, back.dimensions) == (asked.texts, asked.dimensions)


@for_all("cell", golden_cells("embedding_request", "exact", "adapted"))
def test_a_member_that_nobody_knows_is_refused_wherever_it_stands(cell: Cell) -> None:
    for place, body in with_a_stranger(cell.given):
        with pytest.raises(GatewayError) as refusal:
            convert(cell, body)

        assert (refusal.value.row, refusal.value.param) == ("E14", place)


@for_all("cell", golden_cells("embedding_answer"))
def test_an_answer_is_written_as_the_golden_file_says(cell: Cell) -> None:
    assert answer(cell) == cell.written


def answered(provider: str, client: str, document: Any, asked: dict[str, Any]) -> Any:
    converter = EmbeddingConverter(provider, client, REPLY._replace(asked=asked))
    return converter.convert_metered(read(provider, document))


@pytest.mark.parametrize(
    "items",
    [
        [],
        [{"index": 0, "embedding": [0.1]}] * 2,
        [{"index": 1, "embedding": [0.1]}],
        [{"index": True, "embedding": [0.1]}],
        [{"index": [], "embedding": [0.1]}],
        [{"embedding": "?"}],
        [{"embedding": "AAAAPwA="}],
        [{"embedding": ["0.1"]}],
        [{"embedding": [0.1]}, {"embedding": [0.1]}],
    ],
)
def test_not_one_vector_for_each_text_is_the_providers_fault(items: list[Any]) -> None:
    with pytest.raises(GatewayError) as refusal:
        answered("openai", "gemini", {"data": items}, {"model": "m", **ONE})

    assert refusal.value.row == "E49"


def test_a_number_that_takes_more_than_four_bytes_is_the_providers_fault() -> None:
    asked = {"model": "m", "input": "One.", "encoding_format": "base64"}

    with pytest.raises(GatewayError) as refusal:
        answered("gemini", "openai", {"embeddings": [{"values": [1e300]}]}, asked)

    assert refusal.value.row == "E49"


@pytest.mark.parametrize(
    ("body", "row", "param"),
    [
        ({"input": "a", "encoding_format": "int8"}, "E13", "encoding_format"),
        ({"input": "a", "dimensions": "many"}, "E13", "dimensions"),
        ({"input": []}, "E13", "input"),
    ],
)
def test_what_is_no_request_for_vectors_is_refused(
    body: dict[str, Any], row: str, param: str
) -> None:
    with pytest.raises(GatewayError) as refusal:
        read_embedding("openai", {"model": "m", **body})

    assert (refusal.value.row, refusal.value.param) == (row, param)


def test_dialects_without_vectors_answer_no_such_call() -> None:
    asked = read_embedding("openai", {"model": "m", "input": "a"})

    with pytest.raises(GatewayError) as refusal:
        write_embedding("anthropic", asked, Target("sent"))

    assert (refusal.value.row, refusal.value.param) == ("E14", "model")
