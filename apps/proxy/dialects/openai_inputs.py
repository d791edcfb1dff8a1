"""What is read and not answered with text: the inputs of embeddings, moderations and rerank."""

from collections.abc import Mapping
from typing import Any, Final

from apps.proxy.dialects.media_sources import check_addresses
from apps.proxy.dialects.openai_refusals import missing, unsupported, wrong_type, wrong_value

INPUTS_MAX: Final = 2048
# What OpenAI takes where a request for a moderation names no model.
MODERATION_MODEL: Final = "omni-moderation-latest"


def count_inputs(body: Mapping[str, Any], name: str) -> int:
    """Return the number of prompts: a string or token ids are one, arrays of them are many."""
    value = body.get(name)
    if value is None:
        raise missing(name)
    if isinstance(value, str):
        return 1
    if not isinstance(value, list):
        raise wrong_type(name, "a string or an array")
    if not value:
        raise wrong_value(name, "at least one element")
    if all(type(item) is int for item in value):
        return 1
    is_strings = all(isinstance(item, str) for item in value)
    is_tokens = all(
        isinstance(item, list) and all(type(token) is int for token in item) for item in value
    )
    if not is_strings and not is_tokens:
        raise wrong_type(name, "a string, an array of strings or an array of token arrays")
    _check_number(name, value)
    return len(value)


def check_moderation(body: Mapping[str, Any]) -> bool:
    """Check what is to be moderated, and return whether images are among it."""
    value = body.get("input")
    if value is None:
        raise missing("input")
    if isinstance(value, str):
        return False
    if not isinstance(value, list):
        raise wrong_type("input", "a string or an array")
    if not value:
        raise wrong_value("input", "at least one element")
    _check_number("input", value)
    if all(isinstance(item, str) for item in value):
        return False
    has_images = False
    for index, part in enumerate(value):
        if not isinstance(part, dict):
            raise wrong_type("input", "a string, an array of strings or an array of objects")
        kind = part.get("type")
        if kind not in ("text", "image_url"):
            raise wrong_value(f"input[{index}].type", "text or image_url")
        check_addresses(part, f"input[{index}]")
        has_images = has_images or kind == "image_url"
    return has_images


def check_rerank(body: Mapping[str, Any]) -> None:
    """Check what is to be ranked by what: texts by a text. Raises E14 for anything but texts."""
    query = body.get("query")
    if query is None:
        raise missing("query")
    if not isinstance(query, str):
        raise wrong_type("query", "a string")
    documents = body.get("documents")
    if documents is None:
        raise missing("documents")
    if not isinstance(documents, list):
        raise wrong_type("documents", "an array")
    if not documents:
        raise wrong_value("documents", "at least one document")
    _check_number("documents", documents)
    for index, document in enumerate(documents):
        if isinstance(document, str):
            continue
        if not isinstance(document, dict):
            raise wrong_type(f"documents[{index}]", "a string or an object")
        if not all(isinstance(value, str) for value in document.values()):
            raise wrong_type(f"documents[{index}]", "an object of strings")
        if "text" not in document:
            # An image, which is billed by what is in it.
            raise unsupported(f"documents[{index}]")


def _check_number(name: str, values: list[Any]) -> None:
    if len(values) > INPUTS_MAX:
        raise wrong_value(name, f"at most {INPUTS_MAX} elements")
