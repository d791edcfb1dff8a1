"""What the routes of a call are sent: the client's own body, or what it is converted into. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from apps.core.errors import GatewayError
from apps.proxy.dialects.conversion import DIALECTS, read_bounded
from apps.proxy.dialects.embedding_conversion import (
    not_answered_here,
    read_embedding,
    write_embedding,
)
from apps.proxy.dialects.neutral import Target
from apps.proxy.dialects.parsed_request import EMBEDDING_ENDPOINTS, ParsedRequest
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


def get_bodies(request: ParsedRequest, routes: Sequence[Route], output_bound: int) -> RouteBodies:
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
        write = _read(request)
    except GatewayError:
        if not own:
            raise
        return RouteBodies(own, NOT_CONVERTED)
    for route in routes:
        if route in own:
            continue
        dialect = PROVIDERS[route.provider.dialect]
        try:
            target = route.target
            if request.output_tokens_asked is None and dialect.needs_maximum:
                target = target._replace(output_cap=output_bound)
            converted[route.id] = write(route.provider.dialect, target)
        except GatewayError as error:
            refusal = refusal or error
    usable = [route for route in routes if route in own or route.id in converted]
    if refusal is not None and not usable:
        raise refusal
    return RouteBodies(usable, converted)


def _read(request: ParsedRequest) -> Callable[[str, Target], dict[str, Any]]:
    """Return what writes a request in another dialect. Raises E13 and E14."""
    if request.endpoint in EMBEDDING_ENDPOINTS:
        wanted = read_embedding(request.dialect, request.body)
        return lambda dialect, target: write_embedding(dialect, wanted, target)
    if request.endpoint not in _CONVERTIBLE:
        raise not_answered_here()
    asked = read_bounded(request.dialect, request.body)
    return lambda dialect, target: DIALECTS[dialect].write_request(asked, target)
