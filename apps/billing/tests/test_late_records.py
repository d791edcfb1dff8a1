"""What late settlements tell of their calls, in 500 characters."""

from __future__ import annotations

from uuid import UUID

import pytest

from apps.audit.records import stored_usage
from apps.billing.late_records import read_reason, sentence_of, write_reason
from apps.core.usage import TOKEN_CLASSES, Usage

ID = UUID("0199c2a4-6f3e-7c1a-8d11-0a2b4c6d8e9f")
SENTENCE = f"settled after the hold of {ID} had been resolved"
ROW = {
    **{f"{name}_tokens": 0 for name in TOKEN_CLASSES},
    "counts": "",
    "usage_source": "reported",
    "is_usage_suspect": False,
    "service_tier": "",
    "price_version_id": 9,
    "cost_version_id": None,
    "cost_nanos": None,
    "user_agent": "of no matter here",
}


def test_what_is_told_is_read_again() -> None:
    row = ROW | {
        "input_tokens": 1_200,
        "reasoning_tokens": 7,
        "counts": '{"web_search":2}',
        "is_usage_suspect": True,
        "service_tier": "flex",
        "cost_version_id": 10,
        "cost_nanos": 0,
    }

    reason = write_reason(ID, row)

    assert reason == (
        f'{SENTENCE}: {{"input_tokens":1200,"reasoning_tokens":7,"counts":"{{\\"web_search\\":2}}",'
        '"usage_source":"reported","is_usage_suspect":true,"service_tier":"flex",'
        '"price_version_id":9,"cost_version_id":10,"cost_nanos":0}'
    )
    told = read_reason(reason)
    assert told == {name: row[name] for name in row if name != "user_agent"}
    usage = Usage(input=1_200, reasoning=7, web_search=2, source="reported", is_suspect=True)
    assert stored_usage(told) == usage


def test_what_is_too_long_is_not_told() -> None:
    longest = ROW | {"service_tier": "x" * 32, "cost_nanos": 10**18, "cost_version_id": 10**9}
    usual = longest | {
        f"{name}_tokens": 10_000_000 for name in ("input", "cache_read", "output", "reasoning")
    }
    everything = longest | {f"{name}_tokens": 10_000_000 for name in TOKEN_CLASSES}

    assert len(write_reason(ID, usual)) <= 500
    assert read_reason(write_reason(ID, usual)) is not None
    assert write_reason(ID, everything) == SENTENCE


@pytest.mark.parametrize("rest", ["", ": {", ': {"input_tokens":', ': {"charge_nanos":1}'])
def test_what_tells_nothing_is_a_sentence_all_the_same(rest: str) -> None:
    assert read_reason(SENTENCE + rest) is None
    assert sentence_of(SENTENCE + rest) == SENTENCE
