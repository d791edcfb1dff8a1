"""Ends claims on idempotency keys whose holds were ended by somebody who did not know of them.

That is a gateway of an older version which resolved the hold of a newer one, while both ran. The
ledger itself ends each claim with its hold, so a key whose call runs and has no hold is left over.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from django.db.models import Exists, OuterRef

from apps.audit.idempotency_keys import KEPT
from apps.audit.models import APIRequest, CallKey
from apps.billing.models import Hold

_KEYS_AT_ONCE: Final = 50


def end_orphaned_keys(*, now: datetime) -> int:
    """Let keys go whose calls cost nothing, mark the others as used, and return how many.

    At most _KEYS_AT_ONCE; the next run goes on.
    """
    hold = Hold.objects.filter(pk=OuterRef("pk"))
    orphans = CallKey.objects.filter(~Exists(hold), expires_at__isnull=True)
    found = list(orphans.values_list("pk", flat=True)[:_KEYS_AT_ONCE])
    if not found:
        return 0
    charged = dict(
        APIRequest.objects.filter(pk__in=found, charge_nanos__gt=0).values_list("pk", "status_code")
    )
    for request_id, status_code in charged.items():
        CallKey.objects.filter(pk=request_id, expires_at__isnull=True).update(
            status_code=status_code, headers="[]", expires_at=now + KEPT
        )
    free = [request_id for request_id in found if request_id not in charged]
    CallKey.objects.filter(pk__in=free, expires_at__isnull=True).delete()
    return len(found)
