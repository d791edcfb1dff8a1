"""The operator's own accounts. Revenue is sixteen rows, so that no row serialises all gateways."""

from typing import Any

from django.db import migrations

REVENUE_ACCOUNTS = 16


def create(apps: Any, schema_editor: Any) -> None:
    account = apps.get_model("billing", "Account")
    account.objects.bulk_create(
        [account(kind="revenue", name=f"revenue {n:02d}") for n in range(REVENUE_ACCOUNTS)]
        + [account(kind=kind, name=kind) for kind in ("promotion", "adjustment", "clearing")]
    )


class Migration(migrations.Migration):
    dependencies = [("billing", "0003_append_only_and_balanced")]

    # Going back drops the table with its rows; rows with entries must not go before.
    operations = [migrations.RunPython(create, migrations.RunPython.noop)]
