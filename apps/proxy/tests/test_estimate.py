import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.proxy.estimate import estimate_quarters, estimate_tokens


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 0),
        ("a", 1),
        ("four", 1),
        ("fives", 2),
        ("The quick brown fox jumps over the lazy dog.", 11),
        ("你好世界", 4),
        ("Привет", 3),
        ("🙂", 2),
        ("a é 日 🙂", 5),
        ("\ud800", 1),
    ],
)
def test_a_text_is_estimated_by_its_alphabets(text: str, tokens: int) -> None:
    assert estimate_tokens(text) == tokens


def test_bytes_are_read_as_utf_8_and_broken_ones_do_not_raise() -> None:
    assert estimate_tokens("你好".encode()) == 2
    assert estimate_tokens(b"\xff\xfe") == 2


@given(st.text(), st.text())
def test_the_pieces_of_a_text_sum_to_the_whole(first: str, second: str) -> None:
    assert estimate_quarters(first) + estimate_quarters(second) == estimate_quarters(first + second)


@given(st.text())
def test_an_estimate_never_exceeds_the_bytes_of_the_text(text: str) -> None:
    assert estimate_tokens(text) <= len(text.encode())
