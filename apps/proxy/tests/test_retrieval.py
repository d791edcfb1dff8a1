"""What may be asked about a stored answer."""

import pytest

from apps.core.errors import GatewayError
from apps.proxy.operations import find_operation
from apps.proxy.retrieval import read_question


def path_of(query: bytes) -> str:
    operation = find_operation("/v1/responses/resp_1")
    assert operation is not None
    return read_question(operation, "GET", query).path


def test_what_may_be_asked_goes_on() -> None:
    assert path_of(b"") == "responses/resp_1"
    assert path_of(b"include[]=reasoning.encrypted_content&stream=false") == (
        "responses/resp_1?include%5B%5D=reasoning.encrypted_content"
    )


@pytest.mark.parametrize(
    ("query", "param"),
    [
        # Only what was made in the background could be streamed again, and nothing is made so.
        (b"stream=true", "stream"),
        (b"stream=true&starting_after=7", "stream"),
        (b"starting_after=7", "starting_after"),
        (b"include_obfuscation=false", "include_obfuscation"),
        (b"stream=%ff", "stream"),
    ],
)
def test_what_cannot_be_is_refused_by_name(query: bytes, param: str) -> None:
    with pytest.raises(GatewayError) as refusal:
        path_of(query)

    assert (refusal.value.row, refusal.value.param) == ("E14", param)
