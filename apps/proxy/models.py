"""What gateways tell each other through the database.

The version of the configuration, stamped by triggers and polled by every gateway; and which routes
rest.
"""

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


class CircuitRest(models.Model):
    """A rest of a route, or of one provider key on it, that a gateway decided on.

    The other gateways and the health check read it. Not configuration and never the truth: each
    gateway goes on by its own circuits where this table is away. Times are the database's.
    """

    route_id = models.BigIntegerField()
    provider_id = models.BigIntegerField()
    provider_key_id = models.BigIntegerField(default=0, help_text="0: the route as a whole.")
    reason = models.CharField(max_length=64)
    openings = models.PositiveSmallIntegerField(
        default=0, help_text="How often in a row its circuit opened; 0: a rest that was asked for."
    )
    began_at = models.DateTimeField()
    ends_at = models.DateTimeField()
    next_check_at = models.DateTimeField(null=True)
    failed_checks = models.PositiveSmallIntegerField(default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["route_id", "provider_key_id"], name="proxy_circuitrest_door"
            ),
        ]
        indexes = [models.Index(fields=["ends_at"], name="proxy_circuitrest_ends")]

    def __str__(self) -> str:
        return f"route {self.route_id}, key {self.provider_key_id}: {self.reason}"
