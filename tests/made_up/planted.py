"""Planted into the gateway: made-up providers must not be called for real."""

from __future__ import annotations

import socket
from typing import Any

_look_up = socket.getaddrinfo


def cut_off() -> None:
    """Resolve no name but those of this machine."""
    socket.getaddrinfo = _look_up_here


def _look_up_here(host: Any, *args: Any, **kwargs: Any) -> Any:
    if host not in {None, "127.0.0.1", "::1", "localhost"}:
        raise socket.gaierror(socket.EAI_NONAME, "cut off")
    return _look_up(host, *args, **kwargs)
