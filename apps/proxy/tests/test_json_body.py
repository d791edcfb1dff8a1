import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.core.errors import GatewayError
from apps.proxy.json_body import parse_object, serialise


def refusal(body: bytes) -> tuple[str, int, str, str | None]:
    with pytest.raises(GatewayError) as caught:
        parse_object(body)
    error = caught.value
    return error.row, error.status, error.code, error.param


def nested(depth: int) -> bytes:
    """Return an object whose member `a` makes it `depth` levels deep."""
    return b'{"model":"m","a":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", None),
        (b"{", None),
        (b"{}x", None),
        (b"{} {}", None),
        (b"[]", None),
        (b"null", None),
        (b'"text"', None),
        (b"1", None),
        (b"NaN", None),
        (b"<html>", None),
        (b"{'a':1}", None),
        (b'{"a":1,}', None),
        (b'{"a":[1,]}', None),
        (b'{"a":1} // comment', None),
        (b'{/* comment */"a":1}', None),
        (b'{"a":01}', None),
        (b'{"a":+1}', None),
        (b'{"a":.5}', None),
        (b'{"a":"line\nbreak"}', None),
        (b'{"a":"\x00"}', None),
        (b'{"a":"\\x41"}', None),
        (b'{"a":"\\ud8"}', None),
        (b'\xef\xbb\xbf{"a":1}', None),
        ('{"a":1}'.encode("utf-16"), None),
        ('{"a":1}'.encode("utf-16-le"), None),
        ('{"a":1}'.encode("utf-32"), None),
        (b'{"model":"m","a":"\xff"}', "a"),
        (b'{"a":{"b":"\xed\xa0\x80"}}', "a"),
        (b'{"a":"\xc0\x80"}', "a"),
        (b'{"temperature":NaN}', "temperature"),
        (b'{"a":1,"b":{"c":[Infinity]}}', "b"),
        (b'{"b":-Infinity}', "b"),
        (b'{"temperature":1e999}', "temperature"),
        (b'{"a":[1,2,-1e999]}', "a"),
        (b'{"seed":18446744073709551616}', "seed"),
        (b'{"seed":-9223372036854775809}', "seed"),
        (b'{"x":1,"seed":[{"y":' + b"9" * 5_000 + b"}]}", "seed"),
        (b'{"a":"\\u0000"}', "a"),
        (b'{"x":1,"messages":[{"content":"a\\u0000b"}]}', "messages"),
        (b'{"a":"\\ud800"}', "a"),
        (b'{"messages":[{"content":"\\uDFFF"}]}', "messages"),
        (b'{"a":{"\\ud800":1}}', "a"),
        (b'{"a":"\\ude00\\ud83d"}', "a"),
        (nested(65), "a"),
        (nested(500), "a"),
        (nested(100_000), "a"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "a"),
        (b'{"x":1,"a":' + b"[" * 100_000, "a"),
        (b"[" * 100_000, None),
        (b'{"a":[' + b"1," * 1_000_000 + b"1]}", None),
        (b'{"a":[' + b"[]," * 600_000 + b"[]]}", None),
        (b'{"a":[' + b"{}," * 250_000 + b"{}]}", None),
        (b'{"a":[' + b'{"b":1},' * 125_000 + b"{}]}", None),
        (b'{"a":[' + b'{"b":1,"c":"{"},' * 84_000 + b"{}]}", None),
    ],
    ids=lambda value: value[:30].decode("latin-1") if isinstance(value, bytes) else value,
)
def test_what_is_not_one_unambiguous_object_is_refused(body: bytes, param: str | None) -> None:
    assert refusal(body) == ("E11", 400, "invalid_json", param)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b'{"model":"cheap","model":"dear"}', "model"),
        (b'{"a":1,"b":2,"a":1}', "a"),
        (b'{"a":{"b":1,"b":2}}', "b"),
        (b'{"a":[{"c":1,"c":2}]}', "c"),
        (b'{"a":1,"\\u0061":2}', "a"),
        (b'{"model":"cheap","Model":"dear"}', "Model"),
        (b'{"MODEL":"cheap","model":"dear"}', "model"),
        ('{"stop":1,"ſtop":2}'.encode(), "ſtop"),
        ('{"k":1,"\u212a":2}'.encode(), "\u212a"),
    ],
)
def test_a_parameter_named_twice_is_refused(body: bytes, param: str) -> None:
    assert refusal(body) == ("E12", 400, "duplicate_parameter", param)


def test_keys_further_down_may_differ_in_case_only() -> None:
    body = b'{"metadata":{"a":1,"A":2}}'

    assert parse_object(body) == {"metadata": {"a": 1, "A": 2}}


@pytest.mark.parametrize(
    ("body", "parsed"),
    [
        (b"{}", {}),
        (b' \r\n\t{"a" : 1} \n', {"a": 1}),
        (b'{"a":18446744073709551615}', {"a": 2**64 - 1}),
        (b'{"a":-9223372036854775808}', {"a": -(2**63)}),
        (b'{"a":1e308}', {"a": 1e308}),
        (b'{"a":1e-999}', {"a": 0.0}),
        (b'{"a":"\\ud83d\\ude00"}', {"a": "😀"}),
        (b'{"a":"\\\\u0000 \\\\ud800"}', {"a": "\\u0000 \\ud800"}),
        (b'{"a":"NaN, [[[[ {{{{ Infinity"}', {"a": "NaN, [[[[ {{{{ Infinity"}),
        (b'{"a":[true,false,null]}', {"a": [True, False, None]}),
        (b'{"a":"' + b"[" * 100 + b'"}', {"a": "[" * 100}),
        (b'{"a":"' + b"," * 1_100_000 + b'"}', {"a": "," * 1_100_000}),
        (b'{"a":"' + b"{:" * 200_000 + b'"}', {"a": "{:" * 200_000}),
        (b'{"a":[' + b"1," * 999_990 + b"1]}", {"a": [1] * 999_991}),
    ],
    ids=lambda value: value[:30].decode("latin-1") if isinstance(value, bytes) else "parsed",
)
def test_valid_objects_are_read(body: bytes, parsed: dict[str, object]) -> None:
    assert parse_object(body) == parsed


def test_64_levels_are_read() -> None:
    parsed = parse_object(nested(64))

    assert serialise(parsed) == nested(64)


def test_many_flat_messages_are_not_deep() -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": "[{"}]}] * 500

    assert parse_object(json.dumps({"messages": messages}).encode()) == {"messages": messages}


def test_a_parsed_object_is_written_without_spaces_and_as_utf_8() -> None:
    parsed = parse_object(b'{ "a" : [ 1, 2.5 ], "b" : "\\u00fc" }')

    assert serialise(parsed) == '{"a":[1,2.5],"b":"ü"}'.encode()


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"])),
    lambda children: st.lists(children) | st.dictionaries(st.text("abc", min_size=1), children),
    max_leaves=20,
)


@given(st.dictionaries(st.text("abc", min_size=1), json_values), st.booleans())
def test_every_valid_object_survives(value: dict[str, object], ensure_ascii: bool) -> None:
    body = json.dumps(value, ensure_ascii=ensure_ascii).encode()

    assert parse_object(body) == value
    assert json.loads(serialise(value)) == value


@given(st.binary(max_size=60) | st.text('{}[]":,\\u0dDeE1-n ').map(str.encode))
def test_any_bytes_give_an_object_or_a_client_error(body: bytes) -> None:
    answer: object
    try:
        answer = parse_object(body)
    except GatewayError as error:
        answer = error.row

    assert isinstance(answer, dict) or answer in ("E11", "E12")


@pytest.mark.parametrize(
    "body",
    [b"," * 1_000_001 + b'"' + b'\\"' * 1_000_000, b'{"a":"' + b'\\"' * 400_000 + b"\xff"],
)
def test_a_string_that_never_ends_is_looked_at_once(body: bytes) -> None:
    begun = time.process_time()

    with pytest.raises(GatewayError) as raised:
        parse_object(body)

    # By the square of its length this took minutes.
    assert raised.value.row == "E11"
    assert time.process_time() - begun < 5
