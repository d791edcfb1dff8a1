"""Spoken answers of OpenAI's chats: the provider keeps them, and later turns name them. Pure.

Whoever knows the id of one could have the model say it again, in whosever account it lies; and no
other account knows it.

Source: https://platform.openai.com/docs/guides/audio (an assistant's message of a later turn holds
`audio: {"id": …}`, for as long as the answer's `expires_at` says)
"""

from collections.abc import Iterable, Mapping
from typing import Any

from apps.core.parameter_names import folded
from apps.proxy.dialects.openai_refusals import unsupported, wrong_type, wrong_value
from apps.proxy.dialects.responses_stored import NAMED_MAX, Named, is_id


def spoken_ids(messages: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return the ids of the spoken answers in messages, or in pieces of such."""
    sounds = (message.get("audio") for message in messages)
    ids = (sound.get("id") for sound in sounds if isinstance(sound, Mapping))
    return tuple(filter(is_id, ids))


def list_spoken(body: Mapping[str, Any]) -> list[Named]:
    """Return the earlier spoken answers that a chat names.

    Raises E13 for what names none, and E14 for what some provider may read as an id.
    """
    named = []
    for index, message in enumerate(body["messages"]):
        sound = message.get("audio")
        if sound is None:
            continue
        where = f"messages[{index}].audio"
        if not isinstance(sound, dict):
            raise wrong_type(where, "an object")
        for key in sound:
            if key != "id" and folded(key) == "id":
                raise unsupported(f"{where}.{key}")
        if not isinstance(sound.get("id"), str):
            raise wrong_type(f"{where}.id", "a string")
        named.append(Named(sound["id"], f"{where}.id"))
    if len(named) > NAMED_MAX:
        raise wrong_value("messages", f"at most {NAMED_MAX} spoken answers by their ids")
    return named
