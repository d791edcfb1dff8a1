"""A new version comes while the one before it serves: migrations, then gateways (F12, F105).

The version before is this one. The new one is a copy of it with migrations of its own, such as
versions bring: a column more in tables that calls read and write.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from django.db import connection
from django.db.migrations.loader import MigrationLoader

from tests.faults.load import steady_calls
from tests.faults.site import Site, chat
from tests.mutants.run import copy_tree
from tests.support.environment import ENCRYPTION_KEY, SECRET_KEY
from tests.support.gateway import GatewayProcess
from tests.support.processes import wait_until

TABLES: Final = (
    ("api_keys", "apikey"),
    ("ai_models", "route"),
    ("providers", "provider"),
    ("audit", "apirequest"),
    ("billing", "account"),
    ("billing", "spendcounter"),
    ("billing", "entry"),
    ("billing", "hold"),
    ("billing", "incarnation"),
)
STREAMS: Final = 20
BESIDE_SECONDS: Final = 3.0
_MIGRATE_SECONDS: Final = 300
_MIGRATION: Final = '''"""Add a column."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [({app!r}, {before!r})]
    operations = [migrations.AddField({table!r}, "later", models.BigIntegerField(null=True))]
'''


def write_next_version(tree: Path) -> Path:
    """Copy this tree, with a migration for each of TABLES, and return where it is."""
    copy_tree(tree)
    last = dict(MigrationLoader(None).graph.leaf_nodes())
    for app, table in TABLES:
        name = f"{int(last[app][:4]) + 1:04}_{table}_later"
        text = _MIGRATION.format(app=app, before=last[app], table=table)
        (tree / "apps" / app / "migrations" / f"{name}.py").write_text(text)
        last[app] = name
    return tree


def migrate(site: Site, tree: Path) -> None:
    """Bring the database to the version of a tree, as an operator does."""
    subprocess.run(
        [sys.executable, "manage.py", "migrate", "--verbosity", "0"],
        cwd=tree,
        env={
            **os.environ,
            "DATA_DIR": str(site.directory / "operator"),
            "DATABASE_URL": site.database.url,
            "SECRET_KEY": SECRET_KEY,
            "ENCRYPTION_KEY": ENCRYPTION_KEY,
        },
        check=True,
        timeout=_MIGRATE_SECONDS,
    )


def count_new_columns() -> int:
    """Return in how many of TABLES the new column is."""
    with connection.cursor() as cursor:
        described = [
            connection.introspection.get_table_description(cursor, f"{app}_{table}")
            for app, table in TABLES
        ]
    return sum(column.name == "later" for columns in described for column in columns)


def test_a_version_serves_while_the_next_one_migrates_and_takes_over(
    site: Site, tmp_path: Path
) -> None:
    payer, quick = site.make_payer(), site.make_model("tokens=5")
    streaming = site.make_model("tokens=200,pace=0.1")
    tree = write_next_version(tmp_path / "next")
    (old,) = site.start_gateways("old")
    site.crowd.call(old.url, payer.key, chat(streaming, stream=True), count=STREAMS)
    wait_until(lambda: site.crowd.streaming == STREAMS, timeout_seconds=20, what="the streams")

    with steady_calls(site, [old], payer, quick, 4) as during:
        migrate(site, tree)
        migrated_at = time.monotonic()
        time.sleep(BESIDE_SECONDS)
    streams = site.crowd.wait(60)
    is_ready = old.is_ready()
    if site.database.server is None:
        old.stop()  # SQLite has one gateway at a time.
    new = GatewayProcess.start(tmp_path / "new", site.database, root=tree)
    site.gateways["new"] = new
    both = [new] if site.database.server is None else [old, new]
    with steady_calls(site, both, payer, quick, 2) as beside:
        time.sleep(BESIDE_SECONDS)
    old.stop()
    with steady_calls(site, [new], payer, quick, 2) as afterwards:
        time.sleep(BESIDE_SECONDS)

    assert count_new_columns() == len(TABLES)
    assert is_ready
    assert [one.is_whole for one in streams] == [True] * STREAMS
    assert max(one.ended_at for one in during) > migrated_at + 1.0
    outcomes = [*during, *beside, *afterwards]
    assert {one.status for one in outcomes} == {200}
    site.check_books(
        f"F12, F105 {len(TABLES)} migrations under {len(during)} calls, then a new gateway",
        [*streams, *outcomes],
        healed_at=time.monotonic(),
    )
