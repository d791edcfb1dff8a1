"""Texts of the administration in the language of who reads them: English in code, Chinese by list.

The list is `chinese.json`, English to Chinese. A text that is not in it stays English; a test opens
every page and finds what is missing. What we say over REST and the client API stays English:
programs go by codes.
"""

from __future__ import annotations

import json
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
    return texts.get(english) or texts.get(english[:1].lower() + english[1:]) or english


# The same, looked up anew whenever it is shown: for what is written at import.
translate_lazily = cast("Callable[[str], str]", lazy(translate, str))
