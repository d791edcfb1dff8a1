"""Mutants of calls: what they are charged, in which order things happen, and how they end.

Over 400 lines because it is one table, and nothing else.
"""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import BOTH, Mutant

_SETTLEMENT: Final = "apps/proxy/settlement.py"
_REPEATS: Final = "apps/proxy/repeats.py"
_REPEAT_TESTS: Final = "tests/e2e/test_repeats.py"
_RELAY: Final = "apps/proxy/relay.py"
_DELIVERY: Final = "apps/proxy/delivery.py"
_HOLDS: Final = "apps/proxy/holds.py"
_ASGI: Final = "apps/proxy/asgi.py"
_PRICING: Final = "apps/billing/pricing.py"
_USAGE: Final = "apps/proxy/dialects/usage_reader.py"
_OPENAI_USAGE: Final = "apps/proxy/dialects/openai_usage.py"
_ANTHROPIC_USAGE: Final = "apps/proxy/dialects/anthropic_usage.py"
_GEMINI_STREAM: Final = "apps/proxy/dialects/gemini_stream.py"
_STREAM: Final = "apps/proxy/dialects/stream_meter.py"
_CONNECTING: Final = "apps/proxy/upstream.py"
_UPSTREAM: Final = "apps/proxy/dialects/openai_upstream.py"
_PROXY: Final = "apps/proxy/tests"
_PRICING_TESTS: Final = "apps/billing/tests/test_pricing.py"
_TERMS_TESTS: Final = "apps/billing/tests/test_terms.py"
_GOLDEN: Final = (
    f"{_PROXY}/test_golden_usage.py::test_a_documented_usage_becomes_classes_counts_and_a_charge"
)
_GEMINI: Final = f"{_PROXY}/dialects/test_gemini_metering.py"
_ORDER: Final = "tests/e2e/test_order.py"
_CHARGES: Final = "tests/e2e/test_charges.py"
_COSTS: Final = "tests/e2e/test_attempt_costs.py"
_STREAMS: Final = "tests/e2e/test_streams.py"
_SNAPSHOT: Final = "tests/e2e/test_snapshot.py"
_SDK: Final = "tests/e2e/test_openai_sdk.py"
_DIALECTS: Final = "tests/e2e/test_dialects.py"
_UNPROVEN: Final = "tests/e2e/test_tls.py::test_e47_who_cannot_prove_who_he_is_hears_nothing"

CALLS: Final = (
    Mutant(
        "the-provider-is-called-before-the-hold-commits",
        "I-10",
        _HOLDS,
        "answer = await call.gateway.writer.place(hold)",
        "call.placing = asyncio.create_task(call.gateway.writer.place(hold))\n"
        "        leg = (hold.buckets[-1], hold.amount_nanos)\n"
        "        answer = Held(hold.request_id, hold.amount_nanos, (leg,))",
        (f"{_ORDER}::test_nothing_reaches_the_provider_while_its_hold_is_not_committed",),
        BOTH,
    ),
    Mutant(
        "a-hold-covers-uncached-input-only",
        "I-17",
        _PRICING,
        "dearest_input=max(scaled[name] for name in INPUT_CLASSES),",
        'dearest_input=scaled["input"],',
        (f"{_PRICING_TESTS}::test_no_usage_inside_the_bounds_costs_more_than_the_worst_case",),
    ),
    Mutant(
        "a-hold-forgets-the-number-of-choices",
        "I-17",
        "apps/proxy/admission.py",
        "(cap + request.beside_bound) * request.choices,",
        "cap + request.beside_bound,",
        (
            f"{_PROXY}/test_admission.py::"
            "test_the_worst_case_is_held_and_a_fixed_maximum_is_never_lowered",
        ),
    ),
    Mutant(
        "a-client-lowers-its-own-hold",
        "I-17",
        _UPSTREAM,
        "contexts = max(contexts, len(prompts))",
        "contexts = len(prompts)",
        (
            f"{_PROXY}/test_openai_upstream.py::"
            "test_a_client_cannot_lower_the_bound_of_its_texts_by_another_name_for_them",
        ),
    ),
    Mutant(
        "the-end-is-told-before-the-charge-commits",
        "I-20",
        "apps/billing/writer.py",
        "await self.submit(resolve)",
        "self.submit(resolve)",
        (f"{_ORDER}::test_the_end_of_an_answer_waits_for_the_commit_of_its_charge",),
    ),
    Mutant(
        "refused-calls-count-twice",
        "I-22",
        _ASGI,
        " gateway.count_refusal(caller.key.id, error.code)",
        " gateway.count_refusal(caller.key.id, error.code)\n"
        "                gateway.count_refusal(caller.key.id, error.code)",
        ("tests/e2e/test_refusals.py::test_refused_calls_are_counted_exactly_by_key_and_reason",),
    ),
    Mutant(
        "a-refused-call-holds-money",
        "I-22",
        "apps/proxy/running.py",
        "extra = await take_limits(",
        "await call.place_hold()\n    extra = await take_limits(",
        ("tests/e2e/test_limits.py::test_a_refused_call_holds_and_costs_nothing",),
    ),
    Mutant(
        "the-client-pays-for-every-attempt",
        "I-23",
        _SETTLEMENT,
        "charge_nanos=charge,",
        "charge_nanos=charge * max(1, len(call.attempts)),",
        (f"{_COSTS}::test_the_client_pays_the_answer_and_the_operator_every_attempt",),
    ),
    Mutant(
        "what-a-lost-attempt-cost-is-forgotten",
        "I-23",
        "apps/proxy/attempt_costs.py",
        'return sum(attempt["cost_nanos"] or 0 for attempt in attempts)',
        "return own_nanos",
        (
            f"{_COSTS}::test_the_client_pays_the_answer_and_the_operator_every_attempt",
            f"{_COSTS}::test_a_call_that_nobody_answered_is_free_and_may_cost_the_operator",
        ),
    ),
    Mutant(
        "the-calls-of-the-dead-are-billed-by-nobody",
        "I-23",
        "apps/billing/reaper.py",
        "cost_nanos=0 if is_unsent else None,",
        "cost_nanos=0,",
        (
            "apps/billing/tests/test_reaper.py::"
            "test_what_a_provider_bills_for_a_call_of_a_dead_process_is_not_known",
        ),
    ),
    Mutant(
        "who-comes-late-forgets-his-attempts",
        "I-23",
        "apps/billing/ledger/batch.py",
        "changes.attempts.extend(resolve.attempts)\n    # The difference counts",
        "# The difference counts",
        (
            "apps/billing/tests/test_late_settlements.py::"
            "test_who_comes_late_again_writes_nothing_more",
        ),
    ),
    Mutant(
        "a-failed-call-costs-its-hold",
        "I-24",
        _SETTLEMENT,
        'if usage.source == "none":\n        return 0',
        'if usage.source == "none":\n        return held_nanos',
        (f"{_CHARGES}::test_a_call_that_failed_does_not_cost_the_price_of_a_request",),
    ),
    Mutant(
        "a-failed-call-costs-the-price-of-a-request",
        "I-24",
        _SETTLEMENT,
        'if usage.source == "none":\n        return 0',
        'if usage.source == "never":\n        return 0',
        (f"{_CHARGES}::test_a_call_that_failed_does_not_cost_the_price_of_a_request",),
    ),
    Mutant(
        "money-is-shown-as-a-float",
        "I-25",
        "apps/core/money.py",
        'return f"{sign}{dollars}.{fraction:09d}".rstrip("0")',
        'return f"{sign}{float(dollars) + fraction / 10**9:.9f}".rstrip("0")',
        ("apps/core/tests/test_money.py::test_writing_and_reading_an_amount_changes_nothing",),
    ),
    Mutant(
        "the-multiplier-counts-twice",
        "I-26",
        _SETTLEMENT,
        "full = charge_nanos(usage, plan.price, plan.access.multiplier_millionths, conditions)",
        "twice = plan.access.multiplier_millionths**2 // 1_000_000\n"
        "    full = charge_nanos(usage, plan.price, twice, conditions)",
        (f"{_CHARGES}::test_the_multiplier_counts_once",),
    ),
    Mutant(
        "an-estimate-passes-for-a-report",
        "I-27",
        _STREAM,
        'source="estimated",\n                is_suspect=',
        'source="reported",\n                is_suspect=',
        (f"{_STREAMS}::test_without_usage_the_text_is_estimated",),
    ),
    Mutant(
        "a-usage-that-came-early-is-the-whole",
        "I-27",
        _STREAM,
        "if is_final:\n            return usage._replace(is_suspect=True)",
        "if usage:\n            return usage._replace(is_suspect=True)",
        (
            f"{_PROXY}/test_plausibility.py::test_usage_that_came_early_is_no_report_of_the_answer",
            "tests/e2e/test_early_usage.py"
            "::test_leaving_after_an_early_usage_costs_what_was_delivered",
        ),
    ),
    Mutant(
        "an-estimate-exceeds-the-bound-of-its-hold",
        "I-27",
        "apps/proxy/recount.py",
        "images = min(prompt.image_tokens, input_bound - text)",
        "images = prompt.image_tokens",
        (f"{_PROXY}/test_recount.py::test_no_estimate_is_above_the_bound_of_the_hold",),
    ),
    Mutant(
        "a-vocabulary-is-not-checked",
        "I-27",
        "apps/proxy/tokenizer.py",
        "if hashlib.sha256(vocabulary).hexdigest() != digest:",
        "if not digest:",
        (
            f"{_PROXY}/test_tokenizer.py::"
            "test_a_vocabulary_that_is_not_the_one_that_was_shipped_is_refused[changed]",
        ),
    ),
    Mutant(
        "negative-usage-is-believed",
        "I-28",
        _USAGE,
        "if type(value) is int and 0 <= value <= TOKENS_MAX:",
        "if type(value) is int and value <= TOKENS_MAX:",
        (
            f"{_PROXY}/test_openai_usage.py::test_numbers_that_cannot_be_right_are_suspect",
            f"{_STREAMS}::test_usage_that_holds_no_count_is_replaced_by_an_estimate",
        ),
    ),
    Mutant(
        "cached-tokens-count-twice",
        "I-29",
        _OPENAI_USAGE,
        "input=prompt - cached - audio_in,",
        "input=prompt - audio_in,",
        (
            _GOLDEN,
            f"{_SDK}::test_cached_and_reasoning_tokens_are_told_apart_and_charged",
        ),
    ),
    Mutant(
        "reasoning-counts-twice",
        "I-29",
        _OPENAI_USAGE,
        "output=completion - reasoning - audio_out,",
        "output=completion - audio_out,",
        (_GOLDEN,),
    ),
    Mutant(
        "what-a-dialect-tells-apart-stays-in-its-whole",
        "I-29",
        _USAGE,
        "input=read - parts.input_tokens,",
        "input=read,",
        (_GOLDEN,),
    ),
    Mutant(
        "anthropic-s-cache-is-taken-out-of-its-input",
        "I-29",
        _ANTHROPIC_USAGE,
        "read=plain + parts.input_tokens,",
        "read=plain,",
        (_GOLDEN,),
    ),
    Mutant(
        "of-gemini-s-usages-the-first-one-counts",
        "I-30",
        _GEMINI_STREAM,
        "in reversed(split_events(block)):",
        "in split_events(block):",
        (f"{_GEMINI}::test_a_stream_that_breaks_off_costs_what_was_reported_last",),
    ),
    Mutant(
        "gemini-s-last-event-does-not-wait",
        "I-20",
        _GEMINI_STREAM,
        "if self.finish_reason is None:\n            return going_on",
        "if True:\n            return going_on",
        (f"{_GEMINI}::test_the_last_event_waits_for_the_end",),
    ),
    Mutant(
        "any-number-of-tokens-is-believed",
        "I-28",
        _STREAM,
        "if not self._is_plausible(usage):",
        "if False:",
        (
            f"{_PROXY}/test_plausibility.py"
            "::test_a_stream_with_many_times_the_tokens_of_its_text_is_suspect",
            f"{_STREAMS}::test_many_times_the_tokens_of_the_text_cost_the_hold_and_are_counted",
        ),
    ),
    Mutant(
        "more-than-was-asked-is-believed",
        "I-28",
        _SETTLEMENT,
        "return usage if fits(usage, asked) else usage._replace(is_suspect=True)",
        "return usage",
        (
            f"{_PROXY}/test_settlement.py"
            "::test_usage_is_suspect_beyond_what_the_plan_of_its_call_allows",
            f"{_STREAMS}::test_what_nobody_can_have_asked_for_costs_the_hold_and_is_counted",
        ),
    ),
    Mutant(
        "cumulative-usage-is-added-up",
        "I-30",
        _STREAM,
        "self.usage = usage\n",
        "last = self.usage or Usage()\n"
        "            self.usage = Usage(\n"
        "                input=last.input + usage.input,\n"
        "                output=last.output + usage.output,\n"
        '                source="reported",\n'
        "            )\n",
        (
            f"{_PROXY}/test_openai_stream.py::test_the_last_usage_counts_and_is_never_added_up",
            f"{_STREAMS}::test_usage_in_unusual_places_is_charged_exactly",
        ),
    ),
    Mutant(
        "clients-decide-whether-usage-is-reported",
        "I-31",
        _UPSTREAM,
        '"include_usage": True,\n',
        '"include_usage": bool(isinstance(options, Mapping) and options.get("include_usage")),\n',
        (f"{_SDK}::test_what_a_client_says_about_usage_never_changes_the_charge",),
    ),
    Mutant(
        "the-client-s-name-of-the-model-is-sent",
        "I-32",
        _UPSTREAM,
        'sent["model"] = upstream_model',
        'sent.setdefault("model", upstream_model)',
        (
            f"{_PROXY}/test_openai_upstream.py::"
            "test_the_upstream_sees_its_own_name_of_the_model_and_nothing_else_changed",
        ),
    ),
    Mutant(
        "of-two-models-the-last-one-counts",
        "I-32",
        "apps/proxy/json_body.py",
        "object_pairs_hook=_unique_object,",
        "",
        (f"{_PROXY}/test_json_body.py::test_a_parameter_named_twice_is_refused",),
    ),
    Mutant(
        "the-price-is-read-at-the-settlement",
        "I-40",
        _SETTLEMENT,
        "full = charge_nanos(usage, plan.price, plan.access.multiplier_millionths, conditions)",
        "snapshot = call.gateway.find_snapshot()\n"
        "    assert snapshot is not None\n"
        "    now = type(call.started_at).now(call.started_at.tzinfo)\n"
        "    price = snapshot.catalogue.models[plan.model.name].prices.at(now) or plan.price\n"
        "    full = charge_nanos(usage, price, plan.access.multiplier_millionths, conditions)",
        (f"{_SNAPSHOT}::test_i40_a_running_stream_keeps_the_price_of_its_hold",),
    ),
    Mutant(
        "a-hold-covers-the-asked-tier-only",
        "I-17",
        _PRICING,
        "for service in {asked} if is_served_as_asked else {None, asked}:",
        "for service in (asked,):",
        (f"{_TERMS_TESTS}::test_a_hold_covers_the_dearer_of_the_tier_asked_for_and_the_usual_one",),
    ),
    Mutant(
        "a-tier-without-a-price-is-let-through",
        "I-43",
        "apps/proxy/admission.py",
        "if tier and (price.terms is None or price.terms.find_service(tier) is None):",
        "if tier and price.terms is None:",
        (f"{_PROXY}/test_admission.py::test_what_its_price_does_not_name_is_refused",),
    ),
    Mutant(
        "the-tier-that-was-served-is-not-recorded",
        "I-26",
        _SETTLEMENT,
        "service_tier=conditions.service_tier,",
        "",
        (f"{_CHARGES}::test_a_call_is_charged_and_recorded_at_the_tier_that_was_served",),
    ),
    Mutant(
        "charges-are-floats",
        "I-09",
        _PRICING,
        "return -(-numerator // denominator)",
        "return int(-(-numerator / denominator // 1))",
        (f"{_PRICING_TESTS}::test_a_charge_beyond_what_a_float_can_hold_is_exact",),
    ),
    Mutant(
        "each-class-is-rounded-up",
        "I-41",
        _PRICING,
        "sum(map(mul, _tokens(usage), rates.by_class))",
        "sum(_round_up(part, 10**6) * 10**6 for part in map(mul, _tokens(usage), rates.by_class))",
        (f"{_PRICING_TESTS}::test_rounding_adds_less_than_one_nano_and_never_takes_any",),
    ),
    Mutant(
        "charges-are-rounded-down",
        "I-42",
        _PRICING,
        "return -(-numerator // denominator)",
        "return numerator // denominator",
        (f"{_PRICING_TESTS}::test_the_smallest_price_still_costs_one_nano",),
    ),
    Mutant(
        "what-has-no-price-is-free",
        "I-43",
        "apps/proxy/admission.py",
        "price = model.prices.at(now)",
        "price = model.prices.at(now) or Price(id=0, input=0, output=0)",
        (
            f"{_PROXY}/test_admission.py::test_a_call_that_cannot_be_priced_or_sent_is_refused",
            f"{_SNAPSHOT}::test_i43_a_model_without_a_whole_price_is_never_sent_to_a_provider",
        ),
    ),
    Mutant(
        "keys-belong-to-everybody",
        "I-34",
        _REPEATS,
        "user_id = caller.member.id",
        "user_id = 0",
        (f"{_REPEAT_TESTS}::test_another_user_with_the_same_key_makes_a_call_of_his_own",),
    ),
    Mutant(
        "a-refusal-hides-what-was-paid-for",
        "I-33",
        _REPEATS,
        '"E07", "E13", "E14", "E32", "E33", "E41", "E42"',
        '"E14"',
        (
            "tests/e2e/test_repeats_of_refused.py"
            "::test_a_repeat_gets_its_answer_where_a_first_call_is_refused",
        ),
    ),
    Mutant(
        "the-body-of-a-repeat-does-not-matter",
        "I-35",
        _REPEATS,
        "if first.fingerprint != keyed.claim.fingerprint:",
        "if not first.fingerprint:",
        (f"{_REPEAT_TESTS}::test_e28_the_order_of_members_does_not_matter_and_one_character_does",),
    ),
    Mutant(
        "a-failed-call-burns-its-key",
        "I-36",
        _REPEATS,
        "if answer is None and charge_nanos:",
        "if answer is None:",
        (f"{_REPEAT_TESTS}::test_a_call_that_failed_uncharged_does_not_burn_its_key",),
    ),
    Mutant(
        "a-database-that-is-away-is-a-bad-key",
        "E34",
        _HOLDS,
        'raise GatewayError("E34") from error',
        'raise GatewayError("E02") from error',
        ("tests/e2e/test_error_rows_limits.py::test_e34_the_database_does_not_answer",),
    ),
    Mutant(
        "a-broken-stream-ends-cleanly",
        "E60",
        _RELAY,
        "if is_failed or not meter.is_whole(self._plan.request.streamed_choices):",
        "if is_failed:",
        (f"{_STREAMS}::test_a_broken_stream_never_looks_finished_and_costs_what_was_delivered",),
    ),
    Mutant(
        "a-broken-stream-closes-like-a-whole-one",
        "E60",
        _DELIVERY,
        "self._connection.write(self._rest + event)",
        "self._connection.end(self._rest + event)",
        (f"{_STREAMS}::test_a_broken_stream_never_looks_finished_and_costs_what_was_delivered",),
    ),
    Mutant(
        "what-ends-a-stream-begins-inside-an-event",
        "E61",
        _DELIVERY,
        "self._rest = rest_of_event(data, start)",
        'self._rest = b""',
        (
            f"{_PROXY}/test_delivery.py::test_what_breaks_a_stream_off_does_not_come_inside_an_event",
        ),
    ),
    Mutant(
        "a-stream-brings-as-much-as-it-likes",
        "E61",
        "apps/proxy/call.py",
        "elif self.output_bytes > STREAM_BYTES_MAX or (",
        "elif (",
        (f"{_PROXY}/test_delivery.py::test_one_that_has_been_sent_256_mebibytes_is_sent_no_more",),
    ),
    Mutant(
        "what-a-message-begins-with-is-its-usage",
        "I-27",
        "apps/proxy/dialects/anthropic_stream.py",
        "        # Until the last event but one no usage tells of the answer.\n        return True",
        "        return not usage.output_tokens",
        (f"{_DIALECTS}::test_who_leaves_a_stream_pays_for_what_was_delivered",),
    ),
    Mutant(
        "what-is-passed-over-is-free",
        "I-27",
        _STREAM,
        "            return False\n        self._keep(block)\n        return True",
        "            return False\n        return True",
        (f"{_PROXY}/dialects/test_passing_over.py::test_most_of_an_answer_is_passed_over",),
    ),
    Mutant(
        "the-end-of-a-message-does-not-wait",
        "I-20",
        "apps/proxy/dialects/anthropic_stream.py",
        "            self.last_frame = event\n            return False",
        "            return True",
        (f"{_DIALECTS}::test_the_end_of_a_stream_waits_for_its_charge",),
    ),
    Mutant(
        "pages-that-were-found-are-free",
        "I-27",
        "apps/proxy/dialects/anthropic_stream.py",
        "return tokens_of_quarters(self._found_characters * 3 // 4)",
        "return 0",
        (
            f"{_PROXY}/dialects/test_outrun_meters.py"
            "::test_pages_that_anthropic_found_are_paid_for_by_who_leaves",
        ),
    ),
    Mutant(
        "several-texts-are-held-for-like-one",
        "I-17",
        "apps/proxy/admission.py",
        "if converted and not is_reading:",
        "if converted:",
        (
            "tests/e2e/test_converted_embeddings.py"
            "::test_each_text_is_held_for_with_a_context_of_its_own",
        ),
    ),
    Mutant(
        "a-bound-of-searches-is-forgotten",
        "I-17",
        "apps/proxy/admission.py",
        "request.searches_max or WEB_SEARCHES_MAX",
        "WEB_SEARCHES_MAX",
        ("tests/e2e/test_searches.py::test_a_bound_of_the_client_is_what_is_held_for",),
    ),
    Mutant(
        "a-kept-answer-is-searched-for-again",
        "I-17",
        "apps/proxy/call.py",
        "counted = self.with_search(usage)",
        "counted = usage",
        (
            "tests/e2e/test_answer_cache.py"
            "::test_a_search_that_nobody_counted_is_held_for_as_it_is_charged",
        ),
    ),
    Mutant(
        "a-bug-inside-a-stream-is-a-failed-call",
        "I-24",
        "apps/proxy/running.py",
        "ending = Ending(RequestState.INTERRUPTED, 200, code, call.delivered_usage())",
        "ending = Ending(RequestState.FAILED, 500, code, call.delivered_usage())",
        (
            "tests/e2e/test_error_rows_upstream.py"
            "::test_a_bug_inside_a_stream_is_no_failure_before_it_and_pays_what_was_delivered",
        ),
    ),
    Mutant(
        "certificates-of-providers-are-not-verified",
        "E47",
        _CONNECTING,
        "self._tls = ssl.create_default_context()",
        "self._tls = ssl._create_unverified_context()",
        (_UNPROVEN,),
    ),
    Mutant(
        "any-name-in-a-certificate-will-do",
        "E47",
        _CONNECTING,
        "self._tls = ssl.create_default_context()",
        "self._tls = ssl.create_default_context()\n        self._tls.check_hostname = False",
        (f"{_UNPROVEN}[another name]",),
    ),
    Mutant(
        "what-should-go-over-tls-goes-in-clear",
        "E47",
        _CONNECTING,
        'ssl=self._tls if scheme == "https" else None,\n'
        '                server_hostname=host if scheme == "https" else None,',
        "ssl=None,",
        (
            f"{_UNPROVEN}[no TLS]",
            "tests/e2e/test_tls.py"
            "::test_who_proves_who_he_is_hears_calls_and_the_key_on_one_connection",
        ),
    ),
)
