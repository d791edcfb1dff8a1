from django.apps import AppConfig


class APIKeysConfig(AppConfig):
    name = "apps.api_keys"
    verbose_name = "API keys"
