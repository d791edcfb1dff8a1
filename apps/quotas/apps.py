from django.apps import AppConfig


class QuotasConfig(AppConfig):
    name = "apps.quotas"
    verbose_name = "Quotas"

    def ready(self) -> None:
        """Have the verification of the ledger, which lies below, look at quotas."""
        from apps.billing.added_checks import add_check
        from apps.quotas.total_checks import check_quotas

        add_check(check_quotas)
