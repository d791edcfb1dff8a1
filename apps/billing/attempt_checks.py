"""Compares attempts, which are in no chain, with the records of their calls (I-23).

Not looked at are a settlement in its bare form, which has no attempts and no model of a provider,
and a call that somebody else had ended: its record knows of no attempt, and its owner may have
brought some later. Nothing but triggers guards the other columns of attempts, among them keys.
"""

from __future__ import annotations

from typing import Final

from apps.billing.findings import Findings, as_uuid, limited, stream

# Attempts whose cost nobody knows are left out of the sum.
_WRONG_ATTEMPTS: Final = """SELECT id, attempt_count, attempts, answering, cost_nanos, billed_nanos
    FROM (
        SELECT request.id, request.attempt_count, request.cost_nanos, COUNT(attempt.id) AS attempts,
            COUNT(CASE WHEN attempt.number = request.attempt_count
                AND attempt.provider_id = request.provider_id
                AND attempt.route_id = request.route_id THEN 1 END) AS answering,
            SUM(attempt.cost_nanos) AS billed_nanos
        FROM audit_apirequest AS request
        LEFT JOIN audit_attempt AS attempt ON attempt.request_id = request.id
        WHERE request.upstream_model <> ''
            AND (request.attempt_count > 0 OR request.state NOT IN ('interrupted', 'voided'))
        GROUP BY request.id, request.attempt_count, request.cost_nanos
    ) AS counted
    WHERE attempts <> attempt_count OR (attempts > 0 AND answering <> 1)
        OR billed_nanos <> cost_nanos"""


def check_attempts(findings: Findings) -> None:
    """Verify that calls have the attempts and cost of their records, and who answered last."""
    for row in stream(limited(_WRONG_ATTEMPTS)):
        request_id, recorded, attempts, answering, cost, billed = row
        subject = f"request {as_uuid(request_id)}"
        if attempts != recorded:
            findings.add(
                "I-23",
                subject,
                expected=recorded,
                found=attempts,
                message=f"it has {attempts} attempts, and its record says {recorded}",
            )
        elif attempts and answering != 1:
            findings.add(
                "I-23",
                subject,
                expected="a last attempt by the route and at the provider of its record",
                found="another one",
                message="its last attempt was not by the route and at the provider of its record",
            )
        if billed is not None and cost is not None and billed != cost:
            findings.add_amount("I-23", subject, expected=int(billed), found=cost, what="its cost")
