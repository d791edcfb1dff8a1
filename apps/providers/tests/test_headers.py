"""Headers of requests to providers: no secrets, and nothing that HTTP acts on."""

from __future__ import annotations

from typing import Any

import pytest

from apps.providers.headers import HeadersRefused, check_headers
from tests.support.cases import for_all


def test_names_are_folded_and_values_stay() -> None:
    value = {"X-Team": "a; b", "User-Agent": "x/1", "anthropic-beta": "~"}

    assert check_headers(value) == {"x-team": "a; b", "user-agent": "x/1", "anthropic-beta": "~"}


@for_all(
    "name",
    [
        "Authorization", "host", "content-length", "content-type", "transfer-encoding",
        "connection", "keep-alive", "te", "trailer", "upgrade", "expect", "proxy-authorization",
        "accept-encoding", "cookie", "x-api-key", "X-Goog-Api-Key", "x-auth-token", "x-secret",
        "x-session-id", "x-forwarded-for", "x-real-ip", "x-request-id", "x-http-method-override",
        "x-original-url", "x a", "x-a:", "x-a\r\nhost", "x-ä", "", "x-" + "a" * 63, "forwarded",
    ],
)  # fmt: skip
def test_names_that_must_not_be_set_are_refused(name: str) -> None:
    with pytest.raises(HeadersRefused):
        check_headers({name: "value"})


@pytest.mark.parametrize("text", ["", " a", "a ", "a\r\nb: c", "a\tb", "ä", "a" * 501, 1, None])
def test_values_that_do_not_fit_a_line_are_refused(text: Any) -> None:
    with pytest.raises(HeadersRefused):
        check_headers({"x-team": text})


@pytest.mark.parametrize(
    "value", [[], "x", None, {"x-a": "1", "X-A": "2"}, {f"x-{n}": "1" for n in range(21)}, {1: "x"}]
)
def test_what_is_no_set_of_headers_is_refused(value: Any) -> None:
    with pytest.raises(HeadersRefused):
        check_headers(value)
