"""What stands in a model name."""

from __future__ import annotations

import pytest

from apps.providers.demo.options import OptionError, Options, parse_model_name


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("llama3:8b", Options()),
        ("ft:gpt-4o:org::id", Options()),
        ("m:tokens=5,pace=0.5", Options(tokens=5, pace=0.5)),
        ("m:8b:tokens=5", Options(tokens=5)),
        (
            "m:fault=redirect(http://x/a?b=c:d),latency=1",
            Options(fault="redirect", fault_arguments=("http://x/a?b=c:d",), latency=1.0),
        ),
        (
            "m:fault=status(429,insufficient_quota)",
            Options(fault="status", fault_arguments=("429", "insufficient_quota")),
        ),
    ],
)
def test_options_follow_the_base_name(name: str, options: Options) -> None:
    assert parse_model_name(name) == options


@pytest.mark.parametrize(
    "name", ["m:tokens=1,tokens=2", "m:latency=nan", "m:fault=a b", "m:pace=-1"]
)
def test_options_that_make_no_sense_are_refused(name: str) -> None:
    with pytest.raises(OptionError):
        parse_model_name(name)
