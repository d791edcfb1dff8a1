"""Texts of the administration in the language of who reads them: English in code, Chinese by list.

The list is `chinese.json`, English to Chinese. A text that is not in it stays English; a test opens
every page and finds what is missing. What we say over REST and the client API stays English:
programs go by codes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Final, cast

from django.utils.functional import lazy
from django.utils.translation import get_language

_CHINESE: Final = Path(__file__).with_name("chinese.json")


@lru_cache(maxsize=1)
def read_chinese() -> dict[str, str]:
    """Return the list: English to Chinese."""
    texts: dict[str, str] = json.loads(_CHINESE.read_text(encoding="utf-8"))
    return texts


def translate(english: str) -> str:
    """Return a text in the language that is active now; English where the list lacks it."""
    if not (get_language() or "").startswith("zh"):
        return english
    texts = read_chinese()
    # Labels are the names of columns with a capital letter.
    found = texts.get(english) or texts.get(english[:1].lower() + english[1:])
    return found or _translate_with_parts(english)


def _translate_with_parts(english: str) -> str:
    """Return a text that was made of one in the list and parts; English where there is none."""
    for pattern, chinese in _read_patterns():
        if found := pattern.fullmatch(english):
            return chinese.format(*found.groups())
    return english


@lru_cache(maxsize=1)
def _read_patterns() -> list[tuple[re.Pattern[str], str]]:
    """Return those texts of the list that have parts, which stand in the same order in both.

    The longest comes first: a shorter one may be found in what it is the beginning of.
    """
    return [
        (re.compile("(.*)".join(map(re.escape, english.split("{}"))), re.DOTALL), chinese)
        for english, chinese in sorted(read_chinese().items(), key=lambda item: -len(item[0]))
        if "{}" in english
    ]


# The same, looked up anew whenever it is shown: for what is written at import.
translate_lazily = cast("Callable[[str], str]", lazy(translate, str))
