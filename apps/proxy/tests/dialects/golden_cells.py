"""The cells of the compatibility matrix: golden/*.json, one file a feature.

A row is something that a client can ask for or be told, and has a cell for each pair
`client>provider` of dialects where it exists; `only` lists the dialects of providers that it is
about, where their models or servers alone differ in it. `given` is what comes in (a client's
request over the usual one, a provider's answer, or the events of its stream), `written` what has
to go out. A cell is `exact`, `adapted` (and says how), or `refused` with the client's name of the
parameter. An answer that depends on what was asked has that in `asked`.
docs/compatibility.md is made of the same files.
"""

import json
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from apps.proxy.dialects.conversion import Reply
from apps.proxy.dialects.neutral import Target

FOLDER: Final = Path(__file__).parent / "golden"
REPLY: Final = Reply(request_id="req_1", created=1_700_000_000)
OUTPUT_CAP: Final = 1000

_HI: Final = [{"role": "user", "content": "Hi"}]
_HI_PARTS: Final = [{"role": "user", "parts": [{"text": "Hi"}]}]
# What a client asks where a cell says nothing else, and how it is then sent.
ASKED: Final[dict[str, dict[str, Any]]] = {
    "openai": {"model": "asked", "messages": _HI},
    "anthropic": {"model": "asked", "max_tokens": OUTPUT_CAP, "messages": _HI},
    "openai-responses": {"model": "asked", "input": _HI},
    "gemini": {"model": "asked", "contents": _HI_PARTS},
}
SENT: Final[dict[str, dict[str, Any]]] = {
    "openai": {"model": "sent", "messages": _HI, "max_completion_tokens": OUTPUT_CAP},
    "anthropic": {"model": "sent", "messages": _HI, "max_tokens": OUTPUT_CAP},
    "openai-responses": {
        "model": "sent",
        "input": _HI,
        "max_output_tokens": OUTPUT_CAP,
        "store": False,
    },
    "gemini": {
        "model": "sent",
        "contents": _HI_PARTS,
        "generationConfig": {"maxOutputTokens": OUTPUT_CAP},
    },
}
# By these a client limits the answer itself.
_LIMITS: Final = ("max_tokens", "max_completion_tokens", "maxOutputTokens", "max_output_tokens")


class Cell(NamedTuple):
    """One cell of the matrix."""

    name: str
    client: str
    provider: str
    verdict: str
    given: Any
    written: Any
    param: str
    target: Target
    reply: Reply

    @property
    def request(self) -> dict[str, Any]:
        """Return the whole request of the client."""
        return {**ASKED[self.client], **self.given}


def golden_cells(kind: str, *verdicts: str) -> list[Any]:
    """Return the cells of a kind as parameters of a test: request, answer, stream,
    embedding_request or embedding_answer.
    """
    cells = []
    for path in sorted(FOLDER.glob("*.json")):
        feature = json.loads(path.read_text())
        if feature["kind"] != kind:
            continue
        for row in feature["rows"]:
            for pair, cell in row["cells"].items():
                if not verdicts or cell["verdict"] in verdicts:
                    name = f"{feature['feature']}: {row['name']}, {pair}"
                    cells.append(pytest.param(_cell(name, pair, cell), id=name))
    return cells


def stream(events: list[str], line_end: bytes = b"\n") -> bytes:
    """Return the events of a cell as they come over the wire."""
    raw = "".join(f"{event}\n\n" for event in events).encode()
    return raw.replace(b"\n", line_end)


def _cell(name: str, pair: str, cell: dict[str, Any]) -> Cell:
    client, _, provider = pair.partition(">")
    told = dict(cell.get("target", {}))
    told["extensions"] = frozenset(told.get("extensions", ()))
    given = str(cell["given"])
    has_limit = any(name in given for name in _LIMITS)
    if client != "anthropic" and not has_limit:
        # Anthropic's dialect needs a limit: the gateway's.
        told.setdefault("output_cap", OUTPUT_CAP)
    return Cell(
        name=name,
        client=client,
        provider=provider,
        verdict=cell["verdict"],
        given=cell["given"],
        written=cell.get("written"),
        param=cell.get("param", ""),
        target=Target(model="sent", **told),
        reply=REPLY._replace(asked=cell.get("asked", {})),
    )
