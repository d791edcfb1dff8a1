"""What happened. Rows here are written once; they name configuration by copied ids and names.

`APIRequest`, `Attempt` and `Payload` have no foreign keys: deleting a user or a provider never
changes history. On PostgreSQL they are partitioned by month on their UUIDv7 keys.
"""

from __future__ import annotations

from django.db import models

from apps.core.ids import new_uuid7


class RequestState(models.TextChoices):
    """How a call ended."""

    COMPLETED = "completed", "completed"
    FAILED = "failed", "failed before any content"
    UPSTREAM_INTERRUPTED = "upstream_interrupted", "cut by the provider"
    CLIENT_DISCONNECTED = "client_disconnected", "left by the client"
    LIMIT_EXCEEDED = "limit_exceeded", "ended at a limit of the gateway"
    GATEWAY_DRAINED = "gateway_drained", "ended by a restart"
    INTERRUPTED = "interrupted", "owner died, resolved by the reaper"
    VOIDED = "voided", "hold given back, nothing was sent"


class UsageSource(models.TextChoices):
    REPORTED = "reported", "reported by the provider"
    ESTIMATED = "estimated", "estimated by the gateway"
    CHECKPOINT = "checkpoint", "last checkpoint of a dead gateway"
    NONE = "none", "none"


class AnswerSource(models.TextChoices):
    CACHE = "cache", "the cache: it had been given to the same request before"


def _count() -> models.BigIntegerField[int, int]:
    return models.BigIntegerField(default=0)


class APIRequest(models.Model):
    """One accepted call, in its final state."""

    id = models.UUIDField(primary_key=True, default=new_uuid7, editable=False)
    customer_id = models.BigIntegerField()
    user_id = models.BigIntegerField()
    user_name = models.CharField(max_length=150)
    api_key_id = models.BigIntegerField()
    api_key_name = models.CharField(max_length=100)
    model_id = models.BigIntegerField()
    requested_model = models.CharField(max_length=200)
    route_id = models.BigIntegerField(null=True)
    provider_id = models.BigIntegerField(null=True)
    provider_name = models.CharField(max_length=100)
    upstream_model = models.CharField(max_length=200)
    endpoint = models.CharField(max_length=100)
    method = models.CharField(max_length=8)
    dialect = models.CharField(max_length=32)
    is_stream = models.BooleanField()
    state = models.CharField(max_length=32, choices=RequestState.choices)
    status_code = models.SmallIntegerField()
    error_code = models.CharField(max_length=64)
    finish_reason = models.CharField(max_length=64)
    input_tokens = _count()
    cache_read_tokens = _count()
    cache_write_5m_tokens = _count()
    cache_write_1h_tokens = _count()
    output_tokens = _count()
    reasoning_tokens = _count()
    audio_in_tokens = _count()
    audio_out_tokens = _count()
    image_in_tokens = _count()
    image_out_tokens = _count()
    counts = models.CharField(
        max_length=200,
        default="",
        db_default="",
        blank=True,
        help_text="What was counted by the piece, as compact JSON without zeros; empty: nothing.",
    )
    usage_source = models.CharField(max_length=16, choices=UsageSource.choices)
    is_usage_suspect = models.BooleanField(default=False)
    charge_nanos = models.BigIntegerField()
    cost_nanos = models.BigIntegerField(null=True)
    hold_nanos = models.BigIntegerField()
    price_version_id = models.BigIntegerField()
    cost_version_id = models.BigIntegerField(null=True)
    multiplier_millionths = models.BigIntegerField()
    service_tier = models.CharField(
        max_length=32,
        default="",
        db_default="",
        blank=True,
        help_text="At whose prices it was charged; empty: the usual ones.",
    )
    answered_from = models.CharField(
        max_length=16,
        choices=AnswerSource.choices,
        default="",
        db_default="",
        blank=True,
        help_text="Where the answer was kept; empty: a provider gave it.",
    )
    attempt_count = models.SmallIntegerField(default=0)
    input_bytes = models.BigIntegerField()
    output_bytes = models.BigIntegerField()
    started_at = models.DateTimeField()
    ttft_ms = models.IntegerField(null=True)
    duration_ms = models.IntegerField()
    settled_at = models.DateTimeField()
    ip_address = models.CharField(max_length=45)
    user_agent = models.CharField(max_length=256)
    upstream_request_id = models.CharField(max_length=128)
    payload_digest = models.BinaryField(max_length=32, null=True)
    incarnation_id = models.BigIntegerField()
    sequence = models.BigIntegerField()
    hash = models.BinaryField(max_length=32)

    class Meta:
        verbose_name = "API request"
        indexes = [
            # The list of all requests, newest first.
            models.Index(fields=["-started_at", "-id"], name="audit_request_started"),
            # One's own requests, newest first.
            models.Index(fields=["user_id", "-started_at", "-id"], name="audit_request_user"),
            # Requests of one key, newest first.
            models.Index(fields=["api_key_id", "-started_at"], name="audit_request_key"),
            # Statements: money by the time it was settled.
            models.Index(fields=["customer_id", "settled_at"], name="audit_request_customer"),
            # Verification walks an incarnation's chain.
            models.Index(fields=["incarnation_id", "sequence"], name="audit_request_chain"),
            # Every index below is written once for each call, into the newest page of its model or
            # provider: without it a list filtered by a rare one reads all calls there are.
            # Requests of some models, newest first.
            models.Index(fields=["requested_model", "-started_at"], name="audit_request_model"),
            # Requests that some providers answered, newest first.
            models.Index(fields=["provider_id", "-started_at"], name="audit_request_provider"),
            # What went wrong, newest first: by state, status, error code or error text. Calls that
            # went well are not in it and cost nothing.
            models.Index(
                fields=["-started_at", "-id"],
                condition=models.Q(status_code__gte=400)
                | ~models.Q(state="completed")
                | models.Q(error_code__gt="")
                | models.Q(attempt_count__gt=1),
                name="audit_request_failures",
            ),
        ]

    def __str__(self) -> str:
        return str(self.id)


class Attempt(models.Model):
    """One try at a provider. The last one of a request is the one that answered."""

    id = models.UUIDField(primary_key=True, default=new_uuid7, editable=False)
    request_id = models.UUIDField()
    number = models.SmallIntegerField()
    route_id = models.BigIntegerField()
    provider_id = models.BigIntegerField()
    provider_name = models.CharField(max_length=100)
    provider_key_id = models.BigIntegerField()
    upstream_model = models.CharField(max_length=200)
    started_at = models.DateTimeField()
    duration_ms = models.IntegerField()
    status_code = models.SmallIntegerField(null=True)
    outcome = models.CharField(max_length=64)
    error_text = models.CharField(max_length=500)
    upstream_request_id = models.CharField(max_length=128)
    # Gateways of an older version do not write it.
    changes = models.CharField(
        max_length=500,
        default="",
        db_default="",
        help_text="What the route's overrides changed of the request.",
    )
    # Neither do they write this.
    cost_nanos = models.BigIntegerField(
        null=True, help_text="What the provider bills for it; null: it is not known."
    )

    class Meta:
        indexes = [models.Index(fields=["request_id"], name="audit_attempt_request")]

    def __str__(self) -> str:
        return f"{self.request_id} #{self.number}"


class Payload(models.Model):
    """The bodies of a call, zstd-compressed, at most 256 KiB each before compression.

    `salt` makes the digest in the request's chain useless for guessing an erased body.
    """

    request_id = models.UUIDField(primary_key=True)
    salt = models.BinaryField(max_length=16)
    request_body = models.BinaryField()
    response_body = models.BinaryField()
    is_request_truncated = models.BooleanField()
    is_response_truncated = models.BooleanField()

    def __str__(self) -> str:
        return str(self.request_id)


class CallKey(models.Model):
    """The idempotency key of a call, and its answer for those who repeat it.

    Written by the ledger with the call's hold, completed or deleted with its settlement. The key is
    a digest and the body sealed (see `apps.audit.idempotency_keys`): nobody but the caller reads
    it. The model is named as its table, which keeps its name.
    """

    request_id = models.UUIDField(primary_key=True)
    user_id = models.BigIntegerField()
    digest = models.BinaryField(max_length=32)
    fingerprint = models.BinaryField(max_length=32)
    status_code = models.SmallIntegerField(null=True, help_text="None while the call runs.")
    headers = models.TextField(help_text="JSON [[name, value], …]")
    body = models.BinaryField(null=True, help_text="None: there is none, or it was not kept.")
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField(null=True, help_text="None while the call runs.")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["user_id", "digest"], name="audit_callkey_unique"),
        ]
        indexes = [
            # What is to be deleted, oldest first.
            models.Index(fields=["expires_at"], name="audit_callkey_expires"),
        ]

    def __str__(self) -> str:
        return str(self.request_id)


class StoredAnswer(models.Model):
    """Where an answer lies that a provider keeps, or an item of one: in the account of one key.

    Written by the ledger with the call's settlement. Who names it by its id has to be its owner,
    and is sent there (see `apps.proxy.stored_answers`). Ids are a provider's own: the latest answer
    with one is meant. No foreign keys: a row ends by its time.
    """

    digest = models.BinaryField(max_length=32, help_text="Of the id.")
    provider_id = models.BigIntegerField()
    provider_key_id = models.BigIntegerField()
    user_id = models.BigIntegerField()
    model_id = models.BigIntegerField()
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["digest", "provider_id"], name="audit_storedanswer_id"),
        ]
        # For the sweep.
        indexes = [models.Index(fields=["expires_at"], name="audit_storedanswer_expires")]

    def __str__(self) -> str:
        return f"{bytes(self.digest).hex()} at provider {self.provider_id}"


class AdminEvent(models.Model):
    """Who did what, when, from where, with the values before and after."""

    actor_id = models.BigIntegerField(null=True)
    actor_name = models.CharField(max_length=150)
    action = models.CharField(max_length=64)
    object_type = models.CharField(max_length=64)
    object_id = models.CharField(max_length=64)
    object_name = models.CharField(max_length=200)
    before = models.JSONField(null=True)
    after = models.JSONField(null=True)
    reason = models.CharField(max_length=500)
    ip_address = models.CharField(max_length=45)
    user_agent = models.CharField(max_length=256)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        indexes = [
            models.Index(fields=["-created_at"], name="audit_event_created"),
            models.Index(fields=["object_type", "object_id"], name="audit_event_object"),
            # What one person did, newest first.
            models.Index(fields=["actor_id", "-id"], name="audit_event_actor"),
            # Events of one action, or of all that begin alike.
            models.Index(
                fields=["action"], opclasses=["varchar_pattern_ops"], name="audit_event_action"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.action} {self.object_type} {self.object_id}"


class RefusalCount(models.Model):
    """How many calls were refused, by key, reason and minute. `api_key_id` 0: no known key."""

    api_key_id = models.BigIntegerField()
    code = models.CharField(max_length=64)
    minute = models.DateTimeField()
    count = models.BigIntegerField()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["api_key_id", "code", "minute"], name="audit_refusal_unique"
            ),
        ]
        indexes = [
            # Refusals of a stretch of time, whoever met them.
            models.Index(fields=["minute"], name="audit_refusal_minute"),
        ]

    def __str__(self) -> str:
        return f"{self.code} × {self.count}"
