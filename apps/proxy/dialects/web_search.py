"""Searches of the web that a provider runs by itself, in each dialect's words.

Each is billed, so that a request which is converted allows no more of them than its hold covers:
Anthropic and OpenAI's Responses are told how many; Gemini up to 2.5 counts one a prompt, and
OpenAI's search models search once. Other models search as often as they like: they are not asked to
in another dialect's name (the extension `web_search` of a target).

Sources: https://platform.claude.com/docs/en/agents-and-tools/tool-use/web-search-tool,
https://platform.openai.com/docs/guides/tools-web-search and
https://ai.google.dev/gemini-api/docs/google-search
"""

from collections.abc import Mapping
from typing import Any, Final

from apps.proxy.dialects.cache_marks import read_cache_mark
from apps.proxy.dialects.gemini_parameters import GoogleParameters
from apps.proxy.dialects.neutral import Request, Target, WebSearch
from apps.proxy.dialects.openai_refusals import below_one, inexpressible, wrong_value
from apps.proxy.dialects.parameters import Parameters
from apps.proxy.dialects.parsed_request import WEB_SEARCHES_MAX

ANTHROPIC_TOOL: Final = "web_search_20250305"
ANTHROPIC_NAME: Final = "web_search"
RESPONSES_TOOL: Final = "web_search"
GOOGLE_TOOL: Final = "googleSearch"
CHAT_PARAMETER: Final = "web_search_options"
_EXTENSION: Final = "web_search"
_CONTEXT_SIZES: Final = ("low", "medium", "high")
# What holds where nothing is told.
_USUAL_SIZE: Final = "medium"
_APPROXIMATE: Final = "approximate"
_PLACES: Final = ("city", "country", "region", "timezone")


# ---- read


def read_anthropic_search(tool: Parameters) -> WebSearch:
    """Return a search that a client of Anthropic's asks for."""
    if tool.require_text("name") != ANTHROPIC_NAME:
        raise wrong_value(tool.name("name"), ANTHROPIC_NAME)
    maximum = _at_least_one(tool, "max_uses")
    found = WebSearch(
        at=tool.name("type"),
        searches_max=maximum,
        allowed_domains=tool.texts("allowed_domains"),
        blocked_domains=tool.texts("blocked_domains"),
        location=_read_place(tool.member("user_location")),
        names={
            "allowed_domains": tool.name("allowed_domains"),
            "blocked_domains": tool.name("blocked_domains"),
            "location": tool.name("user_location"),
            "searches_max": tool.name("max_uses"),
        },
    )
    # A mark for the cache on a tool of the provider's own has no equal, and changes no answer.
    read_cache_mark(tool)
    tool.ignore("allowed_callers", unless=(["direct"],))
    tool.ignore("defer_loading", unless=(False,))
    tool.finish()
    return found


def read_responses_search(tool: Parameters, given: Parameters) -> WebSearch:
    """Return a search that a client of OpenAI's Responses asks for, with its bound beside it."""
    filters = tool.member("filters")
    allowed = () if filters is None else filters.texts("allowed_domains")
    if filters is not None:
        filters.finish()
    found = WebSearch(
        at=tool.name("type"),
        searches_max=_at_least_one(given, "max_tool_calls"),
        allowed_domains=allowed,
        location=_read_place(tool.member("user_location")),
        context_size=_read_size(tool),
        names={
            "allowed_domains": f"{tool.name('filters')}.allowed_domains",
            "location": tool.name("user_location"),
            "searches_max": "max_tool_calls",
        },
    )
    # Without, only what OpenAI has kept of the web is searched.
    tool.ignore("external_web_access", unless=(True,))
    tool.finish()
    return found


def read_chat_search(given: Parameters) -> WebSearch | None:
    """Return a search that a client of OpenAI's Chat Completions asks for, None without one."""
    if given.take(CHAT_PARAMETER) is False:
        return None
    options = given.member(CHAT_PARAMETER)
    if options is None:
        return None
    place = options.member("user_location")
    found = WebSearch(
        at=CHAT_PARAMETER,
        location=None if place is None else _read_place(place, within=True),
        context_size=_read_size(options),
        names={"location": options.name("user_location")},
    )
    options.finish()
    return found


def read_google_search(tool: GoogleParameters) -> WebSearch | None:
    """Return a search that a client of Google's asks for, None without one."""
    search = tool.member(GOOGLE_TOOL)
    if search is None:
        return None
    search.finish()
    return WebSearch(at=tool.name(GOOGLE_TOOL))


def _at_least_one(given: Parameters, name: str) -> int | None:
    value = given.integer(name)
    if value is not None and value < 1:
        raise below_one(given.name(name))
    return value


def _read_size(given: Parameters) -> str:
    size = given.one_of("search_context_size", _CONTEXT_SIZES)
    return "" if size is None or size == _USUAL_SIZE else size


def _read_place(given: Parameters | None, *, within: bool = False) -> Mapping[str, str] | None:
    """Return where the client's user is, by the names that all who know of it share."""
    if given is None:
        return None
    kind = given.text("type")
    if kind not in (None, _APPROXIMATE):
        raise given.refuse("type")
    holder = given.require_object(_APPROXIMATE) if within else given
    told = {name: holder.text(name) for name in _PLACES}
    if within:
        holder.finish()
    given.finish()
    return {name: value for name, value in told.items() if value is not None} or None


def only_one(found: list[WebSearch]) -> WebSearch | None:
    """Return the search of a request, None without one. Raises E13 for a second one."""
    if len(found) > 1:
        raise wrong_value(found[1].at, "one tool that searches")
    return found[0] if found else None


# ---- written


def anthropic_search(request: Request) -> dict[str, Any] | None:
    """Return a tool of Anthropic's. Raises E14 for what it cannot be told."""
    search = _checked(request)
    if search is None:
        return None
    # What else would be called so, by the model and by the client.
    if any(tool.name == ANTHROPIC_NAME for tool in request.tools):
        raise inexpressible(search.at)
    members: dict[str, Any] = {
        "max_uses": search.searches_max or WEB_SEARCHES_MAX,
        "allowed_domains": list(search.allowed_domains),
        "blocked_domains": list(search.blocked_domains),
        "user_location": None
        if search.location is None
        else {"type": _APPROXIMATE, **search.location},
    }
    told = {name: value for name, value in members.items() if value}
    return {"type": ANTHROPIC_TOOL, "name": ANTHROPIC_NAME, **told}


def responses_search(request: Request) -> tuple[dict[str, Any], int] | None:
    """Return a tool of OpenAI's Responses, and how often tools like it may be used.

    Raises E14 for what it cannot be told.
    """
    search = _checked(request)
    if search is None:
        return None
    if search.blocked_domains:
        raise search.refuse("blocked_domains")
    told: dict[str, Any] = {"type": RESPONSES_TOOL}
    if search.allowed_domains:
        told["filters"] = {"allowed_domains": list(search.allowed_domains)}
    if search.context_size:
        told["search_context_size"] = search.context_size
    if search.location is not None:
        told["user_location"] = {"type": _APPROXIMATE, **search.location}
    return told, search.searches_max or WEB_SEARCHES_MAX


def chat_search(request: Request, target: Target) -> dict[str, Any] | None:
    """Return the options of OpenAI's Chat Completions. Raises E14 for what they cannot tell."""
    search = _checked(request)
    if search is None:
        return None
    _check_bounded(search, target)
    told: dict[str, Any] = {}
    if search.context_size:
        told["search_context_size"] = search.context_size
    if search.location is not None:
        told["user_location"] = {"type": _APPROXIMATE, _APPROXIMATE: dict(search.location)}
    return told


def google_search(request: Request, target: Target) -> dict[str, Any] | None:
    """Return a tool of Google's. Raises E14 for what it cannot be told."""
    search = _checked(request)
    if search is None:
        return None
    _check_bounded(search, target)
    if search.location is not None:
        raise search.refuse("location")
    if request.tools:
        # Those of its models whose searches have a bound do not search beside functions.
        raise inexpressible(search.at)
    return {GOOGLE_TOOL: {}}


def _checked(request: Request) -> WebSearch | None:
    """Return the search of a request. Raises E14 where it has to be made, or must not."""
    search, choice = request.web_search, request.tool_choice
    if search is not None and choice is not None and choice.mode != "auto":
        raise request.refuse("tool_choice")
    return search


def _check_bounded(search: WebSearch, target: Target) -> None:
    """Raise E14 for a model whose searches have no bound, and for what sets one to others."""
    if _EXTENSION not in target.extensions:
        raise inexpressible(search.at)
    for field in ("searches_max", "allowed_domains", "blocked_domains"):
        if getattr(search, field):
            raise search.refuse(field)
