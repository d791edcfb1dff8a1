"""The version of the configuration, stamped by database triggers and polled by every gateway."""

from __future__ import annotations

from django.db import models


class ConfigurationVersion(models.Model):
    """One row (id 1) whose version grows with every committed change of the configuration."""

    version = models.BigIntegerField(default=0)

    def __str__(self) -> str:
        return str(self.version)


class ConfigurationChange(models.Model):
    """What changed at a version: a table and the key of the row (or of what it belongs to)."""

    version = models.BigIntegerField()
    table_name = models.CharField(max_length=64)
    row_key = models.BigIntegerField()

    class Meta:
        indexes = [models.Index(fields=["version"], name="proxy_change_version")]

    def __str__(self) -> str:
        return f"{self.version}: {self.table_name} {self.row_key}"
