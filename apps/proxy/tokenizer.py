"""OpenAI's tokenizer with the vocabularies that ship with the gateway, in a process of its own.

tiktoken by itself would fetch its vocabularies from the network and keep them in a directory that
others can write; here they are files beside this module, and their digests are checked. Building
one keeps the interpreter busy for a quarter of a second, in whichever thread: that is why it is
done in a process of its own (`counter.py` starts it), which ends with its standard input.

A request is a line of JSON, `{"number": 1, "encoding": "o200k_base", "groups": [["a"], ["b"]]}`; so
is the answer to it, `{"number": 1, "tokens": [1, 1]}`. Without Django and without the network.
"""

from __future__ import annotations

import base64
import hashlib
import json
import lzma
import signal
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import tiktoken

VOCABULARIES: Final = Path(__file__).with_name("vocabularies")

# Name, SHA-256 of the vocabulary (the one that tiktoken expects), how text is split before it.
_ENCODINGS: Final = {
    "cl100k_base": (
        "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+"
        r"| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s",
    ),
    "o200k_base": (
        "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
        r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
        r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
}
# The library's time and stack grow with the longest run of one kind of character; each cut adds a
# token at most.
_PIECE_CHARACTERS: Final = 1 << 16


class DamagedVocabulary(Exception):
    """A vocabulary is not the file that was shipped."""


def load_encoding(name: str, folder: Path = VOCABULARIES) -> tiktoken.Encoding:
    """Return an encoding. Raises DamagedVocabulary, and KeyError for an unknown name."""
    digest, pattern = _ENCODINGS[name]
    path = folder / f"{name}.tiktoken.xz"
    try:
        vocabulary = lzma.decompress(path.read_bytes())
    except (lzma.LZMAError, OSError) as error:
        raise DamagedVocabulary(path.name) from error
    if hashlib.sha256(vocabulary).hexdigest() != digest:
        raise DamagedVocabulary(path.name)
    lines = (line.split() for line in vocabulary.splitlines())
    return tiktoken.Encoding(
        name,
        pat_str=pattern,
        mergeable_ranks={base64.b64decode(token): int(rank) for token, rank in lines},
        # What a text says of them is text: a client must not be able to write a special token.
        special_tokens={},
    )


def count_tokens(encoding: tiktoken.Encoding, texts: Iterable[str]) -> int:
    """Return the number of tokens of texts that the model reads one by one."""
    return sum(len(encoding.encode_ordinary(piece)) for text in texts for piece in _pieces(text))


def _pieces(text: str) -> Iterator[str]:
    for start in range(0, len(text), _PIECE_CHARACTERS):
        yield text[start : start + _PIECE_CHARACTERS]


def serve() -> None:
    """Answer requests until the input ends. A line that is no request ends the process."""
    # Ctrl-C is for the gateway, which closes the input when it has settled its calls.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    encoding_of = cache(load_encoding)
    for line in sys.stdin.buffer:
        request: dict[str, Any] = json.loads(line)
        encoding = encoding_of(request["encoding"])
        tokens = [count_tokens(encoding, texts) for texts in request["groups"]]
        answer = {"number": request["number"], "tokens": tokens}
        sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    serve()
