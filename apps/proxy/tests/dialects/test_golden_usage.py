"""What vendors document that they report, row by row: golden_usage.json.

A row states the classes, the counts and the charge that its object must become. The charge was
worked out by hand and is written as a sum, which is checked here without any of our own code.
"""

import json
import re
from pathlib import Path
from typing import Any, Final

import orjson

from apps.billing.pricing import MULTIPLIER_ONE, TOKENS_PER_PRICE, Price, charge_nanos
from apps.core.usage import COUNTS, TOKEN_CLASSES, Usage
from apps.proxy.dialects.anthropic_usage import merge_usage
from apps.proxy.dialects.openai_answer import read_list_answer
from apps.proxy.dialects.openai_usage import parse_usage
from tests.support.cases import for_all

GOLDEN: Final[dict[str, Any]] = json.loads(
    (Path(__file__).parent / "golden_usage.json").read_text()
)
ROWS: Final[dict[str, dict[str, Any]]] = {
    f"{row['vendor']}: {row['name']}": row for row in GOLDEN["rows"]
}
ESTIMATED_INPUT_TOKENS: Final = 1000

# Bugs of other gateways in the counting of tokens, each of which a row would catch.
FIELD_BUGS: Final = (
    "litellm#9812",
    "litellm#11364",
    "litellm#11789",
    "litellm#5443",
    "litellm#14849",
    "#40006",
    "litellm#17410",
    "litellm#14285",
    "PR#38457",
    "PR#39850",
    "litellm#24339",
    "langfuse#16508",
    "langfuse#13811",
    "langfuse#8482",
    "PR#39861",
    "PR#38341",
    "PR#39294",
    "gh-aw-firewall#4760",
    "quill-router#55",
)


def read(row: dict[str, Any]) -> Usage | None:
    given = row["given"]
    match row["read_as"]:
        case "usage":
            return parse_usage(given)
        case "events of Anthropic":
            merged: dict[str, Any] = {}
            for event in given:
                merged = merge_usage(merged, event)
            return parse_usage(merged)
        case "answer to embeddings":
            answer = read_list_answer("embeddings", orjson.dumps(given))
        case _:
            answer = read_list_answer("rerank", orjson.dumps(given))
    return answer.final_usage(estimated_input_tokens=ESTIMATED_INPUT_TOKENS)


def price(row: dict[str, Any]) -> Price:
    nanos = GOLDEN["prices"][row["price"]]
    return Price(id=1, **{name: nanos[name] * TOKENS_PER_PRICE for name in TOKEN_CLASSES})


@for_all("name", ROWS)
def test_a_documented_usage_becomes_classes_counts_and_a_charge(name: str) -> None:
    row = ROWS[name]

    usage = read(row)

    assert usage is not None
    assert {each: getattr(usage, each) for each in TOKEN_CLASSES if getattr(usage, each)} == {
        each: count for each, count in row["classes"].items() if count
    }
    assert {each: getattr(usage, each) for each in COUNTS if getattr(usage, each)} == row.get(
        "counts", {}
    )
    assert usage.is_suspect == row.get("is_suspect", False)
    if not usage.is_suspect and "total" in row:
        assert usage.total_tokens == row["total"]
    assert charge_nanos(usage, price(row), MULTIPLIER_ONE) == row["charge_nanos"]


@for_all("name", ROWS)
def test_the_sum_of_a_row_is_its_charge(name: str) -> None:
    row = ROWS[name]
    terms = re.findall(r"(\d+) × (\d+)(?: \+ |$)", row["sum"])

    assert " + ".join(f"{count} × {nanos}" for count, nanos in terms) == row["sum"]
    assert sum(int(count) * int(nanos) for count, nanos in terms) == row["charge_nanos"]
    assert [int(count) for count, _ in terms] == (list(row["classes"].values()) or [0])


def test_the_table_covers_what_it_should() -> None:
    caught = " ".join(row.get("catches", "") for row in ROWS.values())

    assert len(ROWS) == len(GOLDEN["rows"]) >= 70
    assert [bug for bug in FIELD_BUGS if bug not in caught] == []
    assert all(row["source"].startswith(("https://", "docs/")) for row in ROWS.values())
