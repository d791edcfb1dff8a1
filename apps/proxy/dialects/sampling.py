"""Sampling parameters, for models that take none.

Sources: https://platform.openai.com/docs/guides/latest-model (of OpenAI's reasoning models) and
https://platform.claude.com/docs/en/about-claude/models/whats-new-claude-4-7 (from this one on)
"""

from typing import Final

from apps.proxy.dialects.neutral import Request, Target

# Parameters, and the value by which nothing is told that does not hold anyway.
_DEFAULTS: Final = {"temperature": 1, "top_p": 1, "top_k": None}


def without_defaults(request: Request, target: Target) -> Request:
    """Return a request that tells no sampling where the model takes none.

    Raises E14 for a value that would change anything.
    """
    if target.has_sampling:
        return request
    for field, default in _DEFAULTS.items():
        if getattr(request, field) not in (None, default):
            raise request.refuse(field)
    return request._replace(temperature=None, top_p=None)
