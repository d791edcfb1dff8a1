"""What is kept of bodies."""

from __future__ import annotations

import json

import pytest

from apps.audit.payloads import open_body, seal_payload

KEY = "0123456789abcdefghijkl"


def kept(body: str) -> str:
    """Return a request's body as it is stored."""
    sealed = seal_payload(body.encode(), b"", is_response_truncated=False, keeps_bodies=True)
    return open_body(sealed.request_body).decode()


@pytest.mark.parametrize("before", ["my keys:\n", "a\tb\r\n", "\x0b", " ", "", "key="])
@pytest.mark.parametrize("key", [f"sk-{KEY}", f"pk-{KEY}", f"rk_{KEY}", f"AIza{KEY}"])
def test_a_credential_is_not_kept_wherever_its_line_begins(before: str, key: str) -> None:
    for is_ascii in (True, False):
        body = json.dumps({"content": f"{before}{key}\n{key}"}, ensure_ascii=is_ascii)

        assert kept(body) == body.replace(key, "[redacted]")


@pytest.mark.parametrize("word", ["Bearer", "bearer", "BEARER", "BeArEr"])
def test_what_bears_a_credential_is_not_kept_however_it_is_written(word: str) -> None:
    assert kept(f"{word} abc.def-0123456789") == "[redacted]"


@pytest.mark.parametrize("body", ["the task-force sleeps", "risk-based", "a sk-short one", "bear"])
def test_other_words_stay(body: str) -> None:
    assert kept(body) == body
