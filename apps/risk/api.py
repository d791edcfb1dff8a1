"""Risk rules and findings over REST."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import generics, serializers
from rest_framework.request import Request
from rest_framework.response import Response

from apps.core.pages import NewestNumbersFirst
from apps.core.rest import actor_of
from apps.risk.changes import RuleInvalid, change_rule, create_rule, remove_rule, try_rules
from apps.risk.filters import RiskFindingFilterSet, RiskRuleFilterSet
from apps.risk.models import RiskFinding, RiskRule
from apps.risk.serializers import (
    MatchesOutput,
    RiskFindingOutput,
    RiskRuleInput,
    RiskRuleOutput,
    TextInput,
)
from apps.users.permissions import AnalystsRead, ViewersRead


class RiskRulesView(generics.ListAPIView[RiskRule]):
    """Risk rules."""

    queryset = RiskRule.objects.order_by("priority", "id")
    serializer_class = RiskRuleOutput
    permission_classes = (ViewersRead,)
    filterset_class = RiskRuleFilterSet

    @extend_schema(operation_id="admin_risk_rules_list", summary="List risk rules")
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Return rules in the order in which they are looked at."""
        return super().get(request, *args, **kwargs)

    @extend_schema(
        request=RiskRuleInput,
        responses={201: RiskRuleOutput},
        operation_id="admin_risk_rules_create",
        summary="Add a risk rule",
    )
    def post(self, request: Request) -> Response:
        """Add a rule; gateways go by it within two seconds.

        There are at most 100 (409 `too_many_risk_rules`).
        """
        given = RiskRuleInput(data=request.data)
        given.is_valid(raise_exception=True)
        try:
            rule = create_rule(
                values=given.validated_data, actor=actor_of(request), request=request._request
            )
        except RuleInvalid as error:
            raise _explain(error) from error
        return Response(RiskRuleOutput(rule).data, status=201)


class RiskRuleView(generics.GenericAPIView[RiskRule]):
    """One risk rule."""

    queryset = RiskRule.objects.all()
    serializer_class = RiskRuleOutput
    permission_classes = (ViewersRead,)
    lookup_url_kwarg = "risk_rule_id"
    filter_backends = ()

    @extend_schema(operation_id="admin_risk_rules_retrieve", summary="Show a risk rule")
    def get(self, request: Request, risk_rule_id: str) -> Response:
        """Return the rule."""
        return Response(RiskRuleOutput(self.get_object()).data)

    @extend_schema(
        request=RiskRuleInput,
        responses=RiskRuleOutput,
        operation_id="admin_risk_rules_replace",
        summary="Change a risk rule",
    )
    def put(self, request: Request, risk_rule_id: str) -> Response:
        """Set the fields that are given; the others keep their values."""
        return self._change(request, is_partial=False)

    @extend_schema(
        request=RiskRuleInput,
        responses=RiskRuleOutput,
        operation_id="admin_risk_rules_update",
        summary="Change some fields of a risk rule",
    )
    def patch(self, request: Request, risk_rule_id: str) -> Response:
        """Set the fields that are given, as PUT does, without requiring any."""
        return self._change(request, is_partial=True)

    @extend_schema(
        responses={204: None},
        operation_id="admin_risk_rules_delete",
        summary="Delete a risk rule",
    )
    def delete(self, request: Request, risk_rule_id: str) -> Response:
        """Delete the rule; what it found stays on record."""
        remove_rule(rule=self.get_object(), actor=actor_of(request), request=request._request)
        return Response(status=204)

    def _change(self, request: Request, *, is_partial: bool) -> Response:
        rule = self.get_object()
        given = RiskRuleInput(rule, data=request.data, partial=is_partial)
        given.is_valid(raise_exception=True)
        try:
            changed = change_rule(
                rule=rule,
                values=given.validated_data,
                actor=actor_of(request),
                request=request._request,
            )
        except RuleInvalid as error:
            raise _explain(error) from error
        return Response(RiskRuleOutput(changed).data)


class RiskRulesTestView(generics.GenericAPIView[RiskRule]):
    """Rules tried on a text."""

    queryset = RiskRule.objects.none()
    serializer_class = TextInput
    permission_classes = (ViewersRead,)
    pagination_class = None
    filter_backends = ()

    @extend_schema(
        request=TextInput,
        responses=MatchesOutput,
        operation_id="admin_risk_rules_test",
        summary="Try risk rules on a text",
    )
    def post(self, request: Request) -> Response:
        """Return which rules about contents find something in a text, active or not.

        Whom a rule concerns does not matter here. Nothing is noted.
        """
        given = TextInput(data=request.data)
        given.is_valid(raise_exception=True)
        matched = try_rules(given.validated_data["text"])
        return Response(MatchesOutput({"matched": matched}).data)


@extend_schema_view(
    get=extend_schema(operation_id="admin_risk_findings_list", summary="List what risk rules found")
)
class RiskFindingsView(generics.ListAPIView[RiskFinding]):
    """List calls that rules refused or noted, newest first.

    Of one key and rule 20 a minute are kept, of all together 1000 a minute by each gateway; how
    many calls were refused is counted exactly (see `refusals`). Kept for 90 days.
    """

    queryset = RiskFinding.objects.all()
    serializer_class = RiskFindingOutput
    pagination_class = NewestNumbersFirst
    filterset_class = RiskFindingFilterSet
    permission_classes = (AnalystsRead,)


def _explain(error: RuleInvalid) -> serializers.ValidationError:
    return serializers.ValidationError({error.field: [str(error)]})
