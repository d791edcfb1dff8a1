"""Tests of the known providers."""

from __future__ import annotations

import pytest

from apps.core.addresses import check_upstream_url, parse_private_upstreams
from apps.providers.maximums import find_max_tokens_parameter
from apps.providers.presets import UnknownPreset, get_preset, list_presets


def test_presets_can_be_used_as_they_are() -> None:
    private = parse_private_upstreams("127.0.0.1:11434,127.0.0.1:8000")
    presets = list_presets()

    assert len({preset.slug for preset in presets}) == len(presets) == 31
    assert len({preset.name for preset in presets}) == len(presets)
    for preset in presets:
        parsed = check_upstream_url(preset.base_url, private if preset.is_local else ())
        assert not parsed.query
        assert preset.base_url == preset.base_url.rstrip("/")
        assert check_upstream_url(preset.documentation_url, ()).scheme == "https"
    assert {preset.slug for preset in presets if preset.is_local} == {"ollama", "vllm"}
    assert {preset.slug for preset in presets if not preset.is_complete} == {
        "azure", "azure-responses", "vertex-anthropic", "vertex-gemini", "vertex-openai",
    }  # fmt: skip


def test_presets_are_asked_for_a_maximum_as_their_vendors_document_it() -> None:
    asked: dict[str, set[str]] = {}
    for preset in list_presets():
        if preset.dialect == "openai":
            asked.setdefault(find_max_tokens_parameter(preset.base_url), set()).add(preset.slug)

    assert asked == {
        "max_tokens": {"deepseek", "mistral", "ollama", "siliconflow", "together", "zhipu"},
        "max_completion_tokens": {
            "antinomy", "azure", "bedrock-openai", "cerebras", "fireworks", "groq", "moonshot",
            "moonshot-cn", "openai", "openrouter", "qwen", "qwen-cn", "vertex-openai", "vllm",
            "xai",
        },
    }  # fmt: skip


@pytest.mark.parametrize(
    ("base_url", "parameter"),
    [
        ("https://API.DeepSeek.com:443/beta?a=b", "max_tokens"),
        ("https://mistral.ai", "max_tokens"),
        ("http://ollama:11434/v1", "max_tokens"),
        ("https://api.z.ai/api/coding/paas/v4", "max_tokens"),
        ("https://notmistral.ai/v1", "max_completion_tokens"),
        ("https://mistral.ai.example.com/v1", "max_completion_tokens"),
        ("https://gateway.example.com/api.mistral.ai/v1", "max_completion_tokens"),
        ("http://127.0.0.1:8000/v1", "max_completion_tokens"),
    ],
)
def test_whose_server_it_is_is_told_by_the_host_alone(base_url: str, parameter: str) -> None:
    assert find_max_tokens_parameter(base_url) == parameter


def test_antinomy_offers_its_seven_models() -> None:
    preset = get_preset("antinomy")

    assert (preset.name, preset.base_url) == ("Antinomy AI", "https://antinomy.ai/api/v1")
    assert preset.models == (
        "anthropic/claude-opus-4",
        "anthropic/claude-sonnet-4",
        "anthropic/claude-3.7-sonnet",
        "anthropic/claude-3.5-sonnet",
        "anthropic/claude-3.7-sonnet:thinking",
        "google/gemini-2.5-pro-preview",
        "x-ai/grok-3-beta",
    )


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(UnknownPreset):
        get_preset("nobody")
