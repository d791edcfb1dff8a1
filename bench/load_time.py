"""Loads the whole configuration once, as a gateway does at its start, and prints what it cost."""

from __future__ import annotations

import json
import os
import time

import django
import psutil


def main() -> None:
    """Load and print as JSON: seconds, keys, memory in millions of bytes."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "auditing.settings")
    django.setup()
    from django.db import connection

    from apps.proxy.loader import load_snapshot

    connection.ensure_connection()
    begun = time.perf_counter()
    snapshot = load_snapshot()
    seconds = time.perf_counter() - begun
    resident = psutil.Process().memory_info().rss / 1e6
    print(json.dumps({"seconds": seconds, "keys": len(snapshot.keys), "resident_mb": resident}))


if __name__ == "__main__":
    main()
