"""A whole answer of an upstream, as far as its charge goes."""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import orjson

from apps.core.errors import GatewayError
from apps.core.usage import Usage
from apps.proxy.dialects.plausibility import (
    is_plausible,
    needs_no_look,
    tells_enough,
    tells_too_little,
)
from apps.proxy.dialects.stream_meter import clean_label
from apps.proxy.dialects.usage_pieces import has_pieces, with_pieces
from apps.proxy.dialects.usage_reader import unbilled
from apps.proxy.estimate import Excerpt, sizes_of, tokens_of_quarters

# Calls of tools are not among the characters that are known at once: a usage that would not account
# for so many gets a closer look.
_UNSURE_CHARACTERS: Final = 64


class MeteredAnswer(NamedTuple):
    """A whole answer."""

    usage: Usage | None  # as reported; None: not reported, or unusable
    is_usage_unusable: bool  # something was reported that holds no count
    finish_reason: str | None
    has_content: bool
    excerpts: Callable[[], list[Excerpt]]  # all that it says
    document: dict[str, Any]
    choices: int = 0  # answers that were written; 0 where what was read is answered
    characters: int = 0  # of text, as far as that is known at once
    images: int = 0  # that it made
    count_spoken: Callable[[], int] | None = None  # estimates the tokens of sound, where there is
    service_tier: str | None = None  # that the upstream says it served
    stored_ids: tuple[str, ...] = ()  # by which what its provider keeps can be named
    is_billed_refusal: bool = False  # what was read is billed, though nothing was written

    @property
    def upstream_id(self) -> str:
        """Return the upstream's own id of the answer, "" without one."""
        return clean_label(self.document.get("responseId") or self.document.get("id")) or ""

    @property
    def estimated_output_tokens(self) -> int:
        """Return an estimate of the tokens that the answer took; nobody needs it beside a usage."""
        least = 1 if self.has_content and self.choices else 0
        return max(self._delivered_tokens(), least)

    def final_usage(self, *, estimated_input_tokens: int) -> Usage:
        """Return the usage to charge: the reported one, else an estimate.

        Where nothing was produced there is nothing to charge, and the source is "none"; what was
        reported is kept with it.
        """
        reported = self.usage
        # Also without visible content: reasoning alone can use up the maximum.
        is_told = reported is not None and (reported.output_tokens or self.is_billed_refusal)
        if not is_told and not self.has_content:
            return unbilled(reported)
        if reported is not None and reported.total_tokens:
            usage = reported
            if not self._is_plausible(reported):
                usage = reported._replace(is_suspect=True)
        else:
            sizes = sizes_of(self.excerpts())
            least = 1 if self.has_content and self.choices and not sizes.thought else 0
            usage = Usage(
                input=estimated_input_tokens,
                output=max(tokens_of_quarters(sizes.written), least),
                reasoning=tokens_of_quarters(sizes.thought),
                audio_out=0 if self.count_spoken is None else self.count_spoken(),
                source="estimated",
                is_suspect=self.is_usage_unusable,
            )
            if reported is not None:
                # A ranking may report how often it ran, and no tokens.
                is_known = has_pieces(reported) and not reported.is_suspect
                if is_known and not usage.total_tokens:
                    return reported  # Nothing is left to estimate.
                usage = with_pieces(usage, reported)._replace(is_suspect=not is_known)
        return usage._replace(image=self.images) if self.images > usage.image else usage

    def _is_plausible(self, usage: Usage) -> bool:
        is_unseen = self.images > 0 or self.count_spoken is not None
        is_bounded = is_unseen or needs_no_look(usage, characters=self.characters)
        if is_bounded and tells_enough(usage, characters=max(self.characters, _UNSURE_CHARACTERS)):
            return True
        delivered = self._delivered_tokens()
        if tells_too_little(usage, delivered_tokens=delivered):
            return False
        return is_bounded or is_plausible(usage, delivered_tokens=delivered, choices=self.choices)

    def _delivered_tokens(self) -> int:
        return tokens_of_quarters(sum(sizes_of(self.excerpts())))


def load_answer(body: bytes) -> dict[str, Any]:
    """Return the object of an answer that is no error. Raises E49."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise GatewayError("E49") from error
    if not isinstance(document, dict) or document.get("error") is not None:
        raise GatewayError("E49")
    return document
