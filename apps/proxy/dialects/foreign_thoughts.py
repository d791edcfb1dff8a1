"""Leaves out of a client's own body what another provider than its own dialect's thought.

A client gives back what it was told, and does not know that an earlier answer was converted: its
next turn may go to a provider of its own dialect, where bodies pass as they are. What our writers
marked in such an answer is taken out on the way; a body that holds nothing of the kind is the same
object. What is taken out could not be read, and would have the whole request refused.

Sources: https://platform.claude.com/docs/en/build-with-claude/extended-thinking,
https://ai.google.dev/gemini-api/docs/thought-signatures and
https://platform.openai.com/docs/guides/reasoning
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from apps.proxy.dialects import gemini_parts
from apps.proxy.dialects.gemini_parameters import member, word
from apps.proxy.dialects.gemini_parts import NO_SIGNATURE, standard_base64
from apps.proxy.dialects.sealed_thoughts import is_marked, is_marked_content

_Change = Callable[[Any], Any]  # of one element: what stands in its place, None for nothing
# As `item_id` makes it: those of OpenAI's have letters and digits behind one underscore.
_OWN_ITEM_ID: Final = re.compile(r"rs_.*_[0-9]+", re.ASCII | re.DOTALL)
_SIGNATURES: Final = ("thoughtSignature", "thought_signature")


def without_in_messages(body: Mapping[str, Any], *, is_always_signed: bool) -> Mapping[str, Any]:
    """Return a body of Anthropic's Messages without thoughts that another sealed.

    `is_always_signed`: the model signs each thought, so that one without is another's, too.
    """

    def change(block: Any) -> Any:
        if not isinstance(block, dict) or block.get("type") != "thinking":
            return block
        signature = block.get("signature") or ""
        is_foreign = is_marked(signature) if isinstance(signature, str) else False
        return None if is_foreign or (is_always_signed and not signature) else block

    told = _with_inner(body, "messages", "content", change)
    thinking = told.get("thinking")
    if told is body or not isinstance(thinking, dict) or thinking.get("type") != "enabled":
        return told
    if not _continues_without_thoughts(told["messages"]):
        return told
    # With a budget it is refused to think on where tools are being called without a thought.
    return {name: value for name, value in told.items() if name != "thinking"}


def _continues_without_thoughts(messages: list[Any]) -> bool:
    contents = (one.get("content") for one in reversed(messages) if one.get("role") == "assistant")
    content = next(contents, None)
    blocks = content if isinstance(content, list) else []
    kinds = {block.get("type") for block in blocks if isinstance(block, dict)}
    return "tool_use" in kinds and kinds.isdisjoint(("redacted_thinking", "thinking"))


def without_in_contents(body: Mapping[str, Any], *, is_call_signed: bool) -> Mapping[str, Any]:
    """Return a body of Google's generateContent without signatures of another.

    `is_call_signed`: the model refuses calls that are not, but for those said to be of another.
    """

    def change(part: Any) -> Any:
        if not isinstance(part, dict):
            return part
        signature = word(part, _SIGNATURES[0])
        if not signature or not gemini_parts.is_marked(standard_base64(signature)):
            return part
        told = {name: value for name, value in part.items() if name not in _SIGNATURES}
        if member(part, "functionCall") is not None:
            return {**told, _SIGNATURES[0]: NO_SIGNATURE} if is_call_signed else told
        # A text that is empty is refused.
        return None if told.get("text") == "" else told

    return _with_inner(body, "contents", "parts", change)


def without_in_input(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a body of OpenAI's Responses without reasoning items of another."""
    return _with(body, "input", lambda item: None if is_foreign_thought(item) else item)


def is_foreign_thought(item: Any) -> bool:
    """Return whether an item is what another thought: sealed by it, or not at all and named here.

    OpenAI would look up the name, which nobody but the client has kept.
    """
    if not isinstance(item, dict) or item.get("type") != "reasoning":
        return False
    sealed = item.get("encrypted_content")
    if isinstance(sealed, str) and sealed:
        return is_marked_content(sealed)
    identifier = item.get("id")
    return isinstance(identifier, str) and _OWN_ITEM_ID.fullmatch(identifier) is not None


def without_in_chat(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a body of Chat Completions without blocks of thought that carry a mark."""

    def change(message: Any) -> Any:
        if not isinstance(message, dict) or "thinking_blocks" not in message:
            return message
        return _with(message, "thinking_blocks", lambda block: None if is_sealed(block) else block)

    def is_sealed(block: Any) -> bool:
        signature = block.get("signature") if isinstance(block, dict) else None
        return isinstance(signature, str) and is_marked(signature)

    return _with(body, "messages", change)


def _with_inner(
    body: Mapping[str, Any], name: str, inner: str, change: _Change
) -> Mapping[str, Any]:
    """Return a body with what is said changed part by part, without who then says nothing."""

    def change_holder(holder: Any) -> Any:
        if not isinstance(holder, dict):
            return holder
        told = _with(holder, inner, change)
        return told if told is holder or told[inner] else None

    return _with(body, name, change_holder)


def _with(holder: Mapping[str, Any], name: str, change: _Change) -> Mapping[str, Any]:
    """Return an object with an array of it changed; the same object where nothing is."""
    elements = holder.get(name)
    if not isinstance(elements, list):
        return holder
    changed = [change(element) for element in elements]
    if all(new is old for new, old in zip(changed, elements, strict=True)):
        return holder
    return {**holder, name: [element for element in changed if element is not None]}
