"""Mutants of the record: chains, anchors, verification, events, lists, time, backups."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import BOTH, Mutant

_CHAINS: Final = "apps/billing/chains.py"
_CHECKS: Final = "apps/billing/anchor_checks.py"
_SUMS: Final = "apps/billing/sum_checks.py"
_WALKS: Final = "apps/billing/chain_walks.py"
_EVENTS: Final = "apps/audit/events.py"
_PROPOSALS: Final = "apps/billing/proposals.py"
_TESTS: Final = "apps/billing/tests"
_ANCHORS: Final = f"{_TESTS}/test_anchors.py"
_HISTORY: Final = f"{_TESTS}/test_anchor_history.py"
_VERIFICATION: Final = f"{_TESTS}/test_verification.py"

PROOF: Final = (
    Mutant(
        "verification-does-not-add-up-all-accounts",
        "I-03",
        _SUMS,
        "    if total:\n",
        "    if total > 10**18:\n",
        (f"{_VERIFICATION}::test_what_is_broken_is_named",),
    ),
    Mutant(
        "accounts-change-hands",
        "I-06",
        "apps/billing/migrations/0010_accounts_keep_their_owner.py",
        'TABLE, ("customer_id", "kind")',
        'TABLE, ("kind",)',
        (f"{_TESTS}/test_append_only.py::test_an_account_keeps_its_owner_and_its_kind",),
        BOTH,
    ),
    Mutant(
        "what-somebody-else-paid-is-not-missed",
        "I-21",
        _SUMS,
        " OR owner_id <> caller_id",
        "",
        (f"{_VERIFICATION}::test_what_was_charged_to_somebody_else_is_found",),
    ),
    Mutant(
        "runs-at-once-roll-up-the-same-calls",
        "I-25",
        "apps/analytics/rolling.py",
        "RolledUp.objects.select_for_update().get(",
        "RolledUp.objects.get(",
        ("apps/analytics/tests/test_rollup_races.py::test_eight_runs_at_once_add_each_call_once",),
        ("postgres",),
    ),
    Mutant(
        "months-begin-a-day-late",
        "I-44",
        "apps/audit/partitions.py",
        "return datetime(months // 12, months % 12 + 1, 1, tzinfo=UTC)",
        "return datetime(months // 12, months % 12 + 1, 2, tzinfo=UTC)",
        (f"{_TESTS}/test_partitions.py::test_a_month_starts_at_its_first_moment_in_utc",),
    ),
    Mutant(
        "a-clock-set-back-sets-ids-back",
        "I-45",
        "apps/core/ids.py",
        "if now_ms > self._last_ms:",
        "if now_ms != self._last_ms:",
        (
            "apps/core/tests/test_ids.py::"
            "test_ids_increase_within_a_millisecond_and_when_the_clock_steps_back",
        ),
    ),
    Mutant(
        "pages-leave-out-calls-of-one-moment",
        "I-65",
        "apps/audit/pages.py",
        "filter(started_at__lte=at).filter(Q(started_at__lt=at) | Q(id__lt=key))",
        "filter(started_at__lt=at)",
        (
            f"{_TESTS}/test_request_api.py::"
            "test_more_calls_of_one_moment_than_any_offset_takes_are_all_listed",
        ),
    ),
    Mutant(
        "entries-go-with-their-account",
        "I-67",
        "apps/billing/models.py",
        'Account, on_delete=models.PROTECT, related_name="entries"',
        'Account, on_delete=models.CASCADE, related_name="entries"',
        (f"{_TESTS}/test_append_only.py::test_who_has_accounts_cannot_be_deleted",),
    ),
    Mutant(
        "the-chain-skips-an-amount",
        "I-68",
        _CHAINS,
        "kind, amount_nanos, balance_after_nanos,\n        request_id.hex",
        "kind, balance_after_nanos,\n        request_id.hex",
        (f"{_TESTS}/test_chains.py::test_every_column_of_an_entry_is_covered",),
    ),
    Mutant(
        "the-chain-skips-a-column-of-calls",
        "I-68",
        _CHAINS,
        "_request_values = itemgetter(*REQUEST_FIELDS)",
        '_request_values = itemgetter(*(n for n in REQUEST_FIELDS if n != "user_agent"))',
        (
            f"{_TESTS}/test_chains.py::test_every_column_of_a_request_is_covered",
            f"{_ANCHORS}::test_the_chain_of_requests_breaks_at_the_first_bad_row",
        ),
    ),
    Mutant(
        "links-stand-alone",
        "I-68",
        _CHAINS,
        "return hashlib.sha256(previous + orjson.dumps(values)).digest()",
        "return hashlib.sha256(orjson.dumps(values)).digest()",
        (f"{_TESTS}/test_chains.py::test_an_entry_is_hashed_over_the_link_before_it",),
    ),
    Mutant(
        "anchors-are-not-compared",
        "I-69",
        _CHECKS,
        "if link != head and",
        "if link is None and",
        (f"{_ANCHORS}::test_a_chain_rewritten_from_its_start_is_found",),
    ),
    Mutant(
        "a-tail-that-is-gone-is-not-missed",
        "I-69",
        _CHECKS,
        "if link != head and",
        "if link not in (head, None) and",
        (f"{_ANCHORS}::test_a_tail_cut_off_with_all_its_traces_is_found",),
    ),
    Mutant(
        "of-what-was-anchored-only-the-last-counts",
        "I-69",
        _CHECKS,
        "            if known is not None:\n",
        "            if known is not None and known[0] == sequence:\n",
        (
            f"{_HISTORY}::test_a_rewritten_history_is_found_when_its_new_heads_were_anchored",
            f"{_HISTORY}::test_a_tail_that_was_lost_is_missed_when_the_chain_has_gone_on",
        ),
    ),
    Mutant(
        "another-head-of-the-same-row-is-believed",
        "I-69",
        _CHECKS,
        "            if known is not None:\n",
        "            if known is not None and known[0] < sequence:\n",
        (f"{_HISTORY}::test_another_head_of_the_same_row_is_found",),
    ),
    Mutant(
        "signatures-of-anchors-are-not-checked",
        "I-69",
        "apps/billing/anchors.py",
        'return "its signature does not match',
        'return "" and "its signature does not match',
        (f"{_ANCHORS}::test_an_edited_line_is_found",),
    ),
    Mutant(
        "a-file-that-no-longer-fits-is-not-read-whole",
        "I-69",
        _CHECKS,
        "if noted.sequence < known.tail.number or not is_in_place(path, known.tail):",
        "if noted.sequence < known.tail.number:",
        (f"{_TESTS}/test_anchor_memory.py::test_a_file_that_was_cut_is_found",),
    ),
    Mutant(
        "who-verifies-keeps-heads-from-being-signed",
        "I-70",
        "apps/billing/anchors.py",
        "        fcntl.flock(file, fcntl.LOCK_UN)\n",
        "",
        (f"{_TESTS}/test_anchor_memory.py::test_heads_are_signed_while_a_verification_reads",),
    ),
    Mutant(
        "the-newest-accounts-are-never-anchored",
        "I-70",
        "apps/billing/anchors.py",
        "ORDER BY noted.verified_at NULLS FIRST, chain.id",
        "ORDER BY chain.id",
        (f"{_TESTS}/test_anchor_order.py::test_no_account_is_passed_over_for_ever",),
    ),
    Mutant(
        "heads-are-anchored-every-five-minutes",
        "I-70",
        "auditing/celery.py",
        '"billing.anchor_heads": 30.0,',
        '"billing.anchor_heads": 300.0,',
        ("tests/test_invariants.py::test_heads_are_anchored_at_least_once_a_minute",),
    ),
    Mutant(
        "events-are-written-after-the-change-commits",
        "I-71",
        _EVENTS,
        "event.save(force_insert=True)",
        "from django.db import transaction\n\n"
        "    transaction.on_commit(lambda: event.save(force_insert=True), robust=True)",
        ("tests/rest/test_on_record.py::test_a_change_whose_event_is_refused_is_none",),
    ),
    Mutant(
        "each-adjustment-is-measured-by-itself",
        "I-72",
        _PROPOSALS,
        "return moved_nanos + abs(amount_nanos) > alone_nanos",
        "return abs(amount_nanos) > alone_nanos",
        (
            f"{_TESTS}/test_proposals.py"
            "::test_given_and_taken_are_added_up_and_what_is_above_the_limit_waits",
        ),
    ),
    Mutant(
        "adjustments-of-one-administrator-do-not-take-turns",
        "I-72",
        _PROPOSALS,
        "found = lock_users({user.pk, actor.pk})",
        "found = lock_users({user.pk}) | {actor.pk: actor}",
        (
            f"{_TESTS}/test_proposal_races.py"
            "::test_eight_adjustments_at_once_do_not_pass_the_limit_together",
        ),
        ("postgres",),
    ),
    Mutant(
        "what-is-decided-is-decided-again",
        "I-72",
        _PROPOSALS,
        "if row.status != ProposalStatus.PENDING:",
        "if row.status == ProposalStatus.EXPIRED:",
        (f"{_TESTS}/test_proposal_races.py::test_of_eight_approvals_at_once_one_moves_money",),
    ),
    Mutant(
        "erasing-is-not-on-record",
        "I-73",
        "apps/audit/retention.py",
        "if done.count or answers:",
        "if not done.count and answers:",
        (
            "apps/audit/tests/test_retention.py::"
            "test_each_run_is_on_record_with_counts_and_range_and_no_run_that_found_nothing",
        ),
    ),
    Mutant(
        "a-backup-leaves-anchors-out",
        "I-74",
        "apps/billing/backups.py",
        "_copy_beginning(anchors_path(), staging / archives.ANCHORS, length)",
        "_copy_beginning(anchors_path(), staging / archives.ANCHORS, 0)",
        (f"{_TESTS}/test_backups.py::test_a_backup_brings_everything_back_proven",),
    ),
)
