"""What decides about money or the upstream may come neither from a client nor from a route."""

from __future__ import annotations

from typing import Any

import pytest

from apps.ai_models.overrides import OverridesRefused, check_overrides
from apps.core.errors import GatewayError
from apps.core.parameter_names import (
    METERED,
    READ_AS_INPUT,
    REMOVED,
    REMOVED_PREFIXES,
    UNSUPPORTED,
    folded,
)
from apps.proxy.dialects.openai_request import OUTPUT_PARAMETERS, parse_request
from apps.proxy.dialects.openai_upstream import input_tokens_bound
from apps.proxy.json_body import serialise
from tests.support.cases import for_all

CHAT: dict[str, Any] = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}]}
# Kept apart from the list in the code on purpose: what that forgets, this does not.
COST_DECIDING = [
    "access_programs", "additionalModelRequestFields", "agent_id", "billing_policy",
    "cached_content", "caching", "candidateCount", "chat_template", "compaction",
    "compound_custom", "connectors", "container", "conversation_id", "data_sources",
    "dataSources", "deferred", "enable_search", "expire_at", "fallbacks", "generationConfig",
    "generation_output_config", "google_search", "googleSearch", "inferenceConfig",
    "inference_geo", "max_gen_len", "max_new_tokens", "maxOutputTokens", "max_output_tokens",
    "maxTokensToSample", "mcp_servers", "mcpServers", "mm_processor_kwargs", "model_armor_config",
    "models", "model_selection_config", "moderation", "multi_agent", "n_predict",
    "num_generations", "num_predict", "numReturnSequences", "options", "output_uri_prefix",
    "parameters", "performanceConfig", "plugins", "preset", "previous_response_id",
    "providerOptions", "route", "router_settings_override", "safety_model", "search_parameters",
    "speed", "thread", "tokens_to_generate", "vl_high_resolution_images", "web_search",
    "webSearch",
]  # fmt: skip


def spellings(name: str) -> set[str]:
    """Return a name as other servers may write it."""
    first, *others = name.split("_")
    return {name, name.upper(), first + "".join(map(str.title, others)), name.replace("_", "")}


def ask(name: str, value: object = "x") -> str:
    """Return what becomes of a parameter of a chat."""
    try:
        kept = parse_request("chat/completions", CHAT | {name: value}).body
    except GatewayError as error:
        return "refused" if (error.row, error.param) == ("E14", name) else str(error)
    return "passed" if name in kept else "removed"


@for_all("member", ["cached_content", "cachedContent", "fallbacks"])
def test_nothing_that_lies_with_google_is_read_by_a_chat(member: str) -> None:
    allowed = {"thinking_config": {"thinking_budget": 9}, "safety_settings": []}
    with pytest.raises(GatewayError) as error:
        parse_request("chat/completions", {**CHAT, "google": {**allowed, member: "x"}})

    assert (error.value.row, error.value.param) == ("E14", f"google.{member}")
    assert ask("google", allowed) == "passed"


@for_all("name", COST_DECIDING)
def test_what_can_change_the_bill_is_taken_from_nobody(name: str) -> None:
    values: list[Any] = [{"num_predict": 100_000}, 100_000, "fast", [], True]
    for value in values:
        assert ask(name, value) == "refused"
    assert ask(name, None) == "passed"
    with pytest.raises(OverridesRefused):
        check_overrides({"parameters": {"set": {name: 1}}})


@for_all("name", sorted(UNSUPPORTED | REMOVED | METERED))
def test_no_spelling_of_a_protected_name_gets_past_admission(name: str) -> None:
    for spelling in spellings(name) - METERED:
        assert ask(spelling) == ("removed" if name in REMOVED else "refused")


@for_all(
    "name",
    sorted(UNSUPPORTED | REMOVED | METERED | READ_AS_INPUT | {f"{x}a" for x in REMOVED_PREFIXES}),
)
def test_no_spelling_of_a_protected_name_is_an_override(name: str) -> None:
    for spelling in spellings(name):
        values: list[dict[str, Any]] = [
            {"set": {spelling: 1}},
            {"default": {spelling: 1}},
            {"remove": [spelling]},
            {"rename": {spelling: "other"}},
            {"rename": {"other": spelling}},
        ]
        for value in values:
            with pytest.raises(OverridesRefused, match="decides what a call can cost"):
                check_overrides({"parameters": value})


@pytest.mark.parametrize("name", ["functions", "instructions", "suffix", "system"])
def test_what_a_client_may_send_and_a_route_may_not_counts_by_its_bytes(name: str) -> None:
    text = "word " * 1_000
    body = parse_request("chat/completions", CHAT | {name: text}).body

    bound = input_tokens_bound("chat/completions", body, serialise(body), 10**6, 0)

    assert {name} <= READ_AS_INPUT
    assert bound >= 5_000


def test_the_lists_do_not_overlap() -> None:
    parts = (METERED, READ_AS_INPUT, REMOVED, UNSUPPORTED)
    together = METERED | READ_AS_INPUT | REMOVED | UNSUPPORTED

    assert sum(map(len, parts)) == len({folded(name) for name in together})
    assert set(OUTPUT_PARAMETERS) <= METERED


@pytest.mark.parametrize("name", ["awsRegion", "AWS_REGION", "azureAdToken", "litellmParams"])
def test_no_spelling_of_a_prefix_reaches_the_upstream(name: str) -> None:
    assert ask(name) == "removed"


def test_names_are_folded_as_servers_that_ignore_spelling_read_them() -> None:
    for name in (
        "max_tokens",
        "maxTokens",
        "MAX-TOKENS",
        "MaxTokens",
        "_max__tokens",
        "max_to\u212aens",
    ):
        assert folded(name) == "maxtokens"
