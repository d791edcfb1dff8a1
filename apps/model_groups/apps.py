from django.apps import AppConfig


class ModelGroupsConfig(AppConfig):
    name = "apps.model_groups"
    verbose_name = "Model groups"
