"""What an API key can be narrowed to: one word for each kind of thing that clients ask for. Pure.

`apps.proxy.operations` says which paths are which.
"""

from typing import Final, Literal, get_args

KeyOperation = Literal[
    "chat",
    "completions",
    "embeddings",
    "models",
    "moderations",
    "quote",
    "rerank",
    "usage",
]
KEY_OPERATIONS: Final[tuple[KeyOperation, ...]] = get_args(KeyOperation)
