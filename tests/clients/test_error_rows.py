"""Every row of the error table, as the SDKs show it and as often as they try it by themselves.

All rows are met at once, with the waits that the gateway asks for: up to twelve seconds a row.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest

from apps.core import error_rows
from tests.clients.client import Client, Job, Outcome
from tests.clients.jobs import job_of
from tests.clients.refusals import refusals, subtract
from tests.clients.rows import ANTHROPIC, ANTHROPIC_JOBS, ELSEWHERE, PLANT, ROWS, Row
from tests.support.bench import Bench, Stage

__all__ = ["PLANT"]

# Commands start slowly, and few parameters can be given to them: one row of each kind is enough, as
# `llm` calls through the Python SDK.
LLM_ROWS = {"E02", "E07", "E19", "E52 big_body(34000000)"}
ANTHROPIC_SDKS = ("anthropic", "anthropic-node")
CLASSES = {
    400: "BadRequestError",
    401: "AuthenticationError",
    403: "PermissionDeniedError",
    404: "NotFoundError",
    422: "UnprocessableEntityError",
    429: "RateLimitError",
}

# Anthropic's SDKs have classes for more.
ANTHROPIC_CLASSES = {
    **CLASSES,
    402: "PaymentRequiredError",
    413: "ContentTooLargeError",
    503: "ServiceUnavailableError",
    504: "GatewayTimeoutError",
    529: "OverloadedError",
}


def test_every_row_is_met_here_or_is_said_to_be_elsewhere() -> None:
    met = {row.row for row in ROWS}

    assert met & set(ELSEWHERE) == set()
    assert met | set(ELSEWHERE) == set(error_rows.ROWS)
    assert {row.partition(" ")[0] for row in ANTHROPIC} == met


@pytest.mark.parametrize("name", ["python", "node", "langchain", "llm", *ANTHROPIC_SDKS])
@pytest.mark.long
def test_each_row_as_a_client_meets_it(bench: Bench, clients: dict[str, Client], name: str) -> None:
    rows = [row for row in ROWS if name != "llm" or {row.row, str(row)} & LLM_ROWS]
    with ExitStack() as stack:
        stages = [row.prepare(bench, stack) for row in rows]
        jobs = [_job(name, *pair) for pair in zip(rows, stages, strict=True)]
        before = refusals(bench)

        outcomes = clients[name].do(jobs, parallel=2 if name == "llm" else len(jobs))

        refused = subtract(refusals(bench), before)
    problems = {
        str(row): found
        for row, stage, outcome in zip(rows, stages, outcomes, strict=True)
        if (found := list(_compare(name, row, stage, outcome, refused)))
    }
    assert problems == {}
    recorded = {(row.row, row.code) for row in rows if not row.is_recorded}
    assert set(refused) == recorded


def _job(name: str, row: Row, stage: Stage) -> Job:
    in_other_words = ANTHROPIC_JOBS.get(row.row) if name in ANTHROPIC_SDKS else None
    job = job_of(stage, row.do, **(in_other_words or row.job))
    # An address that is not offered.
    job["base_url"] += job.pop("below", "")
    return job


def _compare(
    name: str, row: Row, stage: Stage, outcome: Outcome, refused: dict[tuple[str, str], float]
) -> Any:
    """Name what is otherwise than the table says."""
    error = outcome.error
    if error is None:
        yield f"no error: {outcome}"
        return
    expected = _expected(name, row)
    yield from (
        f"{field}: {error.get(field)} instead of {value}"
        for field, value in expected.items()
        if error.get(field) != value
    )
    if name != "llm" and row.status is not None and not error["request_id"]:
        yield "the SDK has no request id"
    tries: float
    if row.is_recorded:
        statement = stage.settled(row.tries)
        tries = len(statement.rows)
    else:
        statement = stage.settled(int(row.is_charged))
        tries = refused.get((row.row, row.code), 0)
    if tries != row.tries:
        yield f"{tries} tries instead of {row.tries}"
    charged = [charge for charge in statement.charges if charge]
    entries = [("charge", -charge) for charge in charged]
    if len(charged) != row.is_charged or list(statement.entries) != entries:
        yield f"charged {charged}, entries {statement.entries}"


def _expected(name: str, row: Row) -> dict[str, Any]:
    """Return what the SDK is to show of its error."""
    if name == "llm":
        return {"status": row.status}  # It prints this and the message, and nothing else.
    if name in ANTHROPIC_SDKS:
        status, kind = ANTHROPIC.get(str(row)) or ANTHROPIC[row.row]
        if status is None and name == "anthropic":
            return {"status": 200, "type": kind, "class": "APIStatusError"}
        return {"status": status, "type": kind, "class": _class_of(name, status)}
    told = {"status": row.status, "code": row.code, "type": row.type, "param": row.param}
    return told | {"class": _class_of(name, row.status)}


def _class_of(name: str, status: int | None) -> str:
    if status is None:
        return "APIError"
    if name == "node" and status not in CLASSES and status < 500:
        return "APIError"
    classes = ANTHROPIC_CLASSES if name in ANTHROPIC_SDKS else CLASSES
    return classes.get(status, "InternalServerError" if status >= 500 else "APIStatusError")
