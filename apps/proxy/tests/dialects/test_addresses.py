"""What a request may name: pages of the web, and bytes that it holds itself."""

from typing import Any, Final

import pytest

from apps.core.errors import GatewayError
from apps.proxy.dialects.parsed_request import DialectName, Endpoint
from apps.proxy.dialects.surfaces import parse_request
from tests.support.cases import for_all

OTHERS: Final = (
    "gs://bucket/secret.png", " GS://bucket/secret.png", "s3://bucket/a", "file:///etc/passwd",
    "ftp://example.com/a.png", "http\t://example.com", "\x00gs://bucket/a", "//gs:",
    "files/abc123xyz", " Files/abc123xyz", "/v1beta/files/abc123xyz",
    "https://generativelanguage.googleapis.com/v1beta/files/abc123xyz",
    "https://a@GenerativeLanguage.googleapis.com:443/v1beta/files/abc123xyz:download?alt=media",
)  # fmt: skip
WEB: Final = (
    "https://example.com/a.png", "HTTP://example.com/a:b.png", " https://example.com/a.png",
    "data:image/png;base64,aaaa", "https://www.youtube.com/watch?v=x",
    "data:image/png;base64,files/generativelanguage", "https://example.com/files/a.png", "",
)  # fmt: skip
# Bytes in base64, of which some servers read images and sounds.
BARE: Final = ("iVBORw0KGgo=", "iVBORw0KGgo" * 30 + "files/")
# What is an address and nothing else.
ONLY_ADDRESSES: Final = ("file_url", "fileUri", "source.url")


def chat(part: dict[str, Any]) -> tuple[Endpoint, DialectName, dict[str, Any]]:
    messages = [{"role": "user", "content": [{"type": "text", "text": "gs://b"}, part]}]
    return "chat/completions", "openai", {"messages": messages}


def responses(item: dict[str, Any]) -> tuple[Endpoint, DialectName, dict[str, Any]]:
    return "responses", "openai-responses", {"input": [item]}


def said(part: dict[str, Any]) -> tuple[Endpoint, DialectName, dict[str, Any]]:
    return responses({"role": "user", "content": [part]})


def messages(block: dict[str, Any]) -> tuple[Endpoint, DialectName, dict[str, Any]]:
    return (
        "messages",
        "anthropic",
        {"max_tokens": 9, "messages": [{"role": "user", "content": [block]}]},
    )


def places(url: str) -> dict[str, tuple[Endpoint, DialectName, dict[str, Any]]]:
    """Return requests that name an address, by the parameter at fault."""
    source = {"type": "url", "url": url}
    result = {"type": "tool_result", "tool_use_id": "t", "content": [{"source": source}]}
    screen = {"type": "computer_screenshot", "image_url": url}
    part, block = "messages[0].content[1]", "messages[].content[].source.url"
    file = {"fileData": {"fileUri": url, "mimeType": "image/png"}}
    return {
        f"{part}.image_url.url": chat({"type": "image_url", "image_url": {"url": url}}),
        f"{part}.image_url": chat({"type": "image_url", "image_url": url}),
        f"{part}.file.file_data": chat({"type": "file", "file": {"file_data": url}}),
        f"{part}.video": chat({"type": "video", "video": ["https://example.com", url]}),
        f"{part}.video_url.url": chat({"type": "video_url", "video_url": {"url": url}}),
        f"{part}.input_audio.data": chat({"type": "input_audio", "input_audio": {"data": url}}),
        "input[0].image_url": said({"type": "input_image", "image_url": url}),
        "input[0].file_url": said({"type": "input_file", "file_url": url}),
        "input[0].output.image_url": responses({"type": "computer_call_output", "output": screen}),
        block: messages({"type": "image", "source": source}),
        f"{block} ": messages(result),
        "contents[0].parts[0].fileData.fileUri": (
            "generateContent",
            "gemini",
            {"contents": [{"parts": [file]}]},
        ),
        "input[0].image_url.url": (
            "moderations",
            "openai",
            {"input": [{"type": "image_url", "image_url": {"url": url}}]},
        ),
    }


@for_all("url", OTHERS)
def test_what_the_operators_account_could_read_is_refused_by_name(url: str) -> None:
    for place, (endpoint, dialect, body) in places(url).items():
        with pytest.raises(GatewayError) as error:
            parse_request(endpoint, dialect, {"model": "m", **body})

        assert (error.value.row, error.value.param) == ("E14", place.strip())


@for_all("url", WEB)
def test_pages_of_the_web_and_bytes_within_a_request_pass(url: str) -> None:
    for endpoint, dialect, body in places(url).values():
        assert parse_request(endpoint, dialect, {"model": "m", **body}).model == "m"


@for_all("data", BARE)
def test_bytes_without_a_scheme_pass_where_a_place_takes_such(data: str) -> None:
    for place, (endpoint, dialect, body) in places(data).items():
        if not place.strip().endswith(ONLY_ADDRESSES):
            assert parse_request(endpoint, dialect, {"model": "m", **body}).model == "m"
            continue
        with pytest.raises(GatewayError) as error:
            parse_request(endpoint, dialect, {"model": "m", **body})

        assert (error.value.row, error.value.param) == ("E14", place.strip())


@for_all(
    ("name", "where"),
    [
        ("generationOutputConfig", "generationOutputConfig"),
        ("generation_output_config", "generation_output_config"),
        ("outputUriPrefix", "outputUriPrefix"),
    ],
)
def test_no_answer_is_written_to_the_operators_storage(name: str, where: str) -> None:
    body: dict[str, Any] = {"model": "m", "contents": [{"parts": [{"text": "x"}]}]}
    for asked, param in (
        ({name: {"outputUriPrefix": "gs://b/"}}, where),
        ({"generationConfig": {name: "gs://b/"}}, f"generationConfig.{where}"),
    ):
        with pytest.raises(GatewayError) as error:
            parse_request("generateContent", "gemini", {**body, **asked})

        assert (error.value.row, error.value.param) == ("E14", param)
