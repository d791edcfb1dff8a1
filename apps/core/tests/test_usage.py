import pytest

from apps.core.usage import COUNTS, INPUT_CLASSES, OUTPUT_CLASSES, TOKEN_CLASSES, Usage

USAGE = Usage(
    input=1,
    cache_read=10,
    cache_write_5m=100,
    cache_write_1h=1_000,
    output=2,
    reasoning=20,
    audio_in=10_000,
    audio_out=200,
    image_in=100_000,
    image_out=2_000,
    source="reported",
)


def test_every_class_is_counted_once_in_one_direction() -> None:
    assert USAGE.input_tokens == 111_111
    assert USAGE.output_tokens == 2_222
    assert USAGE.total_tokens == 113_333


def test_the_directions_together_are_all_classes() -> None:
    assert sorted(INPUT_CLASSES + OUTPUT_CLASSES) == sorted(TOKEN_CLASSES)


def test_the_classes_are_the_fields() -> None:
    assert Usage._fields == (*TOKEN_CLASSES, "source", "is_suspect", *COUNTS)


def test_a_usage_survives_being_stored() -> None:
    assert Usage.from_dict(USAGE._asdict()) == USAGE


def test_absent_classes_are_zero() -> None:
    assert Usage.from_dict({"output": 3}) == Usage(output=3)


@pytest.mark.parametrize("count", [-1, True, 1.0, "1", None])
def test_a_stored_count_must_be_a_whole_number(count: object) -> None:
    with pytest.raises(ValueError, match="input must be a whole number"):
        Usage.from_dict({"input": count})


def test_an_unknown_source_is_refused() -> None:
    with pytest.raises(ValueError, match="source"):
        Usage.from_dict({"source": "guessed"})
