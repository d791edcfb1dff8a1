"""The shipped nginx in front of gateways."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.gateway import GatewayProcess
from tests.support.processes import accepts_connections, free_port, wait_until

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
CONFIGURATION = Path(__file__).resolve().parents[2] / "nginx.conf"
needs_nginx = pytest.mark.skipif(
    NGINX is None, reason="nginx is not installed (.ci/run installs it)"
)


@contextmanager
def nginx(directory: Path, gateways: list[GatewayProcess]) -> Iterator[int]:
    """Run the shipped configuration in front of gateways, and give its port."""
    port = free_port()
    text = CONFIGURATION.read_text()
    shipped = "server gateway:8000 max_fails=1 fail_timeout=1s;"
    servers = "".join(shipped.replace("gateway:8000", f"127.0.0.1:{g.port}") for g in gateways)
    for old, new in {
        "listen 8080;": f"listen 127.0.0.1:{port};",
        shipped: servers,
        # What went wrong between the two; nobody sends a key in a query here.
        "error_log /dev/stderr crit;": "error_log /dev/stderr error;",
        "server web:8000;": f"server 127.0.0.1:{gateways[0].port};",
    }.items():
        assert text.count(old) == 1
        text = text.replace(old, new)
    directory.mkdir()
    text = text.replace("/tmp/nginx", f"{directory}/nginx")  # noqa: S108  The shipped paths.
    (directory / "nginx.conf").write_text(text)
    # Started by root, the workers would be somebody who cannot read the test's directory.
    user = "user root;" if os.geteuid() == 0 else ""
    options = ("-p", str(directory), "-c", str(directory / "nginx.conf"))
    with (directory / "nginx.log").open("wb") as log:
        process = subprocess.Popen(
            [str(NGINX), *options, "-g", f"daemon off; {user}"], stdout=log, stderr=log
        )
    try:
        wait_until(lambda: accepts_connections(port), timeout_seconds=10, what="nginx")
        yield port
    finally:
        process.terminate()
        process.wait(10)
