from django.apps import AppConfig


class AnalyticsConfig(AppConfig):
    name = "apps.analytics"
    verbose_name = "Analytics"

    def ready(self) -> None:
        """Have the verification of the ledger, which lies below, look at rollups."""
        from apps.analytics.rollup_checks import check_rollups
        from apps.billing.added_checks import add_check

        add_check(check_rollups)
