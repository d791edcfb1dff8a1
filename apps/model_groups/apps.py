from django.apps import AppConfig


class ModelGroupsConfig(AppConfig):
    name = "apps.model_groups"
