"""What the routes of a call are sent: the client's own body, or what it is converted into. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from apps.core.errors import GatewayError
from apps.proxy.dialects.conversion import DIALECTS
from apps.proxy.dialects.parsed_request import ParsedRequest
from apps.proxy.dialects.providers import PROVIDERS
from apps.proxy.snapshot import Route

NOT_CONVERTED: Final[Mapping[int, dict[str, Any]]] = {}
# Which requests can be said in another dialect.
_CONVERTIBLE: Final = frozenset({"chat/completions", "generateContent", "messages", "responses"})


class RouteBodies(NamedTuple):
    """The routes that a request can be sent on, and what it is converted into, by route."""

    routes: Sequence[Route]
    converted: Mapping[int, dict[str, Any]]


def is_own(route: Route, request: ParsedRequest) -> bool:
    """Return whether a route takes a request as it is."""
    provider = PROVIDERS[route.provider.dialect]
    return route.provider.dialect == request.dialect and request.endpoint in provider.endpoints


def find_bodies(request: ParsedRequest, routes: Sequence[Route], output_bound: int) -> RouteBodies:
    """Return what each route is sent; those are left out whose dialect cannot express it.

    `output_bound` is the most that may be written, which some dialects have to be told.

    Raises E13 and E14 where that leaves none, with the parameter at fault.
    """
    own = [route for route in routes if is_own(route, request)]
    if len(own) == len(routes):
        return RouteBodies(routes, NOT_CONVERTED)  # The usual request.
    refusal: GatewayError | None = None
    converted: dict[int, dict[str, Any]] = {}
    try:
        if request.endpoint not in _CONVERTIBLE:
            message = "The providers of this model cannot answer at this endpoint."
            raise GatewayError("E14", param="model", message=message)
        asked = DIALECTS[request.dialect].read_request(request.body)
    except GatewayError:
        if not own:
            raise
        return RouteBodies(own, NOT_CONVERTED)
    for route in routes:
        if route in own:
            continue
        dialect = PROVIDERS[route.provider.dialect]
        try:
            write = DIALECTS[route.provider.dialect].write_request
            target = route.target
            if request.output_tokens_asked is None and dialect.needs_maximum:
                target = target._replace(output_cap=output_bound)
            converted[route.id] = write(asked, target)
        except GatewayError as error:
            refusal = refusal or error
    usable = [route for route in routes if route in own or route.id in converted]
    if refusal is not None and not usable:
        raise refusal
    return RouteBodies(usable, converted)
