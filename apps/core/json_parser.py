"""Reads JSON bodies of the REST API; what two parsers could read differently is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import IO, Any

from rest_framework.exceptions import ParseError
from rest_framework.parsers import JSONParser


class StrictJSONParser(JSONParser):
    """Refuses names given twice, NaN, endless nesting and text that is no Unicode."""

    def parse(
        self,
        stream: IO[Any],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        """Return the parsed body. Raises ParseError. The server bounds the body's length."""
        try:
            # Never a codec of the client's choice: some take minutes for a megabyte.
            text = stream.read().decode("utf-8")
            found = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_once)
            # A lone surrogate passes as text until something has to be written or sent.
            json.dumps(found, ensure_ascii=False).encode()
        except RecursionError:
            raise ParseError("JSON parse error: nested too deeply.") from None
        except ValueError as error:
            raise ParseError(f"JSON parse error: {str(error)[:200]}") from error
        return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is given twice.")
    return found


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON.")
