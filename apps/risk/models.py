"""Rules that refuse or note calls, and what they found.

A rule is configuration, stamped like the rest; whom it concerns is told by ids without foreign
keys, so that what is deleted neither takes a rule along nor makes it concern everybody. A finding
is history: it names what it is about by copied ids and names, and never what was found.
"""

from __future__ import annotations

from typing import Final

from django.core.validators import MaxLengthValidator, MaxValueValidator, MinValueValidator
from django.db import models as db  # the field `models` would shadow the module

NAME_LENGTH_MAX: Final = 100
DESCRIPTION_LENGTH_MAX: Final = 2_000
MESSAGE_LENGTH_MAX: Final = 300
PRIORITY_MAX: Final = 1_000_000
# What a rule may name, and nothing else: calls by their endpoint.
OPERATIONS: Final = (
    "batchEmbedContents", "chat/completions", "completions", "embedContent", "embeddings",
    "generateContent", "messages", "moderations", "rerank", "responses",
)  # fmt: skip


class RuleKind(db.TextChoices):
    """What a rule goes by."""

    REQUEST = "request", "where a call comes from and what it is for"
    CONTENT = "content", "what its texts say"


class RuleAction(db.TextChoices):
    """What becomes of a call that a rule finds."""

    BLOCK = "block", "refused, and noted"
    RECORD = "record", "noted only"


def _ids(what: str) -> db.JSONField:
    return db.JSONField(default=list, blank=True, help_text=f"Ids of {what}; empty: all.")


class RiskRule(db.Model):
    """A rule. Everything that it names has to fit; what is empty does not restrict."""

    name = db.CharField(max_length=NAME_LENGTH_MAX, unique=True)
    description = db.TextField(
        blank=True,
        validators=[MaxLengthValidator(DESCRIPTION_LENGTH_MAX)],
        help_text="For administrators.",
    )
    kind = db.CharField(max_length=16, choices=RuleKind.choices)
    action = db.CharField(max_length=16, choices=RuleAction.choices)
    priority = db.IntegerField(
        default=0,
        validators=[MinValueValidator(-PRIORITY_MAX), MaxValueValidator(PRIORITY_MAX)],
        help_text="Lower is looked at first; the first rule that blocks ends it.",
    )
    is_active = db.BooleanField(default=True)
    message = db.CharField(
        max_length=MESSAGE_LENGTH_MAX,
        blank=True,
        help_text="What the client is told; empty: that the request was refused.",
    )
    users = _ids("users")
    user_groups = _ids("user groups")
    api_keys = _ids("API keys")
    models = _ids("models")
    model_groups = _ids("model groups")
    networks = db.JSONField(
        default=list, blank=True, help_text="Networks that calls come from; empty: any."
    )
    user_agent = db.CharField(
        max_length=500,
        blank=True,
        help_text="A regular expression for the User-Agent of the client; empty: any.",
    )
    operations = db.JSONField(
        default=list, blank=True, help_text="Endpoints, such as chat/completions; empty: any."
    )
    words = db.JSONField(
        default=list, blank=True, help_text="Words and phrases that a content rule looks for."
    )
    are_whole_words = db.BooleanField(
        default=False, help_text="No letter or digit may stand beside the words."
    )
    pattern = db.CharField(
        max_length=500,
        blank=True,
        help_text="A regular expression (RE2) that a content rule looks for as well.",
    )
    created_at = db.DateTimeField(auto_now_add=True)
    updated_at = db.DateTimeField(auto_now=True)

    class Meta:
        constraints = [
            db.CheckConstraint(
                condition=db.Q(kind__in=["request", "content"]), name="risk_rule_kind"
            ),
            db.CheckConstraint(
                condition=db.Q(action__in=["block", "record"]), name="risk_rule_action"
            ),
        ]

    def __str__(self) -> str:
        return self.name


class RiskFinding(db.Model):
    """A call that a rule found: who made it, when, and what became of it."""

    request_id = db.UUIDField(help_text="Of the call; one that was refused is not on record.")
    rule_id = db.BigIntegerField()
    rule_name = db.CharField(max_length=NAME_LENGTH_MAX)
    kind = db.CharField(max_length=16, choices=RuleKind.choices)
    action = db.CharField(max_length=16, choices=RuleAction.choices)
    user_id = db.BigIntegerField()
    user_name = db.CharField(max_length=150)
    api_key_id = db.BigIntegerField()
    api_key_name = db.CharField(max_length=100)
    model_id = db.BigIntegerField()
    requested_model = db.CharField(max_length=200)
    operation = db.CharField(max_length=32)
    ip_address = db.CharField(max_length=45)
    user_agent = db.CharField(max_length=256)
    created_at = db.DateTimeField()

    class Meta:
        constraints = [
            # Written once, also where it is not known whether it was.
            db.UniqueConstraint(fields=["request_id", "rule_id"], name="risk_finding_once"),
        ]
        indexes = [
            # What each rule, user and key was found by, newest first; and the sweep.
            db.Index(fields=["rule_id", "-id"], name="risk_finding_rule"),
            db.Index(fields=["user_id", "-id"], name="risk_finding_user"),
            db.Index(fields=["api_key_id", "-id"], name="risk_finding_key"),
            db.Index(fields=["created_at"], name="risk_finding_created"),
        ]

    def __str__(self) -> str:
        return f"{self.rule_name}: {self.request_id}"
