"""Paths: risk rules and what they found."""

from __future__ import annotations

from apps.core.routes import rest_path
from apps.risk.api import RiskFindingsView, RiskRulesTestView, RiskRulesView, RiskRuleView

urlpatterns = [
    rest_path("admin/risk-findings", RiskFindingsView),
    rest_path("admin/risk-rules", RiskRulesView),
    rest_path("admin/risk-rules/test", RiskRulesTestView),
    rest_path("admin/risk-rules/{id:risk_rule_id}", RiskRuleView),
]
