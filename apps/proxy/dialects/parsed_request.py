"""A request of which everything that concerns money is known, in whichever dialect it came."""

from typing import Any, Final, Literal, NamedTuple

DialectName = Literal["anthropic", "gemini", "openai", "openai-responses"]
Endpoint = Literal[
    "batchEmbedContents",
    "chat/completions",
    "completions",
    "embedContent",
    "embeddings",
    "generateContent",
    "messages",
    "moderations",
    "rerank",
    "responses",
]
# What these answer are vectors.
EMBEDDING_ENDPOINTS: Final = frozenset({"batchEmbedContents", "embedContent", "embeddings"})
# What these answer is not written token by token, and costs what was read.
READING_ENDPOINTS: Final = EMBEDDING_ENDPOINTS | {"moderations", "rerank"}
# Conversations, of which each dialect has its own.
CHAT_ENDPOINTS: Final = frozenset({"chat/completions", "generateContent", "messages", "responses"})
# For how many searches a call that may search holds, where its client sets no bound: what is
# reported beyond comes as an excess.
WEB_SEARCHES_MAX: Final = 10


def kind_of(endpoint: Endpoint) -> str:
    """Return what is asked of a model at an endpoint, whichever dialect it is of."""
    if endpoint in CHAT_ENDPOINTS:
        return "chat"
    return "embedding" if endpoint in EMBEDDING_ENDPOINTS else endpoint


class ParsedRequest(NamedTuple):
    """A request, and what decides what it can cost."""

    endpoint: Endpoint
    model: str
    is_stream: bool
    include_usage: bool  # the client wants the usage event of a stream
    choices: int  # answers the model will write: prompts × max(n, best_of)
    output_tokens_asked: int | None  # the client's own maximum per choice
    output_parameter: str | None  # by which name it was given
    has_images: bool
    has_audio: bool
    body: dict[str, Any]  # without the fields that would choose the upstream
    service_tier: str = ""  # the usual one; of others the price decides whether they may be asked
    search_parameter: str = ""  # by which the provider is allowed to search, likewise
    beside_bound: int = 0  # tokens of each choice that are billed as output beside its maximum
    audio_parameter: str = ""  # by which a spoken answer is asked for, likewise
    dialect: DialectName = "openai"
    searches_max: int | None = None  # the client's own bound of searches
    headers: tuple[tuple[str, str], ...] = ()  # that go to a provider of the same dialect
    is_array: bool = False  # a stream is one JSON array, and no events

    @property
    def has_web_search(self) -> bool:
        """Return whether the provider may search."""
        return bool(self.search_parameter)

    @property
    def streamed_choices(self) -> int:
        """Return how many choices a stream brings: of the candidates of `best_of` only `n`."""
        answers: int = self.body.get("n") or 1
        candidates = max(answers, self.body.get("best_of") or 1)
        return self.choices // candidates * answers
