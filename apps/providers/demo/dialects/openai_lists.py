"""What answers with a list in OpenAI's dialect: embeddings, moderations, rankings, models."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, Final

import orjson

from apps.providers.demo.answers import CREATED, Answer, Endpoint
from apps.providers.demo.building import MODELS, build_fixed, read_count
from apps.providers.demo.dialects.openai_request import count_input, list_inputs
from apps.providers.demo.errors import ProviderError
from apps.providers.demo.vectors import DIMENSIONS, DIMENSIONS_MAX, embed

if TYPE_CHECKING:
    from apps.providers.demo.dialects.dialect import DemoDialect, Incoming

# The member that has the list.
LISTS: Final = {
    Endpoint.EMBEDDING: "data",
    Endpoint.MODERATION: "results",
    Endpoint.RERANK: "results",
}


def answer_list(dialect: DemoDialect, incoming: Incoming) -> Answer:
    """Return the answer of an endpoint that says nothing. Raises ProviderError."""
    match incoming.endpoint:
        case Endpoint.EMBEDDING:
            return _answer_embeddings(dialect, incoming)
        case Endpoint.MODERATION:
            return _answer_moderations(dialect, incoming)
        case Endpoint.RERANK:
            return _answer_ranking(dialect, incoming)
        case _:
            return _answer_models(dialect, incoming)


def _answer_embeddings(dialect: DemoDialect, incoming: Incoming) -> Answer:
    body = incoming.body
    inputs = list_inputs(body.get("input"), "input")
    dimensions = read_count(body, "dimensions", DIMENSIONS_MAX) or DIMENSIONS
    encoding = body.get("encoding_format", "float")
    if encoding not in {"float", "base64"}:
        raise ProviderError(400, "Invalid 'encoding_format'.", param="encoding_format")
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": _write_vector(item, dimensions, is_base64=encoding == "base64"),
        }
        for index, item in enumerate(inputs)
    ]
    prompt = _choose_prompt(incoming, sum(count_input(item) for item in inputs))
    return build_fixed(dialect, incoming, orjson.dumps(data), prompt=prompt, has_usage=True)


def _write_vector(item: Any, dimensions: int, *, is_base64: bool) -> list[float] | str:
    vector = embed(item, dimensions)
    return base64.b64encode(vector.tobytes()).decode() if is_base64 else vector.tolist()


def _choose_prompt(incoming: Incoming, counted: int) -> int:
    wanted = incoming.options.prompt
    return wanted if wanted is not None else max(1, counted)


def _answer_moderations(dialect: DemoDialect, incoming: Incoming) -> Answer:
    """Flag whatever says so. OpenAI reports no usage here."""
    value = incoming.body.get("input")
    inputs = value if isinstance(value, list) else [value]
    results = [
        {
            "flagged": "flag" in str(item),
            "categories": {"demo": "flag" in str(item)},
            "category_scores": {"demo": 0.99 if "flag" in str(item) else 0.01},
        }
        for item in inputs
    ]
    return build_fixed(dialect, incoming, orjson.dumps(results))


def _answer_ranking(dialect: DemoDialect, incoming: Incoming) -> Answer:
    """Rank by how many words of the query a document has; report a total alone, as Jina does."""
    body = incoming.body
    query, documents = body.get("query"), body.get("documents")
    if not isinstance(query, str) or not isinstance(documents, list) or not documents:
        raise ProviderError(400, "A query and documents are needed.", param="documents")
    words = set(query.lower().split())
    texts = [str(item.get("text")) if isinstance(item, dict) else str(item) for item in documents]
    shares = [len(words & set(text.lower().split())) / max(1, len(words)) for text in texts]
    order = sorted(range(len(texts)), key=lambda index: -shares[index])
    count = read_count(body, "top_n") or len(texts)
    results = [{"index": index, "relevance_score": shares[index]} for index in order[:count]]
    counted = sum(count_input(query) + count_input(text) for text in texts)
    prompt = _choose_prompt(incoming, counted)
    return build_fixed(dialect, incoming, orjson.dumps(results), prompt=prompt, has_usage=True)


def _answer_models(dialect: DemoDialect, incoming: Incoming) -> Answer:
    names = [incoming.model] if incoming.model else list(MODELS)
    entries = [
        {"id": name, "object": "model", "created": CREATED, "owned_by": "demo"} for name in names
    ]
    body = entries[0] if incoming.model else {"object": "list", "data": entries}
    return build_fixed(dialect, incoming, orjson.dumps(body))
