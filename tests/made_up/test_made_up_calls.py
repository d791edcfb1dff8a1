"""Calls made up from the OpenAPI schema, good and bad, alone and in chains, by every role.

No answer may be a server error, none may differ from its schema, and no wrong call may be taken.
`EXAMPLES` sets how many calls are made up for each operation when fuzzing, and how many chains of
calls; `PHASES` sets the phases of all roles; another `SEED` makes up other calls.
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
from tests.support.gateway import FAST, DemoThread, GatewayProcess
from tests.support.people import make_user

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = Path(__file__).resolve().parent
EXAMPLES = os.environ.get("EXAMPLES", "20")
SEED = os.environ.get("SEED", "1")
PHASES = "examples,fuzzing,stateful"
ALL_PHASES = "examples,coverage,fuzzing,stateful"
# Every bound of every parameter, one by one, takes long. Viewers and analysts read through what
# administrators read through, and may write as little as users.
PHASES_BY_ROLE = {"": ALL_PHASES, Role.USER: ALL_PHASES, Role.ADMIN: ALL_PHASES}
SECONDS = 1_200
LOCKS = ("PAIR_FAILURES_MAX", "NETWORK_FAILURES_MAX", "ACCOUNT_FAILURES_MAX")
CONSTANTS = {**FAST, **{f"apps.users.attempts:{name}": 10**9 for name in LOCKS}}
PLANTED = ["tests.made_up.planted:cut_off"]
UNLIMITED = {"API_RPM_PER_USER": "1000000", "API_RPM_PER_ADDRESS": "1000000"}


@pytest.mark.parametrize("role", ["", *Role.values])
def test_no_call_surprises_the_gateway(committed_db: Database, tmp_path: Path, role: str) -> None:
    caller = make_user(role=role, is_superuser=role == Role.ADMIN) if role else None
    provider = DemoThread()
    build_cast(*([caller] if caller else []), base_url=provider.base_url)
    gateway = GatewayProcess.start(
        tmp_path, committed_db, constants=CONSTANTS, environment=UNLIMITED, plant=PLANTED
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
                "--phases", os.environ.get("PHASES") or PHASES_BY_ROLE.get(role, PHASES),
                "--seed", SEED,
                "--continue-on-failure",
            ],
            cwd=tmp_path,
            env={
                **os.environ,
                "SCHEMATHESIS_HOOKS": "tests.made_up.sign_in",
                "PYTHONPATH": str(ROOT),
                "DATABASE_URL": committed_db.url,
                "CALLER": str(caller.pk) if caller else "",
            },
            check=False,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )  # fmt: skip
    finally:
        gateway.stop()
        provider.stop()

    (tmp_path / "report.txt").write_text(done.stdout)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2_000:]
    assert "Traceback" not in gateway.log()
