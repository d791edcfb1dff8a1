import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.core.money import (
    NANOS_PER_USD,
    USD_MAX,
    InvalidAmount,
    format_multiplier,
    format_usd,
    parse_usd,
    show_usd,
)
from tests.support.cases import for_all


@pytest.mark.parametrize(
    ("nanos", "shown"), [(0, "$0"), (1, "$0.000000001"), (-50_000_000, "-$0.05"), (10**9, "$1")]
)
def test_an_amount_is_shown_with_its_sign_before_the_dollars(nanos: int, shown: str) -> None:
    assert show_usd(nanos) == shown


@pytest.mark.parametrize(
    ("text", "nanos"),
    [
        ("0", 0),
        ("-0", 0),
        ("9.99", 9_990_000_000),
        ("0.000000001", 1),
        ("-0.000000001", -1),
        ("+2.50", 2_500_000_000),
        ("1e3", 1_000_000_000_000),
        ("1E-9", 1),
        ("007", 7_000_000_000),
        (10, 10_000_000_000),
        ("9000000", 9_000_000_000_000_000),
        ("-9000000", -9_000_000_000_000_000),
    ],
)
def test_an_amount_in_dollars_becomes_exact_nanos(text: str | int, nanos: int) -> None:
    assert parse_usd(text) == nanos


@for_all(
    "text",
    [
        "",
        " 1",
        "1 ",
        "1\n",
        "1,5",
        "1_000",
        ".5",
        "5.",
        "NaN",
        "Infinity",
        "-inf",
        "1e308",
        "1e999999999",
        "1e7",
        "1e-10",
        "0.0000000001",
        "1.0000000000",
        "9000000.000000001",
        "9000001",
        "0" * 41,
        "\u0661",
        "\uff11",
        "0x10",
        "$1",
        9_000_001,
        -9_000_001,
        10**400,
    ],
)
def test_what_the_ledger_cannot_hold_exactly_is_refused(text: str | int) -> None:
    with pytest.raises(InvalidAmount):
        parse_usd(text)


@pytest.mark.parametrize("value", [1.5, True, None, b"1", float("nan")])
def test_what_is_neither_text_nor_an_integer_is_refused(value: object) -> None:
    with pytest.raises(InvalidAmount):
        parse_usd(value)  # type: ignore[arg-type]  # the JSON edge can hand over anything


@pytest.mark.parametrize(
    ("nanos", "text"),
    [
        (0, "0"),
        (9_990_000_000, "9.99"),
        (-1, "-0.000000001"),
        (10_000_000_000, "10"),
        (-2_500_000_000, "-2.5"),
        (100_000_000_000, "100"),
        (1_234_567_891, "1.234567891"),
    ],
)
def test_nanos_are_written_as_the_shortest_exact_decimal(nanos: int, text: str) -> None:
    assert format_usd(nanos) == text


@given(st.integers(-USD_MAX * NANOS_PER_USD, USD_MAX * NANOS_PER_USD))
def test_writing_and_reading_an_amount_changes_nothing(nanos: int) -> None:
    assert parse_usd(format_usd(nanos)) == nanos


@pytest.mark.parametrize(
    ("millionths", "text"), [(1_000_000, "1"), (500_000, "0.5"), (1, "0.000001"), (0, "0")]
)
def test_multipliers_are_shown_exactly(millionths: int, text: str) -> None:
    assert format_multiplier(millionths) == text
