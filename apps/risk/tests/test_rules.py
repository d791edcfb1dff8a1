"""Whom rules concern, which one ends a call, and that nothing is out of sight in long texts."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network
from typing import Any, Final

import pytest

from apps.risk.matchers import match_pattern, match_words
from apps.risk.rules import (
    REACH_BYTES,
    WINDOW_BYTES,
    Origin,
    Reach,
    Rule,
    ScanTooLong,
    Subject,
    Verdict,
    judge_origin,
    judge_texts,
    windows,
)
from tests.support.cases import for_all

SUBJECT: Final = Subject(
    user_id=1, user_group_id=2, api_key_id=3, model_id=4, model_group_ids=[5, 6]
)
ORIGIN: Final = Origin("192.0.2.7", b"OpenAI/Python 3.52.0", "chat/completions")


def _rule(number: int = 1, *, is_blocking: bool = True, **values: Any) -> Rule:
    return Rule(
        id=number,
        name=f"rule {number}",
        is_blocking=is_blocking,
        message="",
        reach=values.pop("reach", Reach()),
        **values,
    )


def _content(number: int, *words: str, is_blocking: bool = True) -> Rule:
    contents = (match_words(words, are_whole=False),)
    return _rule(number, is_blocking=is_blocking, contents=contents)


@for_all(
    ("values", "is_concerned"),
    [
        ({}, True),
        ({"reach": Reach(users=frozenset({1, 9}))}, True),
        ({"reach": Reach(users=frozenset({9}))}, False),
        ({"reach": Reach(user_groups=frozenset({2}))}, True),
        ({"reach": Reach(user_groups=frozenset({9}))}, False),
        ({"reach": Reach(api_keys=frozenset({3}))}, True),
        ({"reach": Reach(api_keys=frozenset({9}))}, False),
        ({"reach": Reach(models=frozenset({4}))}, True),
        ({"reach": Reach(models=frozenset({9}))}, False),
        ({"reach": Reach(model_groups=frozenset({6, 9}))}, True),
        ({"reach": Reach(model_groups=frozenset({9}))}, False),
        ({"reach": Reach(users=frozenset({1}), models=frozenset({9}))}, False),
        ({"networks": (ip_network("192.0.2.0/24"), ip_network("::/0"))}, True),
        ({"networks": (ip_network("198.51.100.0/24"),)}, False),
        ({"operations": frozenset({"chat/completions"})}, True),
        ({"operations": frozenset({"embeddings"})}, False),
        ({"user_agent": match_pattern("^openai/python")}, True),
        ({"user_agent": match_pattern("curl")}, False),
        ({"user_agent": match_pattern("openai"), "operations": frozenset({"rerank"})}, False),
    ],
)
def test_all_that_a_rule_names_has_to_fit(values: dict[str, Any], is_concerned: bool) -> None:
    rule = _rule(**values)

    verdict = judge_origin([rule], SUBJECT, ORIGIN)

    assert verdict.blocked_by is (rule if is_concerned else None)


def test_who_is_in_no_group_or_has_no_address_is_in_none_of_a_rule() -> None:
    rules = [
        _rule(reach=Reach(user_groups=frozenset({2}))),
        _rule(networks=(ip_network("0.0.0.0/0"), ip_network("::/0"))),
    ]

    verdict = judge_origin(rules, SUBJECT._replace(user_group_id=None), ORIGIN._replace(address=""))

    assert verdict == Verdict([], None)


def test_the_first_rule_that_blocks_ends_it() -> None:
    noting, blocking = _rule(1, is_blocking=False), _rule(2)

    verdict = judge_origin(
        [noting, blocking, _rule(3, is_blocking=False), _rule(4)], SUBJECT, ORIGIN
    )

    assert (verdict.noted, verdict.blocked_by) == ([noting], blocking)


def test_the_order_of_rules_decides_and_not_where_something_stands() -> None:
    first, second = _content(1, "late"), _content(2, "early")
    noted, after = _content(0, "late", is_blocking=False), _content(3, "early", is_blocking=False)
    far = "early " + "x" * (3 * WINDOW_BYTES) + " late"

    verdict = judge_texts([noted, first, second, after], [far])

    assert (verdict.noted, verdict.blocked_by) == ([noted], first)
    assert judge_texts([second, first, noted], [far]) == Verdict([], second)
    assert judge_texts([after, noted], [far]) == Verdict([after, noted], None)
    assert judge_texts([first], ["nothing"]) == Verdict([], None)
    assert judge_texts([first], []) == Verdict([], None)


def test_words_or_a_pattern_are_enough() -> None:
    both = (match_words(["bomb"], are_whole=False), match_pattern("gift"))
    rule = _rule(contents=both)

    found = [judge_texts([rule], [text]).blocked_by for text in ("BOMB", "Gift", "else")]

    assert found == [rule, rule, None]


@pytest.mark.parametrize("letters", ["x", "é", "字", "\U0001f600"])
def test_nothing_is_lost_where_one_window_ends(letters: str) -> None:
    rule = _content(1, "nerve gas")
    whole = _rule(2, contents=(match_words(["nerve gas"], are_whole=True),))
    size = len(letters.encode())
    ends = (WINDOW_BYTES - 60) // size

    for shift in range(120 // size + 1):
        text = letters * (ends + shift) + " nerve gas " + letters * (ends + shift)
        assert judge_texts([rule], [text]).blocked_by is rule, shift
        assert judge_texts([whole], [text]).blocked_by is whole, shift


def test_where_a_window_ends_no_word_ends_and_no_line() -> None:
    whole = _rule(1, contents=(match_words(["bomb"], are_whole=True),))
    line = _rule(2, contents=(match_pattern("bomb$|^bomb"),))

    for shift in range(60):
        text = "x" * (WINDOW_BYTES - 30 + shift) + " bombard xbomb bombs " + "x" * WINDOW_BYTES
        assert judge_texts([whole, line], [text]) == Verdict([], None), shift


def test_what_is_found_may_be_as_long_as_it_is_said() -> None:
    rule = _rule(contents=(match_pattern("begin[^é]*end"),))
    inside = "-" * (REACH_BYTES - len("beginend"))

    for shift in range(0, WINDOW_BYTES, 50_000):
        text = "x" * shift + "begin" + inside + "end" + "x" * WINDOW_BYTES
        assert judge_texts([rule], [text]).blocked_by is rule, shift


def test_windows_stay_small_whatever_comes() -> None:
    texts = ["y" * (5 * WINDOW_BYTES), *("z" * 10 for _ in range(1_000))]

    sizes = [len(window.text) for window in windows(texts)]

    assert len(sizes) == 5
    assert max(sizes) <= WINDOW_BYTES + (32 << 10)


class _Clock:
    """A second goes by at each look."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


def test_what_takes_too_long_is_not_let_through_where_something_blocks() -> None:
    long = ["x" * (10 * WINDOW_BYTES) + "bomb"]
    blocking, noting = _content(1, "bomb"), _content(2, "bomb", is_blocking=False)

    with pytest.raises(ScanTooLong):
        judge_texts([noting, blocking], long, until=5, clock=_Clock())

    # What would only have been noted keeps nothing from its answer.
    assert judge_texts([noting], long, until=5, clock=_Clock()) == Verdict([], None)
    assert judge_texts([noting], long, until=50, clock=_Clock()) == Verdict([noting], None)


def test_what_is_blocked_already_stays_blocked_when_the_time_is_up() -> None:
    first, second = _content(1, "never"), _content(2, "bomb")
    text = "bomb" + "x" * (10 * WINDOW_BYTES)

    verdict = judge_texts([first, second], [text], until=5, clock=_Clock())

    assert verdict == Verdict([], second)


def test_others_get_on_between_pieces() -> None:
    pauses: list[float] = []

    judge_texts([_content(1, "bomb")], ["x" * (1 << 20)], pause=pauses.append)

    assert len(pauses) == 16


def test_others_get_on_between_words() -> None:
    pauses: list[float] = []
    rule = _content(1, *(f"word{number}" for number in range(10)))

    judge_texts([rule], ["x" * (256 << 10)], pause=pauses.append)

    assert len(pauses) == 4 + 5  # while it is folded, and after every second word


def test_a_rule_tells_how_many_words_it_looks_for() -> None:
    rule = _content(1, "bomb", "gun", "BOMB")

    assert rule.words == 2
    assert replace(rule, contents=(*rule.contents, match_pattern("x+y"))).words is None
