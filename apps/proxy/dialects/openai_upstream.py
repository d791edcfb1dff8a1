"""Requests to a server of OpenAI's dialect: the body that is sent, and what of it can be read."""

from collections.abc import Mapping
from typing import Any, Final

from apps.core.parameter_names import folded
from apps.proxy.dialects.media_sources import image_url_length, is_bounded_sound
from apps.proxy.dialects.openai_request import OUTPUT_PARAMETERS
from apps.proxy.dialects.parsed_request import Endpoint
from apps.proxy.json_body import serialise

# Providers wrap tool definitions into a prompt of their own, of a few hundred tokens.
TOOLS_PROMPT_TOKENS: Final = 1024
# The marks of a chat template around an almost empty request.
TEMPLATE_TOKENS: Final = 64
# By which a request may ask for several texts to be read, each with a context of its own. A server
# may know more of these names than its endpoint documents.
_PROMPTS: Final = ("prompt", "input", "documents")


def input_tokens_bound(
    endpoint: Endpoint,
    body: Mapping[str, Any],
    serialised: bytes,
    context_length: int,
    image_tokens_max: int,
) -> int:
    """Return a number of tokens that the input of this request cannot exceed.

    A token is at least one byte of text, and no model reads more than its context. `serialised` is
    the body as it goes upstream; images within it count as images and not as text, and anything
    that the provider would have to look into counts as a full context.
    """
    # A chat is one conversation, whatever else stands beside it.
    contexts = 1 if endpoint == "chat/completions" else _contexts(body)
    limit = context_length * contexts
    text_bytes = len(serialised)
    query = body.get("query")
    if isinstance(query, str) and "documents" in body:
        # It is read again with each document.
        text_bytes += (contexts - 1) * (len(query.encode("utf-8", "replace")) + TEMPLATE_TOKENS)
    images = _moderated_images(body) if endpoint == "moderations" else 0
    messages = body.get("messages")
    for message in messages if isinstance(messages, list) else ():
        if not isinstance(message, dict) or message.get("audio") is not None:
            # An earlier spoken answer, kept by the provider, is as long as it pleases.
            return limit
        content = message.get("content")
        for part in content if isinstance(content, list) else ():
            kind = part.get("type") if isinstance(part, dict) else None
            if kind == "image_url":
                images += 1
                text_bytes -= _data_url_length(part)
            elif kind not in ("text", "refusal") and not is_bounded_sound(part):
                return limit
    bound = text_bytes + images * image_tokens_max + TEMPLATE_TOKENS
    if body.get("tools") or body.get("functions"):
        bound += TOOLS_PROMPT_TOKENS
    return min(bound, limit)


def _contexts(body: Mapping[str, Any]) -> int:
    """Return how many contexts can be read: the most that any name asks for.

    Nothing that a client adds makes the number smaller.
    """
    contexts = 1
    for name in _PROMPTS:
        prompts = body.get(name)
        if isinstance(prompts, list) and prompts and not isinstance(prompts[0], int):
            contexts = max(contexts, len(prompts))
    return contexts


def _moderated_images(body: Mapping[str, Any]) -> int:
    """Return how many images are to be moderated; those within the body count as text as well."""
    parts = body.get("input")
    return sum(
        isinstance(part, dict) and part.get("type") == "image_url"
        for part in (parts if isinstance(parts, list) else ())
    )


def _data_url_length(part: Mapping[str, Any]) -> int:
    image = part.get("image_url")
    return image_url_length(image.get("url") if isinstance(image, dict) else image)


def upstream_body(
    body: Mapping[str, Any],
    *,
    upstream_model: str,
    stream: bool,
    output_cap: int | None,
    cap_parameter: str,
) -> bytes:
    """Return the body to send upstream, built from the parsed one (I-32).

    A stream always asks for usage (I-31). `output_cap` is None unless the cap had to be lowered;
    it then replaces whatever maximum the client gave.
    """
    sent = dict(body)
    sent["model"] = upstream_model
    if stream:
        options = body.get("stream_options")
        given = options if isinstance(options, Mapping) else {}
        sent["stream_options"] = {
            # A server that ignores spelling would go by the last of several.
            **{key: value for key, value in given.items() if folded(key) != "includeusage"},
            "include_usage": True,
        }
    else:
        # OpenAI refuses these options without a stream.
        sent.pop("stream_options", None)
    if output_cap is not None:
        for name in OUTPUT_PARAMETERS:
            sent.pop(name, None)
        sent[cap_parameter] = output_cap
    return serialise(sent)
