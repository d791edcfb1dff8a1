from django.apps import AppConfig


class BillingConfig(AppConfig):
    name = "apps.billing"
    verbose_name = "Money"

    def ready(self) -> None:
        """Tell the layers below, which must not import this one, how running calls are found."""
        from apps.audit.history import set_open_calls
        from apps.billing.open_calls import is_call_open

        set_open_calls(is_call_open)
