from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from apps.proxy.dialects.text_samples import CHARACTERS_MAX, TextSamples

BLOCK = 512


def test_a_text_up_to_the_bound_is_kept_whole_however_it_comes() -> None:
    text = "".join(f"{number} " for number in range(40_000))[:CHARACTERS_MAX]
    for size in (1_000, BLOCK, 5_000, len(text)):
        samples = TextSamples()
        for start in range(0, len(text), size):
            samples.take(b"content", text[start : start + size])

        assert samples.text(b"content") == text
    assert samples.text(b"refusal") == ""


def test_a_long_text_is_kept_in_blocks_from_all_over_it() -> None:
    samples = TextSamples()
    for number in range(4_000):
        samples.take(b"content", f"{number:04}" * (BLOCK // 4))

    kept = samples.text(b"content")
    numbers = [int(kept[start : start + 4]) for start in range(0, len(kept), BLOCK)]

    # One of each eight that follow one another, and not always the same of them.
    assert [number // 8 for number in numbers] == list(range(500))
    assert {number % 8 for number in numbers} == set(range(8))


def test_a_block_ends_where_a_word_does() -> None:
    samples = TextSamples()
    text = "".join(f" word{number}" for number in range(200_000))
    samples.take(b"content", text)

    kept = samples.text(b"content")

    assert CHARACTERS_MAX // 2 < len(kept) <= CHARACTERS_MAX
    assert set(kept.split(" ")) <= set(text.split(" "))


def test_a_short_text_stays_whole_beside_a_long_one() -> None:
    samples = TextSamples()
    samples.take(b"content", "a" * 10_000)
    for _ in range(90):
        samples.take(b"thinking", "b" * 10_000)
    samples.take(b"content", "a" * 10_000)

    assert samples.text(b"content") == "a" * 20_000
    assert CHARACTERS_MAX // 4 < len(samples.text(b"thinking")) <= CHARACTERS_MAX


@given(pieces=st.lists(st.tuples(st.sampled_from([b"a", b"b", b"c"]), st.integers(0, 400_000))))
def test_what_is_kept_never_exceeds_its_bound(pieces: list[tuple[bytes, int]]) -> None:
    samples = TextSamples()
    for key, size in pieces:
        samples.take(key, "x" * size)

    # With the block of each text that is not full yet.
    assert sum(len(samples.text(key)) for key in (b"a", b"b", b"c")) <= CHARACTERS_MAX + 3 * BLOCK
