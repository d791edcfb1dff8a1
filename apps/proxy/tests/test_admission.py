"""Authentication and the plan of a call, without I/O."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from ipaddress import ip_network
from typing import Any

import pytest

from apps.ai_models.overrides import parse_overrides
from apps.billing.pricing import USUAL, Price
from apps.core.crypto import keyed_digest
from apps.core.errors import GatewayError
from apps.core.price_terms import ServiceTier, Terms, TimeWindow
from apps.proxy.admission import plan_call
from apps.proxy.authentication import authenticate, check_operation
from apps.proxy.dialects.openai_request import parse_request
from apps.proxy.dialects.targets import find_target
from apps.proxy.operations import Operation
from apps.proxy.snapshot import Caller, PriceHistory
from apps.proxy.tests.values import EARLIER, NO_PRICES, NOW, ROUTE, make_caller, make_snapshot
from tests.support.cases import for_all

PEPPER = b"p" * 32
RAW = "sk-audit-0123456789"
DIGEST = keyed_digest(PEPPER, RAW)
BEARER = {b"authorization": f"Bearer {RAW}".encode()}
MESSAGES = [{"role": "user", "content": "Hello"}]


def _authenticate(headers: dict[bytes, bytes], **changes: Any) -> Caller:
    snapshot = make_snapshot(DIGEST, **changes)
    return authenticate(snapshot, headers, pepper=PEPPER, address="192.0.2.7", now=NOW)


@pytest.mark.parametrize(
    "headers",
    [
        BEARER,
        {b"authorization": f"bearer  {RAW} ".encode()},
        {b"x-api-key": RAW.encode()},
        {b"x-goog-api-key": RAW.encode()},
        {**BEARER, b"x-api-key": RAW.encode()},
    ],
)
def test_a_key_is_taken_from_any_of_three_headers(headers: dict[bytes, bytes]) -> None:
    assert _authenticate(headers).member.name == "alice"


@pytest.mark.parametrize(
    ("headers", "row"),
    [
        ({}, "E01"),
        ({b"authorization": b"Bearer"}, "E02"),
        ({b"authorization": f"Basic {RAW}".encode()}, "E02"),
        ({b"authorization": b"Bearer ' OR '1'='1"}, "E02"),
        ({b"authorization": b"Bearer " + b"k" * 10_000}, "E02"),
        ({b"authorization": b"Bearer \xf0\x9f\x94\x91\x00"}, "E02"),
        ({b"authorization": f"Bearer {RAW}x".encode()}, "E02"),
        ({**BEARER, b"x-api-key": b"sk-other"}, "E03"),
    ],
)
def test_what_is_no_valid_key_is_refused(headers: dict[bytes, bytes], row: str) -> None:
    with pytest.raises(GatewayError) as raised:
        _authenticate(headers)

    assert raised.value.row == row


@pytest.mark.parametrize(
    ("changes", "row", "code"),
    [
        ({"key": {"is_active": False}}, "E04", "api_key_disabled"),
        ({"key": {"expires_at": NOW}}, "E04", "api_key_expired"),
        ({"member": {"is_active": False}}, "E05", "account_disabled"),
        ({"key": {"allowed_networks": (ip_network("10.0.0.0/8"),)}}, "E06", "ip_not_authorized"),
    ],
)
def test_a_right_key_that_may_not_be_used_is_told_why(
    changes: dict[str, Any], row: str, code: str
) -> None:
    with pytest.raises(GatewayError) as raised:
        _authenticate(BEARER, **changes)

    assert (raised.value.row, raised.value.code) == (row, code)


@pytest.mark.parametrize("allowed", [(), ("chat",), ("usage", "chat")])
def test_a_key_is_used_for_what_it_is_allowed(allowed: tuple[str, ...]) -> None:
    key = make_caller(key={"allowed_operations": frozenset(allowed)}).key

    check_operation(key, Operation("call", "gemini", "generateContent"))


@pytest.mark.parametrize("allowed", [("completions",), ("chats",), ("models", "usage")])
def test_a_key_is_not_used_for_anything_else(allowed: tuple[str, ...]) -> None:
    key = make_caller(key={"allowed_operations": frozenset(allowed)}).key

    with pytest.raises(GatewayError) as raised:
        check_operation(key, Operation("count", "anthropic", "messages"))

    assert (raised.value.row, raised.value.code) == ("E08", "insufficient_scope")


def test_a_key_inside_its_bounds_is_let_in() -> None:
    changes = {
        "expires_at": NOW + timedelta(microseconds=1),
        "allowed_networks": (ip_network("192.0.2.0/24"),),
    }

    assert _authenticate(BEARER, key=changes).key.id == 1


def _plan(body: dict[str, Any], **model: Any) -> Any:
    request = parse_request("chat/completions", {"model": "gpt", "messages": MESSAGES, **body})
    return plan_call(make_snapshot(DIGEST, model=model), make_caller(), request, NOW)


def test_the_worst_case_is_held_and_a_fixed_maximum_is_never_lowered() -> None:
    plan = _plan({"max_tokens": 100, "n": 2})

    output = 200 * 10_000
    assert plan.wanted_nanos == plan.input_bound * 2_500 + output
    assert plan.least_nanos == plan.wanted_nanos
    assert plan.cap_for(plan.wanted_nanos) is None


def test_without_a_maximum_the_cap_is_lowered_to_what_the_money_buys() -> None:
    plan = _plan({})
    for_300 = plan.input_bound * 2_500 + 300 * 10_000

    assert plan.wanted_nanos == plan.input_bound * 2_500 + 500 * 10_000
    assert plan.least_nanos == plan.input_bound * 2_500 + 256 * 10_000
    assert plan.cap_for(for_300) == 300
    assert plan.cap_for(for_300 + 9_999) == 300
    assert plan.cap_for(plan.wanted_nanos) is None


@pytest.mark.parametrize(
    ("body", "model", "row"),
    [
        ({"model": "gpt-unknown"}, {}, "E07"),
        ({}, {"groups": ()}, "E07"),
        ({"max_tokens": 501}, {}, "E13"),
        ({}, {"prices": NO_PRICES}, "E32"),
        (
            {},
            {"prices": PriceHistory((NOW + timedelta(1),), (Price(id=1, input=1, output=1),))},
            "E32",
        ),
        ({}, {"prices": PriceHistory((EARLIER,), (Price(id=1, input=1),))}, "E32"),
        ({}, {"routes": ()}, "E32"),
    ],
)
def test_a_call_that_cannot_be_priced_or_sent_is_refused(
    body: dict[str, Any], model: dict[str, Any], row: str
) -> None:
    with pytest.raises(GatewayError) as raised:
        _plan(body, **model)

    assert raised.value.row == row


def _priced(**changes: Any) -> dict[str, Any]:
    price = Price(id=1, input=2_500_000_000, output=10_000_000_000, **changes)
    return {"prices": PriceHistory((EARLIER,), (price,))}


FLEX_AND_PRIORITY = Terms(
    service_tiers=(ServiceTier("flex", 500_000), ServiceTier("priority", 2_000_000))
)
SEARCH: dict[str, Any] = {"web_search_options": {}}


@pytest.mark.parametrize(
    ("body", "price", "param"),
    [
        ({"service_tier": "flex"}, {}, "service_tier"),
        ({"service_tier": "batch"}, {"terms": FLEX_AND_PRIORITY}, "service_tier"),
        (SEARCH, {}, "web_search_options"),
        (SEARCH, {"terms": FLEX_AND_PRIORITY}, "web_search_options"),
        ({"modalities": ["text", "audio"]}, {}, "modalities"),
        # Though it has a price by its direction, nobody has set one for it.
        ({"audio": {"voice": "alloy"}}, {"audio_in": 1}, "audio"),
    ],
)
def test_what_its_price_does_not_name_is_refused(
    body: dict[str, Any], price: dict[str, Any], param: str
) -> None:
    with pytest.raises(GatewayError) as raised:
        _plan(body, **_priced(**price))

    assert (raised.value.row, raised.value.param) == ("E14", param)


@pytest.mark.parametrize(("tier", "times"), [("auto", 1), ("flex", 1), ("priority", 2)])
def test_the_hold_covers_the_dearest_tier_that_may_be_served(tier: str, times: int) -> None:
    plan = _plan({"max_tokens": 100, "service_tier": tier}, **_priced(terms=FLEX_AND_PRIORITY))

    assert plan.wanted_nanos == times * (plan.input_bound * 2_500 + 100 * 10_000)


def test_a_longer_cache_is_taken_where_it_has_a_price() -> None:
    long = {"prompt_cache_options": {"ttl": "12h"}}
    with pytest.raises(GatewayError) as raised:
        _plan(long, **_priced(cache_write_5m=3_125_000_000))

    assert (raised.value.row, raised.value.param) == ("E14", "prompt_cache_options.ttl")
    for options in ({"ttl": "30m"}, {}, None):
        plan = _plan({"prompt_cache_options": options}, **_priced())
        assert plan.wanted_nanos == plan.input_bound * 2_500 + 500 * 10_000
    plan = _plan(long, **_priced(cache_write_1h=5_000_000_000))
    assert plan.wanted_nanos == plan.input_bound * 5_000 + 500 * 10_000


def test_a_call_that_may_search_holds_for_ten_searches_and_a_full_context() -> None:
    plan = _plan({"max_tokens": 100, **SEARCH}, **_priced(web_search=30_000_000))

    assert plan.input_bound == 1_000
    assert plan.wanted_nanos == 1_000 * 2_500 + 100 * 10_000 + 10 * 30_000_000


@pytest.mark.parametrize(
    "body", [{"modalities": ["text", "audio"]}, {"audio": {"voice": "alloy", "format": "wav"}}]
)
def test_a_spoken_answer_is_held_for_at_the_dearest_class(body: dict[str, Any]) -> None:
    priced = _priced(audio_in=40_000_000_000, audio_out=80_000_000_000)

    spoken = _plan({"max_tokens": 100, **body}, **priced)
    written = _plan({"max_tokens": 100}, **priced)

    assert spoken.wanted_nanos == spoken.input_bound * 40_000 + 100 * 80_000
    assert written.wanted_nanos == written.input_bound * 2_500 + 100 * 10_000


def test_an_earlier_spoken_answer_is_held_for_as_audio() -> None:
    messages = [{"role": "assistant", "audio": {"id": "audio_1"}}, *MESSAGES]
    plan = _plan({"max_tokens": 100, "messages": messages}, **_priced(audio_in=40_000_000_000))

    assert plan.wanted_nanos == 1_000 * 40_000 + 100 * 10_000


def test_what_is_predicted_is_held_for_beside_the_maximum() -> None:
    prediction = {"type": "content", "content": "ab"}  # 33 bytes of JSON
    plan = _plan({"max_tokens": 100, "n": 2, "prediction": prediction})

    assert plan.wanted_nanos == plan.input_bound * 2_500 + 2 * 133 * 10_000


def test_what_is_predicted_does_not_raise_the_cap_that_money_buys() -> None:
    plan = _plan({"prediction": {"type": "content", "content": "ab"}})
    for_300 = plan.input_bound * 2_500 + (300 + 33) * 10_000

    assert plan.cap_for(for_300) == 300
    assert plan.least_nanos == plan.input_bound * 2_500 + (256 + 33) * 10_000
    assert plan.cap_for(plan.least_nanos) == 256


def _searching(name: str) -> dict[str, Any]:
    target = find_target(
        dialect="openai", host="api.openai.com", upstream_name=name, cap_parameter="max_tokens"
    )
    return {"routes": (replace(ROUTE, target=target),)}


@for_all("name", ["gpt-4o-search-preview", "gpt-4o-mini-search-preview", "gpt-5-search-api"])
def test_a_model_that_always_searches_holds_for_it_whatever_is_asked(name: str) -> None:
    model = {**_searching(name), **_priced(web_search=25_000_000)}
    bodies: tuple[dict[str, Any], ...] = (
        {},
        {"web_search_options": None},
        {"web_search_options": False},
        SEARCH,
    )

    for body in bodies:
        plan = _plan({"max_tokens": 100, **body}, **model)
        assert plan.request.has_web_search
        assert plan.wanted_nanos == 1_000 * 2_500 + 100 * 10_000 + 10 * 25_000_000


def test_a_model_that_always_searches_is_not_sold_without_a_price_for_it() -> None:
    with pytest.raises(GatewayError) as raised:
        _plan({"max_tokens": 100}, **_searching("gpt-4o-search-preview"))

    assert raised.value.row == "E32"


def test_other_models_search_where_they_are_asked_to() -> None:
    model = {**_searching("gpt-4o"), **_priced(web_search=25_000_000)}

    assert not _plan({"max_tokens": 100}, **model).request.has_web_search


def _hosted(host: str, **route: Any) -> dict[str, Any]:
    """Return a model whose only route goes to a host."""
    target = find_target(
        dialect="openai", host=host, upstream_name="gpt", cap_parameter="max_tokens"
    )
    return {"routes": (replace(ROUTE, target=target, **route),)}


@for_all(
    ("host", "body", "tokens"),
    [
        # By its own maximum of 500, where nothing bounds the thoughts.
        ("dashscope.aliyuncs.com", {"max_tokens": 1}, 501),
        ("dashscope-intl.aliyuncs.com", {"max_completion_tokens": 1}, 501),
        ("dashscope.aliyuncs.com", {}, 1_000),
        ("dashscope.aliyuncs.com", {"max_tokens": 1, "enable_thinking": False}, 501),
        ("dashscope.aliyuncs.com", {"max_tokens": 1, "thinking_budget": 0}, 1),
        ("dashscope.aliyuncs.com", {"max_tokens": 1, "thinking_budget": 700}, 701),
        ("dashscope.aliyuncs.com", {"max_tokens": 1, "thinking_budget": 38_000}, 1_001),
        ("dashscope.aliyuncs.com", {"max_tokens": 1, "thinking_budget": True}, 501),
        ("dashscope.aliyuncs.com", {"max_tokens": 1, "thinking_budget": 30, "n": 2}, 62),
        ("ark.cn-beijing.volces.com", {"max_tokens": 1}, 501),
        ("ark.cn-beijing.volces.com", {"max_tokens": 1, "thinking_budget": 0}, 501),
        ("ark.cn-beijing.volces.com", {"max_completion_tokens": 1}, 1),
        ("ark.ap-southeast.bytepluses.com", {"max_tokens": 1}, 501),
        ("api.deepseek.com", {"max_tokens": 1, "thinking_budget": 700}, 1),
        ("aliyuncs.com.example", {"max_tokens": 1}, 1),
    ],
)
def test_thoughts_are_held_for_where_no_maximum_bounds_them(
    host: str, body: dict[str, Any], tokens: int
) -> None:
    plan = _plan(body, **_hosted(host))

    assert plan.wanted_nanos == plan.input_bound * 2_500 + tokens * 10_000


def test_a_budget_of_thoughts_that_a_route_sets_is_what_is_held_for() -> None:
    overrides = parse_overrides({"parameters": {"set": {"thinking_budget": 40}}})
    assert overrides is not None
    model = _hosted("dashscope.aliyuncs.com", parameters=overrides.parameters)
    plan = _plan({"max_tokens": 1, "thinking_budget": 7}, **model)

    assert plan.wanted_nanos == plan.input_bound * 2_500 + 41 * 10_000


def test_a_model_that_does_not_think_is_held_for_its_maximum() -> None:
    (route,) = _hosted("dashscope.aliyuncs.com")["routes"]
    silent = replace(route, target=route.target._replace(reasoning="none"))
    plan = _plan({"max_tokens": 1}, routes=(silent,))

    assert plan.wanted_nanos == plan.input_bound * 2_500 + 10_000


def test_of_several_routes_that_with_the_most_thoughts_is_held_for() -> None:
    (thinking,) = _hosted("dashscope.aliyuncs.com")["routes"]
    plan = _plan({"max_tokens": 1}, routes=(ROUTE, replace(thinking, id=2)))

    assert plan.wanted_nanos == plan.input_bound * 2_500 + 501 * 10_000


def test_a_window_is_that_of_the_moment_of_admission() -> None:
    noon = Terms(windows=(TimeWindow(720, 721, 500_000),))
    other = Terms(windows=(TimeWindow(721, 722, 500_000),))

    halved = _plan({"max_tokens": 100}, **_priced(terms=noon))
    usual = _plan({"max_tokens": 100}, **_priced(terms=other))

    assert (halved.conditions.minute, usual.wanted_nanos) == (720, 2 * halved.wanted_nanos)


def test_a_usual_price_is_planned_without_conditions() -> None:
    plan = _plan({"service_tier": "default"})

    assert (plan.conditions, plan.count_bounds) == (USUAL, {})


def test_a_call_holds_for_an_image_of_each_answer_where_images_have_a_price() -> None:
    priced = _priced(image=40_000_000)

    plan = _plan({"max_tokens": 100, "n": 2}, **priced)
    usual = _plan({"max_tokens": 100, "n": 2})

    assert plan.count_bounds == {"image": 2}
    assert plan.wanted_nanos == usual.wanted_nanos + 2 * 40_000_000


@pytest.mark.parametrize(
    ("documents", "units"), [(["a"], 1), (["a"] * 100, 2), (["a" * 25_000] * 50, 2)]
)
def test_a_ranking_holds_for_its_units_where_they_have_a_price(
    documents: list[str], units: int
) -> None:
    request = parse_request("rerank", {"model": "gpt", "query": "q", "documents": documents})
    prices = _priced(tool_call=2_000_000)
    plan = plan_call(make_snapshot(DIGEST, model=prices), make_caller(), request, NOW)

    assert plan.count_bounds == {"tool_call": units}
