"""Embeddings between OpenAI's dialect and Google's: texts in, one vector for each out.

They are no conversation, and have a neutral form of their own: what is to be read, and how long a
vector is to be. Google's batch is asked also for one text, so that there is one form of answer.

Sources: https://platform.openai.com/docs/api-reference/embeddings and
https://ai.google.dev/api/embeddings
"""

import struct
from base64 import b64decode, b64encode
from binascii import Error as NoBase64
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import orjson

from apps.core.errors import GatewayError
from apps.proxy.dialects.answer_conversion import AnswerConverter
from apps.proxy.dialects.conversion import Reply
from apps.proxy.dialects.gemini_embedding import TEXTS_MAX
from apps.proxy.dialects.gemini_parameters import GoogleParameters
from apps.proxy.dialects.metered_answer import MeteredAnswer
from apps.proxy.dialects.neutral import Target
from apps.proxy.dialects.openai_refusals import inexpressible, missing, wrong_type
from apps.proxy.dialects.parameters import Parameters

_FORMATS: Final = ("float", "base64")
# Of a number in base64, which is OpenAI's: four bytes, the lowest first.
_FLOAT_BYTES: Final = 4

Vector = list[float]


class Embedding(NamedTuple):
    """What is to be made vectors of."""

    texts: tuple[str, ...]
    texts_at: str  # the client's parameter that holds them
    dimensions: int | None  # of each vector; None: as many as the model makes
    is_base64: bool = False  # how the client wants them written
    is_single: bool = False  # it is told one vector, and no list


class _Told(NamedTuple):
    """What a client is told."""

    vectors: list[Vector]  # in the order of the texts
    tokens: int  # that were read
    model: str  # by the client's name
    asked: Embedding


class _EmbeddingConverter(NamedTuple):
    read_request: Callable[[Mapping[str, Any]], Embedding]  # raises E13 and E14
    write_request: Callable[[Embedding, Target], dict[str, Any]]  # raises E14
    read_vectors: Callable[[Mapping[str, Any]], list[Vector]]  # raises E49
    write_answer: Callable[[_Told], dict[str, Any]]


# ---- requests


def read_embedding(dialect: str, body: Mapping[str, Any]) -> Embedding:
    """Return what a client asks for. Raises E13 and E14 with the parameter at fault."""
    return _DIALECTS[dialect].read_request(body)


def write_embedding(dialect: str, asked: Embedding, target: Target) -> dict[str, Any]:
    """Return the body to send. Raises E14 with the client's name of what cannot be said."""
    if dialect not in _DIALECTS:
        raise not_answered_here()
    return _DIALECTS[dialect].write_request(asked, target)


def not_answered_here() -> GatewayError:
    """Return the refusal where no provider has anything like the endpoint."""
    message = "The providers of this model cannot answer at this endpoint."
    return GatewayError("E14", param="model", message=message)


def _read_openai(body: Mapping[str, Any]) -> Embedding:
    given = Parameters(body)
    given.require_text("model")
    found = given.take("input")
    texts = [found] if isinstance(found, str) else found
    if not texts:
        raise missing("input")
    if not isinstance(texts, list):
        raise wrong_type("input", "a string or an array of strings")
    if not all(isinstance(text, str) for text in texts):
        # The tokens of one vocabulary mean nothing in another one.
        raise inexpressible("input")
    asked = Embedding(
        texts=tuple(texts),
        texts_at="input",
        dimensions=given.integer("dimensions"),
        is_base64=given.one_of("encoding_format", _FORMATS) == "base64",
    )
    # Who the client's own user is: Google does not ask for it.
    given.ignore("user")
    given.finish()
    return asked


def _read_google(body: Mapping[str, Any]) -> Embedding:
    given = GoogleParameters(body)
    given.ignore("model")
    requests = given.objects("requests")
    read = [_read_content(one) for one in requests or (given,)]
    if requests:
        given.finish()
    texts, dimensions, places = zip(*read, strict=True)
    for length, place in zip(dimensions, places, strict=True):
        if length != dimensions[0]:
            # Vectors of one request are of one length.
            raise inexpressible(place)
    at = "requests" if requests else "content"
    return Embedding(texts, at, dimensions[0], is_single=not requests)


def _read_content(given: GoogleParameters) -> tuple[str, int | None, str]:
    """Return a text, how long its vector is to be, and by which parameter that is told."""
    content = given.require_object("content")
    text = "".join(part.require_text("text") for part in _finished(content.objects("parts")))
    content.ignore("role")
    content.finish()
    given.ignore("model")
    dimensions: int | None = None
    place = given.name("outputDimensionality")
    for holder in (given, given.member("embedContentConfig")):
        if holder is None:
            continue
        told = holder.integer("outputDimensionality")
        if told is not None and dimensions not in (None, told):
            raise inexpressible(holder.name("outputDimensionality"))
        if told is not None:
            dimensions, place = told, holder.name("outputDimensionality")
        # OpenAI's models make one vector for all tasks.
        holder.ignore("taskType")
        holder.finish()
    return text, dimensions, place


def _finished(parts: Sequence[GoogleParameters]) -> Sequence[GoogleParameters]:
    for part in parts:
        part.ignore("text")
        part.finish()
    return parts


def _write_openai(asked: Embedding, target: Target) -> dict[str, Any]:
    read: str | list[str] = asked.texts[0] if asked.is_single else list(asked.texts)
    body: dict[str, Any] = {"model": target.model, "input": read}
    if asked.dimensions is not None:
        body["dimensions"] = asked.dimensions
    return body


def _write_google(asked: Embedding, target: Target) -> dict[str, Any]:
    if len(asked.texts) > TEXTS_MAX:
        raise inexpressible(asked.texts_at)
    length = {} if asked.dimensions is None else {"outputDimensionality": asked.dimensions}
    requests = [{"content": {"parts": [{"text": text}]}, **length} for text in asked.texts]
    return {"model": target.model, "requests": requests}


# ---- answers


class EmbeddingConverter(AnswerConverter):
    """Converts one answer with vectors. The names are those of dialects."""

    __slots__ = ("_asked", "_from", "_model", "_to")

    def __init__(self, upstream: str, client: str, reply: Reply) -> None:
        super().__init__(upstream, client, reply)
        self._from, self._to = _DIALECTS[upstream], _DIALECTS[client]
        self._asked = self._to.read_request(reply.asked)
        self._model = str(reply.asked["model"])

    def convert_metered(self, found: MeteredAnswer) -> bytes:
        """Return a whole answer. Raises E49 where it has not one vector for each text."""
        vectors = self._from.read_vectors(found.document)
        if len(vectors) != len(self._asked.texts):
            raise GatewayError("E49")
        tokens = 0 if found.usage is None else found.usage.input_tokens
        told = _Told(vectors, tokens, self._model, self._asked)
        return orjson.dumps(self._to.write_answer(told))


def _read_openai_vectors(document: Mapping[str, Any]) -> list[Vector]:
    found: dict[int, Vector] = {}
    for position, item in enumerate(document["data"]):
        index = item.get("index", position)
        if type(index) is not int or index in found:
            raise GatewayError("E49")
        found[index] = _vector(item.get("embedding"))
    if sorted(found) != list(range(len(found))):
        raise GatewayError("E49")
    return [found[index] for index in range(len(found))]


def _read_google_vectors(document: Mapping[str, Any]) -> list[Vector]:
    return [_vector(item["values"]) for item in document["embeddings"]]


def _vector(value: object) -> Vector:
    """Return a vector, written as numbers or as OpenAI's base64. Raises E49."""
    if isinstance(value, str):
        try:
            raw = b64decode(value, validate=True)
            return list(struct.unpack(f"<{len(raw) // _FLOAT_BYTES}f", raw))
        except (NoBase64, struct.error) as error:
            raise GatewayError("E49") from error
    if not isinstance(value, list) or not all(type(item) in (int, float) for item in value):
        raise GatewayError("E49")
    return value


def _write_openai_answer(told: _Told) -> dict[str, Any]:
    return {
        "object": "list",
        "data": [
            {
                "object": "embedding",
                "index": index,
                "embedding": _base64(vector) if told.asked.is_base64 else vector,
            }
            for index, vector in enumerate(told.vectors)
        ],
        "model": told.model,
        "usage": {"prompt_tokens": told.tokens, "total_tokens": told.tokens},
    }


def _base64(vector: Vector) -> str:
    """Return a vector as OpenAI's base64. Raises E49 where a number is beyond its four bytes."""
    try:
        return b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode("ascii")
    except OverflowError as error:
        raise GatewayError("E49") from error


def _write_google_answer(told: _Told) -> dict[str, Any]:
    written = [{"values": vector} for vector in told.vectors]
    held = {"embedding": written[0]} if told.asked.is_single else {"embeddings": written}
    return {**held, "usageMetadata": {"promptTokenCount": told.tokens}}


_DIALECTS: Final[dict[str, _EmbeddingConverter]] = {
    "gemini": _EmbeddingConverter(
        _read_google, _write_google, _read_google_vectors, _write_google_answer
    ),
    "openai": _EmbeddingConverter(
        _read_openai, _write_openai, _read_openai_vectors, _write_openai_answer
    ),
}
