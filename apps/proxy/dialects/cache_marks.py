"""Marks up to where a prompt is to be cached: `cache_control`, in whichever dialect it is known."""

from typing import Any

from apps.proxy.dialects.neutral import CacheMark
from apps.proxy.dialects.openai_refusals import wrong_value
from apps.proxy.dialects.parameters import Parameters


def read_cache_mark(holder: Parameters) -> CacheMark | None:
    """Return the mark of a part, a tool or a whole request."""
    given = holder.member("cache_control")
    if given is None:
        return None
    if given.require_text("type") != "ephemeral":
        raise wrong_value(given.name("type"), "ephemeral")
    lifetime = given.one_of("ttl", ("5m", "1h"))
    # For whom: only Anthropic's own API shares a cache, and only where a beta header asks for it.
    given.ignore("scope")
    given.finish()
    return CacheMark("1h") if lifetime == "1h" else CacheMark()


def cache_members(mark: CacheMark | None) -> dict[str, Any]:
    """Return the member that tells a mark, none where there is no mark."""
    if mark is None:
        return {}
    # Five minutes go without saying.
    lifetime = {} if mark.lifetime == "5m" else {"ttl": mark.lifetime}
    return {"cache_control": {"type": "ephemeral", **lifetime}}
