"""Calls made up from the OpenAPI schema, good and bad, alone and in chains, by every role.

No answer may be a server error, none may differ from its schema, and no wrong call may be taken.
`EXAMPLES` sets how many calls are made up for each operation and phase.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from apps.users.models import Role
from tests.access.people import build_cast
from tests.support.databases import Database
from tests.support.gateway import FAST, GatewayProcess
from tests.support.people import PASSWORD, make_admin, make_user

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = Path(__file__).resolve().parent
EXAMPLES = os.environ.get("EXAMPLES", "20")
SECONDS = 1_200
CONSTANTS = {**FAST, "apps.users.sign_in:FAILURES_MAX": 10**9}
UNLIMITED = {"API_RPM_PER_USER": "1000000", "API_RPM_PER_ADDRESS": "1000000"}


@pytest.mark.parametrize("role", ["", *Role.values])
def test_no_call_surprises_the_gateway(committed_db: Database, tmp_path: Path, role: str) -> None:
    build_cast()
    people = {
        "": "",
        **{one: make_user(role=one, password=PASSWORD).username for one in Role.values},
        Role.ADMIN: make_admin(password=PASSWORD).username,
    }
    gateway = GatewayProcess.start(
        tmp_path, committed_db, constants=CONSTANTS, environment=UNLIMITED
    )
    try:
        done = subprocess.run(
            [
                str(Path(sys.executable).parent / "st"),
                "--config-file", str(FOLDER / "schemathesis.toml"),
                "run", str(ROOT / "openapi.json"),
                "--url", gateway.url,
                "--checks", "all",
                "--max-examples", EXAMPLES,
                "--seed", "1",
                "--continue-on-failure",
            ],
            cwd=tmp_path,
            env={
                **os.environ,
                "SCHEMATHESIS_HOOKS": "tests.made_up.sign_in",
                "PYTHONPATH": str(ROOT),
                "GATEWAY": gateway.url,
                "CALLER": people[role],
                "CALLER_PASSWORD": PASSWORD,
            },
            check=False,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )  # fmt: skip
    finally:
        gateway.stop()

    (tmp_path / "report.txt").write_text(done.stdout)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2_000:]
    assert "Traceback" not in gateway.log()
