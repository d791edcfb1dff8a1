"""The meter of a stream in OpenAI's dialect: chunks of a chat or of a completion."""

import re
from typing import Any, Final

from apps.proxy.dialects.json_strings import text_of
from apps.proxy.dialects.openai_chunks import find_usage, is_error, load_chunk
from apps.proxy.dialects.openai_request import CHOICES_MAX
from apps.proxy.dialects.openai_spoken import spoken_ids
from apps.proxy.dialects.openai_usage import parse_usage
from apps.proxy.dialects.stream_meter import StreamMeter, clean_label, member_pattern
from apps.proxy.media import streamed_tokens
from apps.proxy.sse import event_data, first_data, is_done, split_events

DONE: Final = b"data: [DONE]\n\n"

# Quotes inside a JSON string are escaped, so a key can never be found within a text.
_MEMBERS: Final = (
    rb'"(?:(?:usage|finish_reason|error)"\s*+:\s*+(?!null)|(?:object|type)"\s*+:\s*+"error")'
)

SPECIAL: Final = re.compile(
    _MEMBERS + rb"|(?:^|[\r\n])(?:data: ?\[DONE\]|event: ?error)",
)
"""Matches in a block of complete events if one of them needs a closer look."""

_TEXT_KEYS: Final = (b"content", b"refusal", b"arguments", b"reasoning_content", b"reasoning")
_TOOL_DELTA: Final = re.compile(rb'"(?:tool_calls":\s*+\[\s*+\{|function_call":\s*+\{)')
# Mistral: content as an array of typed parts.
_CONTENT_PARTS: Final = re.compile(rb'"content":\s*+\[\s*+\{\s*+"type"')
_THOUGHT_PARTS: Final = re.compile(
    rb'"thinking":\s*+\[((?:[^\]"]|"[^"\\]*+(?:\\.[^"\\]*+)*+")*+)\]', re.DOTALL
)
_IMAGES_KEY: Final = b'"images"'
_IMAGE: Final = re.compile(rb'"image_url":\s*+[{"]')
# Source: https://openrouter.ai/docs/guides/best-practices/reasoning-tokens
_SEALED: Final = b'"reasoning.encrypted"'
_AUDIO: Final = re.compile(rb'"audio":\s*+\{')
_AUDIO_DATA: Final = re.compile(rb'"data":\s*+"([A-Za-z0-9+/=]*+)"')


class OpenAIStreamMeter(StreamMeter):
    """Follows a stream of chunks, which ends with [DONE]."""

    VALUED = (b'"finish_reason"', b'"usage"')
    MARKS = (b'"error"', b"[DONE]", b"event:")
    TEXTS = {key: member_pattern(key) for key in (*_TEXT_KEYS, b"text", b"thinking", b"transcript")}
    # Sent twice by some servers, under both names.
    SYNONYMS = (b"reasoning_content", b"reasoning")
    THOUGHTS = (*SYNONYMS, b"thinking")

    __slots__ = (
        "_audio_characters",
        "_finished",
        "_has_audio",
        "_images",
        "_is_completion",
        "_is_spoken",
        "_strip_usage",
    )

    def __init__(
        self, *, strip_usage: bool, is_completion: bool = False, is_spoken: bool = False
    ) -> None:
        """`strip_usage`: the client did not ask for the event that holds nothing but usage.
        `is_spoken`: it asked for sound.
        """
        super().__init__()
        self._is_spoken = is_spoken
        self._strip_usage = strip_usage
        self._is_completion = is_completion
        self._audio_characters = 0  # of sound, in base64
        self._has_audio = False
        self._images = 0
        self._finished = 0  # a bit for each choice
        self.last_frame = DONE

    @property
    def finished_choices(self) -> int:
        """Return how many choices have told why they ended."""
        return self._finished.bit_count()

    def is_whole(self, choices: int) -> bool:
        """Return whether the stream has told its end, or that of each choice."""
        return self.done_seen or self.finished_choices >= choices

    def begins_an_answer(self, block: bytes) -> bool | None:
        """Return whether the first event is a chunk; later ones are not looked into."""
        first = first_data(block)
        if not first:
            # Nothing but comments; or [DONE] alone, or a usage that was taken out.
            return True if self.done_seen else None
        document = load_chunk(first)
        return document is not None and isinstance(document.get("choices"), list)

    def _find_hints(self, block: bytes) -> list[int]:
        found = super()._find_hints(block)
        if self._is_spoken:
            found = sorted({*found, *(match.start() for match in _AUDIO.finditer(block))})
        return found

    def _observe_event(self, event: bytes) -> bool:
        if self._is_spoken and _AUDIO.search(event) is not None:
            self._note_spoken(event)
        if SPECIAL.search(event) is None:
            self._keep(event)
            return True
        if is_done(event):
            self.done_seen = True
            return False
        return self._inspect(event)

    def _inspect(self, event: bytes) -> bool:
        """Take in an event that matters, and return whether it goes on to the client."""
        document = load_chunk(event_data(event))
        if document is None or is_error(event, document):
            self._fail(document or {})
            return False
        self._keep(event)
        choices = document.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict) and choice.get("finish_reason") is not None:
                self._finish(choice)
                if self.finish_reason == "error":
                    self._fail(document)
                    return False
        if "service_tier" in document:
            self.service_tier = clean_label(document["service_tier"]) or self.service_tier
        reported = find_usage(document)
        if reported is None:
            return True
        self._report(parse_usage(reported))
        return bool(choices) or not self._strip_usage

    def _note_spoken(self, event: bytes) -> None:
        """Note the ids by which the provider keeps what it says."""
        document = load_chunk(event_data(event)) or {}
        choices = document.get("choices")
        deltas = [
            delta
            for choice in (choices if isinstance(choices, list) else ())
            if isinstance(choice, dict) and isinstance(delta := choice.get("delta"), dict)
        ]
        new = [one for one in spoken_ids(deltas) if one not in self.stored_ids]
        self.stored_ids = (*self.stored_ids, *new)[:CHOICES_MAX]

    def _finish(self, choice: dict[str, Any]) -> None:
        self.finish_reason = clean_label(choice["finish_reason"])
        if self.finish_reason:  # Some servers send "" until then.
            at = choice.get("index")
            at = at if type(at) is int and 0 <= at < CHOICES_MAX else 0
            self._finished |= 1 << at

    def _count_sealed(self, raw: bytes) -> None:
        """Count thoughts that come sealed (OpenRouter)."""
        for event in split_events(raw):
            document = load_chunk(event_data(event)) if _SEALED in event else None
            choices = None if document is None else document.get("choices")
            for choice in choices if isinstance(choices, list) else ():
                delta = choice.get("delta") if isinstance(choice, dict) else None
                details = delta.get("reasoning_details") if isinstance(delta, dict) else None
                for detail in details if isinstance(details, list) else ():
                    data = detail.get("data") if isinstance(detail, dict) else None
                    self._sealed_characters += len(data) if isinstance(data, str) else 0

    def _count_thoughts(self, raw: bytes) -> bytes:
        """Count the thoughts among parts of content, and return what is left."""
        texts = self.TEXTS[b"text"]
        for parts in _THOUGHT_PARTS.findall(raw):
            self._take_text(b"thinking", text_of(b"".join(texts.findall(parts))))
        return _THOUGHT_PARTS.sub(b"", raw)

    def _has_unseen_output(self) -> bool:
        return self._images > 0 or self._has_audio

    def _spoken_tokens(self) -> int:
        return streamed_tokens(self._audio_characters * 3 // 4)

    def _count_images(self) -> int:
        """Return how many images the model sent, beside its text (OpenRouter)."""
        if any(_IMAGES_KEY in block for block in self._batch):
            self._count_batch()
        return self._images

    def _count(self, raw: bytes) -> None:
        keys = list(_TEXT_KEYS)
        if self._is_completion:
            keys.append(b"text")
        if _AUDIO.search(raw) is not None:
            self._has_audio = True
            sounds = _AUDIO_DATA.findall(raw)
            self._audio_characters += sum(map(len, sounds))
            self._has_content = self._has_content or any(sounds)
            keys.append(b"transcript")
        if _CONTENT_PARTS.search(raw) is not None:
            keys += [b"text", b"thinking"]
            raw = self._count_thoughts(raw)
        if _SEALED in raw:
            self._count_sealed(raw)
        for key in keys:
            self._count_text(raw, key)
        if _IMAGES_KEY in raw:
            self._images += len(_IMAGE.findall(raw))
            self._has_content = self._has_content or self._images > 0
        if not self._has_content:
            self._has_content = _TOOL_DELTA.search(raw) is not None
