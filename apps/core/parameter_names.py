"""Which parameters of a request decide what it can cost, or where it goes. Pure.

Admission meters them, refuses them or takes them away, and the overrides of a route may not touch
them. All are compared by `folded`, because some servers read names without regard to case, or in
camel case.
"""

from typing import Final

# Looked at by admission. In another spelling they are refused: a server that ignores spelling would
# go by a value that nobody checked.
METERED: Final = frozenset(
    {
        "audio", "best_of", "documents", "input", "max_completion_tokens", "max_tokens", "messages",
        "modalities", "model", "n", "prediction", "prompt", "query", "service_tier", "stream",
        "stream_options", "tools", "web_search_options",
    }
)  # fmt: skip

# Counted as input by their bytes, as everything is that is in a body. A route may add none of it.
READ_AS_INPUT: Final = frozenset({"functions", "instructions", "suffix", "system"})

# Other servers' names for how much is written, which the hold would not cover.
_OUTPUT: Final = frozenset(
    {
        "candidate_count", "generation_config", "inference_config", "max_gen_len", "max_length",
        "max_new_tokens", "max_output_length", "max_output_tokens", "max_tokens_to_generate",
        "max_tokens_to_sample", "n_cmpl", "n_predict", "num_completions", "num_generations",
        "num_predict", "num_results", "num_return_sequences", "options", "parameters",
        "sampling_params", "speculation", "text_generation_config", "tokens_to_generate",
        "use_beam_search",
    }
)  # fmt: skip
# Paid features without a price here.
_PAID: Final = frozenset(
    {
        "anthropic_beta", "betas", "billing_policy", "caching", "compaction", "compound_custom",
        "connectors", "container", "data_sources", "deferred", "enable_code_interpreter",
        "enable_deep_search", "enable_enhancement", "enable_search", "enhancements", "expire_at",
        "force_search_enhancement", "google_search", "google_search_retrieval", "inference_geo",
        "mcp_servers", "model_armor_config", "performance_config", "plugins", "search_options",
        "search_parameters", "speed", "web_search", "with_search_enhance",
    }
)  # fmt: skip
# Input that stands elsewhere, or becomes longer than its bytes.
_LONGER_INPUT: Final = frozenset(
    {
        "cached_content", "chat_template", "conversation_id", "mm_processor_kwargs",
        "previous_response_id", "prompt_id", "thread", "vl_high_resolution_images",
    }
)  # fmt: skip
# Something else is run than the model that is billed, or beside it.
_OTHER_MODEL: Final = frozenset(
    {
        "additional_model_request_fields", "agent_id", "content_policy_fallbacks",
        "default_fallbacks", "fallbacks", "model_selection_config", "models", "moderation",
        "multi_agent", "preset", "provider_options", "route", "router_settings_override",
        "routing_config", "safety_model",
    }
)  # fmt: skip
# What is done with the rights of the operator's own account: where an answer is written, and what
# its provider trusts it with.
_OWN_RIGHTS: Final = frozenset({"access_programs", "generation_output_config", "output_uri_prefix"})
UNSUPPORTED: Final = _OUTPUT | _PAID | _LONGER_INPUT | _OTHER_MODEL | _OWN_RIGHTS

# Objects of which a client may say only this. Beyond it a prompt is read and billed though nothing
# is asked (`prewarm`), or compared with the prompts of others who share the provider's account; or
# more is read than the request holds (Google's `cached_content` in OpenAI's dialect).
# Sources: https://developers.openai.com/api/docs/guides/prompt-caching and
# https://cloud.google.com/vertex-ai/generative-ai/docs/migrate/openai/overview
BOUNDED: Final[dict[str, frozenset[str]]] = {
    "google": frozenset({"safety_settings", "thinking_config", "thought_tag_marker"}),
    "prompt_cache_options": frozenset({"mode", "ttl"}),
}
# What may only be true: without an answer nothing would be charged for the prompt.
ASSERTED: Final = frozenset({"generate"})

# By these a client could choose the upstream, its key or what stands around the call, or be told
# how its prompt differs from one of somebody else at the same provider (`diagnostics`).
REMOVED: Final = frozenset(
    {
        "api_base", "api_key", "api_type", "api_version", "base_model", "base_url",
        "context_window_fallbacks", "custom_llm_provider", "deployment_id", "diagnostics",
        "extra_body", "extra_headers", "extra_query", "headers", "mock_response", "model_list",
        "num_retries", "organization", "project", "provider", "proxy", "timeout", "user_config",
    }
)  # fmt: skip
REMOVED_PREFIXES: Final = ("aws_", "azure_", "litellm_", "vertex_")


def folded(name: str) -> str:
    """Return what all spellings of a name have in common: max_tokens, maxTokens, MAX-TOKENS."""
    return name.casefold().replace("_", "").replace("-", "")


def fold_all(names: frozenset[str]) -> frozenset[str]:
    """Return names as `folded` spells them."""
    return frozenset(map(folded, names))


FOLDED_PREFIXES: Final = tuple(map(folded, REMOVED_PREFIXES))
