"""Idempotency keys do not pile up."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from apps.quotas.models import RepeatKey
from apps.quotas.repeats import PRUNE_ROWS
from apps.quotas.tasks import prune_idempotency_keys


@pytest.mark.django_db
def test_keys_older_than_90_days_are_forgotten_and_others_stay() -> None:
    count = 2 * PRUNE_ROWS + 1
    RepeatKey.objects.bulk_create(
        RepeatKey(key=f"quota:1:{number}", digest="0" * 64) for number in range(count)
    )
    RepeatKey.objects.update(created_at=timezone.now() - timedelta(days=91))
    kept = RepeatKey.objects.create(key="quota:1:kept", digest="0" * 64)
    RepeatKey.objects.filter(pk=kept.pk).update(created_at=timezone.now() - timedelta(days=89))

    removed = prune_idempotency_keys()

    assert removed == count
    assert list(RepeatKey.objects.all()) == [kept]
