from __future__ import annotations

import lzma
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tiktoken

from apps.proxy.tokenizer import VOCABULARIES, DamagedVocabulary, count_tokens, load_encoding

# Counts without the network: an audit hook ends the process at the first use of a socket.
OFFLINE = """
import os, sys
sys.addaudithook(lambda event, _: os._exit(86) if event.startswith("socket.") else None)
if sys.argv[1:] == ["control"]:
    import socket
    socket.socket()
from apps.proxy.tokenizer import count_tokens, load_encoding
names = ("o200k_base", "cl100k_base")
print([count_tokens(load_encoding(name), ["hello world"]) for name in names])
"""


@pytest.fixture(scope="module")
def o200k() -> tiktoken.Encoding:
    return load_encoding("o200k_base")


def test_the_tokens_are_those_of_openai(o200k: tiktoken.Encoding) -> None:
    assert o200k.encode_ordinary("hello world") == [24912, 2375]
    assert load_encoding("cl100k_base").encode_ordinary("hello world") == [15339, 1917]


@pytest.mark.parametrize(
    ("arguments", "status", "printed"), [([], 0, "[2, 2]\n"), (["control"], 86, "")]
)
def test_counting_needs_neither_the_network_nor_a_directory_of_its_own(
    tmp_path: Path, arguments: list[str], status: int, printed: str
) -> None:
    result = subprocess.run(
        [sys.executable, "-c", OFFLINE, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=Path(__file__).parents[3],
        env={**os.environ, "TIKTOKEN_CACHE_DIR": str(tmp_path), "TMPDIR": str(tmp_path)},
    )

    assert (result.returncode, result.stdout) == (status, printed)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["changed", "other", "cut", "missing"])
def test_a_vocabulary_that_is_not_the_one_that_was_shipped_is_refused(
    tmp_path: Path, damage: str
) -> None:
    name = "cl100k_base.tiktoken.xz"
    shipped = (VOCABULARIES / name).read_bytes()
    if damage == "changed":
        text = lzma.decompress(shipped).replace(b"IQ== 0\n", b"IQ== 1\n")
        # Packed quickly, not well.
        (tmp_path / name).write_bytes(lzma.compress(text, preset=0))
    elif damage == "other":
        (tmp_path / name).write_bytes(lzma.compress(b"IQ== 0\n"))
    elif damage == "cut":
        (tmp_path / name).write_bytes(shipped[:-1])

    with pytest.raises(DamagedVocabulary, match=name):
        load_encoding("cl100k_base", tmp_path)


def test_special_tokens_in_a_text_are_text(o200k: tiktoken.Encoding) -> None:
    assert count_tokens(o200k, ["<|endoftext|>"]) == 7


def test_texts_are_counted_one_by_one(o200k: tiktoken.Encoding) -> None:
    assert count_tokens(o200k, ["hello", " world", ""]) == 2
    assert count_tokens(o200k, ["hel", "lo"]) == 2
    assert count_tokens(o200k, []) == 0


@pytest.mark.parametrize(
    ("character", "tokens"),
    [("a", 16 * 8192), (" ", 16 * 512), ("\n", 16 * 4096), ("好", 16 * 65536), ("😀", 16 * 65536)],
)
def test_a_million_times_the_same_character_is_counted(
    o200k: tiktoken.Encoding, character: str, tokens: int
) -> None:
    assert count_tokens(o200k, [character * (1 << 20)]) == tokens


def test_half_of_a_surrogate_pair_is_counted(o200k: tiktoken.Encoding) -> None:
    assert count_tokens(o200k, ["\ud83d"]) == 1


def test_the_process_answers_line_by_line_and_ends_with_its_input() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "apps.proxy.tokenizer"],
        cwd=Path(__file__).parents[3],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    request = b'{"number": 7, "encoding": "cl100k_base", "groups": [["hello world"], []]}\n'

    process.stdin.write(request)
    process.stdin.flush()
    first = process.stdout.readline()
    # Ctrl-C reaches every process of the terminal; the gateway still has calls to settle.
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(request, timeout=60)

    assert first == rest == b'{"number": 7, "tokens": [2, 0]}\n'
    assert process.returncode == 0
