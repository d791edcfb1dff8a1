"""What a route's overrides may not touch is what admission looks at."""

from __future__ import annotations

from apps.ai_models.overrides import PROTECTED_PARAMETERS, PROTECTED_PREFIXES
from apps.proxy.dialects import openai_request


def test_all_that_admission_looks_at_is_protected() -> None:
    looked_at = openai_request._METERED | openai_request._UNSUPPORTED | openai_request._REMOVED

    assert looked_at - PROTECTED_PARAMETERS == set()
    assert set(openai_request.OUTPUT_PARAMETERS) <= PROTECTED_PARAMETERS
    assert openai_request._REMOVED_PREFIXES == PROTECTED_PREFIXES
