"""What names answers that a provider keeps."""

from __future__ import annotations

from typing import Any

import pytest

from apps.core.errors import GatewayError
from apps.proxy.dialects.responses_stored import (
    ITEMS_MAX,
    NAMED_MAX,
    Named,
    is_kept,
    kept_ids,
    list_named,
)
from tests.support.cases import for_all


@for_all(
    ("item", "is_named"),
    [
        ({"type": "item_reference", "id": "x"}, True),
        ({"id": "x"}, True),
        ({"type": None, "id": "x"}, True),
        ({"type": "image_generation_call", "id": "x", "result": "…"}, True),
        ({"type": "reasoning", "id": "x", "summary": []}, True),
        ({"type": "reasoning", "id": "x", "encrypted_content": None}, True),
        ({"type": "reasoning", "id": "x", "encrypted_content": "gAAA"}, False),
        ({"type": "reasoning", "summary": []}, False),
        ({"type": "reasoning", "id": "rs_68af4030", "summary": []}, True),
        ({"type": "reasoning", "id": "rs_msg_01_0", "summary": []}, False),
        ({"type": "message", "id": "x", "role": "assistant", "content": []}, False),
        ({"role": "assistant", "id": "x", "content": "Hello"}, False),
        ({"type": "function_call", "id": "x", "call_id": "y", "name": "f"}, False),
        ({"type": "web_search_call", "id": "x", "status": "completed"}, False),
    ],
)
def test_an_item_is_named_where_the_provider_looks_it_up(
    item: dict[str, Any], is_named: bool
) -> None:
    hello = {"role": "user", "content": "Hello"}

    found = list_named({"input": [hello, item]})

    assert found == ([Named(item["id"], "input[1].id")] if is_named else [])


def test_the_earlier_answer_comes_first() -> None:
    body = {"previous_response_id": "resp_1", "input": [{"type": "item_reference", "id": "m"}]}

    assert list_named(body) == [Named("resp_1", "previous_response_id"), Named("m", "input[0].id")]


@pytest.mark.parametrize(
    ("key", "item"),
    [
        ("Type", {"role": "user", "content": "Hi", "Type": "item_reference", "id": "x"}),
        ("ID", {"type": "item_reference", "ID": "x"}),
    ],
)
def test_another_spelling_that_a_provider_may_understand_is_refused(
    key: str, item: dict[str, Any]
) -> None:
    with pytest.raises(GatewayError) as refusal:
        list_named({"input": [item]})

    assert (refusal.value.row, refusal.value.param) == ("E14", f"input[0].{key}")


@pytest.mark.parametrize("key", ["Previous_Response_Id", "previousResponseId", "Conversation"])
def test_so_is_one_beside_the_input(key: str) -> None:
    with pytest.raises(GatewayError) as refusal:
        list_named({"input": "Hello", key: "resp_1"})

    assert (refusal.value.row, refusal.value.param) == ("E14", key)


@pytest.mark.parametrize(
    "body",
    [{}, {"input": "Hello"}, {"previous_response_id": None}, {"conversation": None}],
)
def test_the_usual_request_names_nothing(body: dict[str, Any]) -> None:
    assert list_named(body) == []


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"previous_response_id": 1}, "previous_response_id"),
        ({"previous_response_id": ["resp_1"]}, "previous_response_id"),
        ({"input": [{"type": "item_reference", "id": "m"}] * (NAMED_MAX + 1)}, "input"),
    ],
)
def test_what_cannot_be_looked_up_is_refused(body: dict[str, Any], param: str) -> None:
    with pytest.raises(GatewayError) as refusal:
        list_named(body)

    assert (refusal.value.row, refusal.value.param) == ("E13", param)


@pytest.mark.parametrize(
    ("store", "expected"), [(None, True), (True, True), (False, False), (0, True)]
)
def test_an_answer_is_kept_unless_the_client_says_otherwise(store: object, expected: bool) -> None:
    assert is_kept({"store": store}) is expected
    assert is_kept({})


@pytest.mark.parametrize(
    ("response", "ids"),
    [
        (
            {"id": "resp_1", "output": [{"id": "rs_1"}, {"type": "x"}, {"id": 5}]},
            ("resp_1", "rs_1"),
        ),
        ({"id": "resp_1"}, ("resp_1",)),
        ({"id": "resp_1", "output": "none"}, ("resp_1",)),
        ({"output": [{"id": "rs_1"}]}, ()),
        ({"id": "", "output": []}, ()),
        ({"id": "x" * 257}, ()),
    ],
)
def test_what_an_answer_is_named_by(response: dict[str, Any], ids: tuple[str, ...]) -> None:
    assert kept_ids(response) == ids


def test_the_items_of_an_answer_are_bounded() -> None:
    output = [{"id": f"m{number}"} for number in range(1_000)]

    assert len(kept_ids({"id": "resp_1", "output": output})) == 1 + ITEMS_MAX == 257
