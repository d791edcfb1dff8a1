"""A name server on loopback, and how to start a process that asks it and nobody else.

Only where this process may make mount namespaces and bind port 53, which root may.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import shutil
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

# An address of the loopback interface that nobody else has, also where processes run side by side.
ADDRESS: Final = f"127.53.{os.getpid() % 250}.{os.getpid() // 250 % 250 + 1}"
_TYPES: Final = {1: 4, 28: 6}  # A and AAAA, by the version of the address
_WAIT_SECONDS: Final = 0.05


class NameServer:
    """Answers with one list of addresses after the other, the last one for ever.

    A and AAAA of one look-up come from one list. Names that it was not told do not exist.
    """

    def __init__(self) -> None:
        self.answers: dict[str, list[list[str]]] = {}
        self.asked: list[str] = []  # one a look-up
        self._turns: dict[tuple[str, int], int] = {}
        self._stopped = threading.Event()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self._socket.bind((ADDRESS, 53))
        except OSError:
            self._socket.close()
            raise
        self._socket.settimeout(_WAIT_SECONDS)
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def _serve(self) -> None:
        while not self._stopped.is_set():
            with contextlib.suppress(TimeoutError):
                query, peer = self._socket.recvfrom(512)
                self._socket.sendto(self._answer(query), peer)

    def _answer(self, query: bytes) -> bytes:
        labels, position = [], 12
        while length := query[position]:
            labels.append(query[position + 1 : position + 1 + length].decode())
            position += 1 + length
        question = query[12 : position + 5]
        (kind,) = struct.unpack("!H", query[position + 1 : position + 3])
        name = ".".join(labels).lower()
        if kind == 1:
            self.asked.append(name)
        lists = self.answers.get(name)
        if lists is None:
            return query[:2] + b"\x81\x83" + struct.pack("!4H", 1, 0, 0, 0) + question
        turn = self._turns.get((name, kind), 0)
        self._turns[name, kind] = turn + 1
        found = [
            address.packed
            for address in map(ipaddress.ip_address, lists[min(turn, len(lists) - 1)])
            if address.version == _TYPES.get(kind)
        ]
        # TTL 0: nobody is to keep it.
        records = b"".join(
            b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, 0, len(packed)) + packed for packed in found
        )
        return (
            query[:2] + b"\x81\x80" + struct.pack("!4H", 1, len(found), 0, 0) + question + records
        )

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Answer nobody any more."""
        self._stopped.set()
        self._thread.join(5)
        self._socket.close()


@contextmanager
def name_server(directory: Path) -> Iterator[tuple[NameServer, tuple[str, ...]]]:
    """Run a name server; give it with the words before a command that is to ask it.

    Skips the test where the system does not allow that.
    """
    resolver = directory / "resolv.conf"
    resolver.write_text(f"nameserver {ADDRESS}\noptions timeout:1 attempts:2\n")
    mounting = f"mount --bind {resolver} /etc/resolv.conf && "
    prefix = ("unshare", "-m", "sh", "-c", mounting + 'exec "$@"', "sh")
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not installed")
    tried = subprocess.run([*prefix, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"this process may not mount: {tried.stderr.strip()}")
    try:
        server = NameServer()
    except OSError as error:
        pytest.skip(f"this process may not listen at port 53: {error}")
    server.start()
    try:
        yield server, prefix
    finally:
        server.stop()
