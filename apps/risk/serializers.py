"""Risk rules and findings over REST."""

from __future__ import annotations

from typing import Any, Final

from rest_framework import serializers
from rest_framework.validators import UniqueValidator

from apps.core.rest import StrictSerializer, example
from apps.risk.changes import (
    IDS_MAX,
    NETWORK_LENGTH_MAX,
    NETWORKS_MAX,
    TRIED_CHARACTERS_MAX,
    RuleInvalid,
    check_ids,
)
from apps.risk.matchers import PATTERN_LENGTH_MAX, WORD_LENGTH_MAX, WORDS_MAX
from apps.risk.models import (
    DESCRIPTION_LENGTH_MAX,
    MESSAGE_LENGTH_MAX,
    NAME_LENGTH_MAX,
    OPERATIONS,
    PRIORITY_MAX,
    RiskFinding,
    RiskRule,
    RuleAction,
    RuleKind,
)

_RULE: Final = {
    "name": "no weapons",
    "description": "Asked for by legal, in March.",
    "kind": "content",
    "action": "block",
    "priority": 0,
    "is_active": True,
    "message": "Our terms do not allow this.",
    "users": [],
    "user_groups": [2],
    "api_keys": [],
    "models": [],
    "model_groups": [],
    "networks": [],
    "user_agent": "",
    "operations": ["chat/completions", "messages"],
    "words": ["nerve gas", "pipe bomb"],
    "are_whole_words": True,
    "pattern": "",
}


def _ids(what: str) -> serializers.ListField:
    return serializers.ListField(
        child=serializers.IntegerField(min_value=1, max_value=2**63 - 1),
        max_length=IDS_MAX,
        required=False,
        help_text=f"Ids of {what}; empty: all.",
    )


@example(_RULE)
class RiskRuleInput(StrictSerializer):
    """A rule. Everything that it names has to fit; what is empty does not restrict.

    Fields that are left out keep their values; lists are replaced whole.
    """

    name = serializers.CharField(
        max_length=NAME_LENGTH_MAX, validators=[UniqueValidator(queryset=RiskRule.objects.all())]
    )
    description = serializers.CharField(
        max_length=DESCRIPTION_LENGTH_MAX, required=False, allow_blank=True
    )
    kind = serializers.ChoiceField(choices=RuleKind.choices)
    action = serializers.ChoiceField(choices=RuleAction.choices)
    priority = serializers.IntegerField(
        min_value=-PRIORITY_MAX,
        max_value=PRIORITY_MAX,
        required=False,
        help_text="Lower is looked at first; the first rule that blocks ends it.",
    )
    is_active = serializers.BooleanField(required=False)
    message = serializers.CharField(
        max_length=MESSAGE_LENGTH_MAX,
        required=False,
        allow_blank=True,
        help_text="What the client is told; empty: that the request was refused.",
    )
    users = _ids("users")
    user_groups = _ids("user groups")
    api_keys = _ids("API keys")
    models = _ids("models")
    model_groups = _ids("model groups")
    networks = serializers.ListField(
        child=serializers.CharField(max_length=NETWORK_LENGTH_MAX),
        max_length=NETWORKS_MAX,
        required=False,
        help_text="Addresses or networks that calls come from; empty: any.",
    )
    user_agent = serializers.CharField(
        max_length=PATTERN_LENGTH_MAX,
        required=False,
        allow_blank=True,
        trim_whitespace=False,
        help_text="A regular expression (RE2) for the client's User-Agent; empty: any.",
    )
    operations = serializers.ListField(
        child=serializers.ChoiceField(choices=[(name, name) for name in OPERATIONS]),
        max_length=len(OPERATIONS),
        required=False,
        help_text="Endpoints; empty: any.",
    )
    words = serializers.ListField(
        child=serializers.CharField(max_length=WORD_LENGTH_MAX),
        max_length=WORDS_MAX,
        required=False,
        help_text="Words and phrases that a content rule looks for.",
    )
    are_whole_words = serializers.BooleanField(
        required=False, help_text="No letter or digit may stand beside the words."
    )
    pattern = serializers.CharField(
        max_length=PATTERN_LENGTH_MAX,
        required=False,
        allow_blank=True,
        trim_whitespace=False,
        help_text="A regular expression (RE2) that a content rule looks for as well.",
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Refuse ids of what is not there."""
        try:
            check_ids(attrs)
        except RuleInvalid as error:
            raise serializers.ValidationError({error.field: [str(error)]}) from error
        return attrs


@example(
    {"id": 3, **_RULE, "created_at": "2026-11-01T08:00:00Z", "updated_at": "2026-11-01T08:00:00Z"}
)
class RiskRuleOutput(serializers.Serializer[RiskRule]):
    """A rule."""

    id = serializers.IntegerField()
    name = serializers.CharField()
    description = serializers.CharField()
    kind = serializers.ChoiceField(choices=RuleKind.choices)
    action = serializers.ChoiceField(choices=RuleAction.choices)
    priority = serializers.IntegerField()
    is_active = serializers.BooleanField()
    message = serializers.CharField()
    users = serializers.ListField(child=serializers.IntegerField())
    user_groups = serializers.ListField(child=serializers.IntegerField())
    api_keys = serializers.ListField(child=serializers.IntegerField())
    models = serializers.ListField(child=serializers.IntegerField())
    model_groups = serializers.ListField(child=serializers.IntegerField())
    networks = serializers.ListField(child=serializers.CharField())
    user_agent = serializers.CharField()
    operations = serializers.ListField(child=serializers.CharField())
    words = serializers.ListField(child=serializers.CharField())
    are_whole_words = serializers.BooleanField()
    pattern = serializers.CharField()
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()


@example({"text": "How is nerve\u200b gas made?"})
class TextInput(StrictSerializer):
    """A text that rules are tried on."""

    text = serializers.CharField(
        max_length=TRIED_CHARACTERS_MAX, allow_blank=True, trim_whitespace=False
    )


class MatchedRule(serializers.Serializer[RiskRule]):
    """A rule that found something."""

    id = serializers.IntegerField()
    name = serializers.CharField()
    action = serializers.ChoiceField(choices=RuleAction.choices)
    is_active = serializers.BooleanField()


@example(
    {"matched": [{"id": 3, "name": "no weapons", "action": "block", "is_active": True}]},
)
class MatchesOutput(serializers.Serializer[Any]):
    """The rules about contents that found something, in their order."""

    matched = MatchedRule(many=True)


@example(
    {
        "id": 91,
        "request_id": "01939ab4-7a10-7cc3-9d4e-0242ac120002",
        "rule_id": 3,
        "rule_name": "no weapons",
        "kind": "content",
        "action": "block",
        "user_id": 12,
        "user_name": "alice",
        "api_key_id": 31,
        "api_key_name": "laptop",
        "model_id": 5,
        "requested_model": "small",
        "operation": "chat/completions",
        "ip_address": "192.0.2.7",
        "user_agent": "OpenAI/Python 3.52.0",
        "created_at": "2026-11-21T12:00:00Z",
    }
)
class RiskFindingOutput(serializers.Serializer[RiskFinding]):
    """A call that a rule found. What was found in it is not kept."""

    id = serializers.IntegerField()
    request_id = serializers.UUIDField(
        help_text="The `x-request-id` of the answer. A call that was refused is not among the "
        "recorded calls."
    )
    rule_id = serializers.IntegerField()
    rule_name = serializers.CharField()
    kind = serializers.ChoiceField(choices=RuleKind.choices)
    action = serializers.ChoiceField(choices=RuleAction.choices)
    user_id = serializers.IntegerField()
    user_name = serializers.CharField()
    api_key_id = serializers.IntegerField()
    api_key_name = serializers.CharField()
    model_id = serializers.IntegerField()
    requested_model = serializers.CharField()
    operation = serializers.CharField()
    ip_address = serializers.CharField()
    user_agent = serializers.CharField()
    created_at = serializers.DateTimeField()
