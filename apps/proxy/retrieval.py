"""Gives stored answers to who owns them, and deletes them: both are asked of the provider.

Nothing is held, charged or recorded; a question counts as a request in the limits of its caller.
A provider is not blamed for what it answers here.

Bounds: OPEN_MAX questions at once in a process, SECONDS for one, ANSWER_BYTES_MAX of an answer.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import parse_qsl, urlencode

from django.db import DatabaseError, InterfaceError

from apps.core.errors import GatewayError
from apps.proxy.dialects.openai_refusals import unsupported
from apps.proxy.dialects.upstream_errors import upstream_error
from apps.proxy.http_client import Answer, BadAnswer, ConnectFailed, ConnectionClosed
from apps.proxy.operations import Operation
from apps.proxy.snapshot import Caller, Credential, Route, Snapshot
from apps.proxy.stored_answers import Place, forget, list_places
from apps.proxy.upstream import (
    ANSWER_BYTES_MAX,
    ERROR_BYTES_MAX,
    encoding_of,
    failure_of,
    is_unanswered,
    read_limited,
)

if TYPE_CHECKING:
    from apps.proxy.gateway import Gateway
    from apps.proxy.weight import Weight

SECONDS: Final = 60.0
OPEN_MAX: Final = 16
_NOT_FOUND: Final = 404
# What may be asked of a response, and of its input. OpenAI streams again (`stream` and
# `starting_after`) only what was made in the background, which is refused when it is to be made:
# nobody would be told what it cost.
# Sources: https://platform.openai.com/docs/api-reference/responses and
# https://platform.openai.com/docs/guides/background
_PARAMETERS: Final = {
    "stored": frozenset({"include", "include[]"}),
    "stored_input": frozenset({"after", "before", "include", "include[]", "limit", "order"}),
}
_VALUE: Final = re.compile(r"[A-Za-z0-9_.-]{1,256}", re.ASCII)
_VALUES_MAX: Final = 20
_DIALECT: Final = "openai-responses"
_BROKEN: Final = (ConnectFailed, ConnectionClosed, BadAnswer)

logger = logging.getLogger(__name__)


class Question(NamedTuple):
    """What is asked of a provider about an answer that it keeps."""

    method: str
    response_id: str
    path: str  # below the base URL, with its query


def read_question(operation: Operation, method: str, query: bytes) -> Question:
    """Return what a client asks about a stored answer. Raises E14 for parameters that do not go on.

    A deletion has none.
    """
    allowed = _PARAMETERS[operation.kind] if method == "GET" else frozenset()
    asked: list[tuple[str, str]] = []
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, max_num_fields=_VALUES_MAX)
    except ValueError:
        raise unsupported("query") from None
    for name, value in pairs:
        if name == "stream" and value.lower() == "false":
            continue  # As without it.
        if name not in allowed or _VALUE.fullmatch(value) is None:
            raise unsupported(name)
        asked.append((name, value))
    below = f"responses/{operation.response_id}"
    if operation.kind == "stored_input":
        below += "/input_items"
    path = f"{below}?{urlencode(asked)}" if asked else below
    return Question(method, operation.response_id, path)


async def ask_provider(
    gateway: Gateway,
    snapshot: Snapshot,
    caller: Caller,
    question: Question,
    request_text: str,
    weight: Weight,
) -> bytes:
    """Return what the provider that keeps an answer says of it; `weight` has room for that.

    Raises E09 where the answer is not there for this caller, E34, E37, and E40 to E52 as the
    provider fails.
    """
    user_id, response_id = caller.member.id, question.response_id
    places = await list_places(gateway, user_id, (response_id,))
    door = find_door(snapshot, places.get(response_id, {}))
    if door is None:
        raise _missing(response_id)
    if gateway.retrievals >= OPEN_MAX:
        raise GatewayError("E37")
    gateway.retrievals += 1
    try:
        async with asyncio.timeout(SECONDS):
            body = await _ask(gateway, door, question, request_text, weight)
    except TimeoutError as error:
        raise GatewayError("E48") from error
    finally:
        gateway.retrievals -= 1
    if question.method == "DELETE":
        await _forget(gateway, user_id, response_id)
    if body is None:
        raise _missing(response_id)
    return body


def find_door(snapshot: Snapshot, places: Mapping[Place, int]) -> tuple[Route, Credential] | None:
    """Return a way to one of these places, None without any: a route of the model that answered,
    which may have headers of its own, else of any other.
    """
    found: tuple[Route, Credential] | None = None
    for model in snapshot.catalogue.models.values() if places else ():
        for route in model.routes:
            provider = route.provider
            if provider.dialect != _DIALECT:
                continue
            for credential in provider.credentials:
                model_id = places.get(Place(provider.id, credential.id))
                if model_id == model.id:
                    return route, credential
                if model_id is not None:
                    found = found or (route, credential)
    return found


async def _ask(
    gateway: Gateway,
    door: tuple[Route, Credential],
    question: Question,
    request_text: str,
    weight: Weight,
) -> bytes | None:
    """Return the provider's answer, None where it has nothing under that id."""
    for is_last in (False, True):
        answer: Answer | None = None
        try:
            route, credential = door
            answer = await gateway.upstream.send(
                route,
                credential,
                path=question.path,
                body=b"",
                request_id=request_text,
                method=question.method,
                is_anew=is_last,
            )
            return await _read(answer, credential, weight)
        except (*_BROKEN, OSError) as error:
            if isinstance(error, TimeoutError):
                raise
            failure = failure_of(error, answer.status if answer else None)
            failure.__cause__ = error
            if is_last or not is_unanswered(failure):
                raise failure.error from error
        finally:
            if answer is not None:
                answer.release()
    raise AssertionError("the last try returns or raises")


async def _read(answer: Answer, credential: Credential, weight: Weight) -> bytes | None:
    if answer.status == _NOT_FOUND:
        return None
    if answer.status != 200:
        body = await read_limited(answer, ERROR_BYTES_MAX)
        secret = answer.sent_secret or credential.secret
        body = body.replace(secret.encode(), b"[redacted]")
        raise upstream_error(answer.status, answer.text_headers(), body)
    kind = answer.header(b"content-type").partition(";")[0].strip().lower()
    if kind != "application/json" or encoding_of(answer):
        raise GatewayError("E49")
    return await read_limited(answer, ANSWER_BYTES_MAX, reserve=weight.reserve_answer)


async def _forget(gateway: Gateway, user_id: int, response_id: str) -> None:
    """Delete the row of an answer that is gone. Where that fails, it ends by its time."""
    try:
        await gateway.read(forget, user_id, response_id)
    except (DatabaseError, InterfaceError) as error:
        logger.warning("the row of a deleted answer is left: %s", type(error).__name__)


def _missing(response_id: str) -> GatewayError:
    message = f"Response with id '{response_id}' not found."
    return GatewayError("E09", code="response_not_found", message=message)
