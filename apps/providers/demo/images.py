"""What images in a prompt cost: as many tokens as OpenAI takes for one of low detail.

Source: https://platform.openai.com/docs/guides/images-vision#calculating-costs
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any, Final

from apps.providers.demo.errors import ProviderError

IMAGE_TOKENS: Final = 85
_DATA_URL: Final = re.compile(r"data:image/(png|jpeg|gif|webp);base64,")


def count_image(image: Any) -> int:
    """Return the tokens of an `image_url`; nothing is ever fetched. Raises ProviderError."""
    url = image.get("url") if isinstance(image, dict) else None
    if not isinstance(url, str):
        raise _refuse("invalid_image_url", "an image needs a URL")
    if url.startswith(("https://", "http://")):
        return IMAGE_TOKENS
    found = _DATA_URL.match(url)
    if found is None:
        raise _refuse("invalid_image_format", "PNG, JPEG, GIF and WebP are taken")
    try:
        base64.b64decode(url[found.end() :], validate=True)
    except binascii.Error as error:
        raise _refuse("invalid_base64_image", "the base64 cannot be read") from error
    return IMAGE_TOKENS


def _refuse(code: str, why: str) -> ProviderError:
    return ProviderError(400, f"Invalid image: {why}.", code=code, param="messages")
