"""Sampling parameters, for models that take none, or not all of them together.

Sources: https://platform.openai.com/docs/guides/latest-model (of OpenAI's reasoning models),
https://platform.claude.com/docs/en/about-claude/models/whats-new-claude-4-7 (from this one on) and
https://platform.claude.com/docs/en/build-with-claude/extended-thinking (while Claude thinks).
How many candidates there are (`top_k`) is a wish: where no parameter tells it, it is left out.
"""

from typing import Final

from apps.proxy.dialects.neutral import Request, Target

_TEMPERATURE: Final = 1
# From here on Anthropic calls it compatible with thinking; Google's clients say it with every turn.
_TOP_P_MIN: Final = 0.95


def with_sampling(request: Request, target: Target, *, is_thinking: bool) -> Request:
    """Return a request with no other sampling than the model takes.

    Raises E14 for a value that would change anything.
    """
    if target.sampling == "none" or (target.sampling == "resting" and is_thinking):
        return _without_top_p(_without_temperature(request))._replace(top_k=None)
    if target.sampling == "one" and None not in (request.temperature, request.top_p):
        if request.temperature == _TEMPERATURE:
            return _without_temperature(request)
        return _without_top_p(request)
    return request


def with_sampling_of_thought(request: Request) -> Request:
    """Return a request with no other sampling than Claude takes while it thinks.

    Raises E14 for a value that would change anything.
    """
    _without_top_p(request)
    return _without_temperature(request)._replace(top_k=None)


def _without_temperature(request: Request) -> Request:
    if request.temperature not in (None, _TEMPERATURE):
        raise request.refuse("temperature")
    return request._replace(temperature=None)


def _without_top_p(request: Request) -> Request:
    if request.top_p is not None and request.top_p < _TOP_P_MIN:
        raise request.refuse("top_p")
    return request._replace(top_p=None)
