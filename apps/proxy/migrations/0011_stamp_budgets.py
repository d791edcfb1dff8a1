"""Budgets of users and user groups are configuration, stamped like their caps."""

from django.db import migrations

from apps.core.triggers import watch_columns

BUDGETS = ("daily_budget_nanos", "monthly_budget_nanos")
watch, forget = watch_columns({"users_user": BUDGETS, "users_usergroup": BUDGETS})


class Migration(migrations.Migration):
    dependencies = [
        ("proxy", "0010_stamp_allowed_operations"),
        ("users", "0004_budgets"),
    ]

    operations = [migrations.RunPython(watch, forget)]
