"""Mutants of the ledger: holds, settlements, caps, leases, and what the database itself refuses.

Over 400 lines because it is one table, and nothing else.
"""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Mutant

_BATCH: Final = "apps/billing/ledger/batch.py"
_SQLITE: Final = "apps/billing/ledger/sqlite.py"
_POSTGRES: Final = "apps/billing/ledger/postgres.py"
_DUTIES: Final = "apps/billing/duties.py"
_TRIGGERS: Final = "apps/core/triggers.py"
_TESTS: Final = "apps/billing/tests"
_APPEND_ONLY: Final = f"{_TESTS}/test_append_only.py"
_RACES: Final = f"{_TESTS}/test_ledger_races.py"
_STORIES: Final = f"{_TESTS}/test_ledger_stories.py"
_LEASES: Final = f"{_TESTS}/test_leases.py"
_REAPER: Final = f"{_TESTS}/test_reaper.py"
_CAPS: Final = f"{_TESTS}/test_ledger_caps.py"
_BUDGETS: Final = f"{_TESTS}/test_ledger_budgets.py"
_KEYS: Final = f"{_TESTS}/test_idempotency_keys.py"
_HELD_KEYS: Final = "apps/billing/ledger/idempotency_keys.py"
_MEMORY: Final = f"{_TESTS}/test_memory.py"
_STORED: Final = f"{_TESTS}/test_stored_answers.py"
_OUTAGES: Final = f"{_TESTS}/test_writer_outages.py"

LEDGER: Final = (
    Mutant(
        "the-ledger-does-not-check-its-sums",
        "I-01",
        _BATCH,
        "if self._sum != 0:",
        "if self._sum > 10**18:",
        (f"{_APPEND_ONLY}::test_the_ledger_refuses_a_transaction_that_does_not_sum_to_zero",),
    ),
    Mutant(
        "the-database-takes-unbalanced-entries",
        "I-01",
        "apps/billing/migrations/0003_append_only_and_balanced.py",
        "HAVING SUM(amount_nanos) <> 0",
        "HAVING SUM(amount_nanos) IS NULL",
        (f"{_APPEND_ONLY}::test_the_database_refuses_entries_that_do_not_sum_to_zero",),
        ("postgres",),
    ),
    Mutant(
        "an-entry-does-not-move-its-account",
        "I-02",
        _BATCH,
        "account.posted += line.amount_nanos",
        "account.posted += 0",
        (f"{_STORIES}::test_story",),
    ),
    Mutant(
        "a-hold-does-not-ask-what-is-there",
        "I-04",
        _BATCH,
        "if not buckets or amount < hold.amount_nanos_min:",
        "if not buckets:",
        (f"{_RACES}::test_64_holds_against_a_wallet_for_ten_grant_ten", f"{_STORIES}::test_story"),
    ),
    Mutant(
        "wallets-may-fall-below-what-they-hold",
        "I-04",
        "apps/billing/migrations/0002_links.py",
        "models.Q(('held_nanos__gte', 0), ('posted_nanos__gte', models.F('held_nanos')))",
        "models.Q(('held_nanos__gte', -(2**60)))",
        (f"{_APPEND_ONLY}::test_the_database_keeps_wallets_from_falling_below_what_they_hold",),
    ),
    Mutant(
        "balances-are-read-without-a-lock",
        "I-05",
        _POSTGRES,
        'ORDER BY id FOR NO KEY UPDATE"""\n_OWING',
        'ORDER BY id"""\n_OWING',
        (f"{_RACES}::test_64_holds_against_a_wallet_for_ten_grant_ten",),
        ("postgres",),
    ),
    Mutant(
        "balances-are-read-before-the-write-lock",
        "I-05",
        _SQLITE,
        'BEGIN IMMEDIATE")',
        'BEGIN")',
        (f"{_RACES}::test_64_holds_against_a_wallet_for_ten_grant_ten",),
    ),
    Mutant(
        "history-may-be-deleted-on-sqlite",
        "I-06",
        _TRIGGERS,
        'verbs = ["UPDATE"] if may_delete else ["UPDATE", "DELETE"]',
        'verbs = ["UPDATE"]',
        (f"{_APPEND_ONLY}::test_delete_is_refused",),
    ),
    Mutant(
        "history-may-be-edited-on-sqlite",
        "I-06",
        _TRIGGERS,
        'BEFORE {verb} ON "{table}"\n                BEGIN',
        'BEFORE DELETE ON "{table}"\n                BEGIN',
        (f"{_APPEND_ONLY}::test_update_is_refused",),
    ),
    Mutant(
        "history-may-be-deleted-on-postgresql",
        "I-06",
        _TRIGGERS,
        'BEFORE {" OR ".join(verbs)} ON',
        "BEFORE UPDATE ON",
        (f"{_APPEND_ONLY}::test_delete_is_refused",),
        ("postgres",),
    ),
    Mutant(
        "history-may-be-edited-on-postgresql",
        "I-06",
        _TRIGGERS,
        'BEFORE {" OR ".join(verbs)} ON "{table}"\n            FOR EACH ROW',
        'BEFORE DELETE ON "{table}"\n            FOR EACH ROW',
        (f"{_APPEND_ONLY}::test_update_is_refused",),
        ("postgres",),
    ),
    Mutant(
        "history-may-be-truncated",
        "I-06",
        _TRIGGERS,
        "if not may_delete:\n        statements.append(no_truncate",
        "if may_delete:\n        statements.append(no_truncate",
        (f"{_APPEND_ONLY}::test_truncate_is_refused",),
        ("postgres",),
    ),
    Mutant(
        "a-partition-of-history-may-be-truncated",
        "I-06",
        "apps/audit/partitions.py",
        "            {no_truncate(name)};",
        "            NULL;",
        (f"{_TESTS}/test_partitions.py::test_partitions_refuse_to_be_truncated_by_name",),
        ("postgres",),
    ),
    Mutant(
        "history-may-be-replaced-on-sqlite",
        "I-06",
        "apps/billing/ledger/sqlite.py",
        "PRAGMA recursive_triggers=ON",
        "PRAGMA recursive_triggers=OFF",
        (f"{_APPEND_ONLY}::test_the_ledger_s_connection_cannot_replace_rows_either",),
    ),
    Mutant(
        "a-late-settlement-posts-the-whole",
        "I-07",
        _BATCH,
        "difference = resolve.charge_nanos - recorded.nanos",
        "difference = resolve.charge_nanos",
        (
            f"{_LEASES}::test_an_owner_that_wakes_up_late_adds_only_the_difference",
            f"{_STORIES}::test_story",
        ),
    ),
    Mutant(
        "a-late-charge-tells-nothing",
        "I-07",
        _BATCH,
        "reason = write_reason(resolve.request_id, resolve.row)",
        'reason = write_reason(resolve.request_id, resolve.row).partition(":")[0]',
        (
            f"{_TESTS}/test_late_settlements.py::"
            "test_what_came_of_a_call_is_told_with_its_late_charge",
        ),
    ),
    Mutant(
        "one-cause-may-move-money-twice",
        "I-07",
        "apps/billing/migrations/0001_initial.py",
        "('idempotency_key', models.CharField(max_length=200, unique=True))",
        "('idempotency_key', models.CharField(max_length=200))",
        (f"{_APPEND_ONLY}::test_two_transactions_cannot_have_one_cause",),
    ),
    Mutant(
        "an-account-s-entries-have-gaps",
        "I-08",
        _BATCH,
        "account.sequence += 1",
        "account.sequence += 2",
        (f"{_STORIES}::test_story",),
    ),
    Mutant(
        "a-second-end-charges-again-on-sqlite",
        "I-11",
        _SQLITE,
        "claimed={hexes[request_id] for request_id in claimed},",
        "claimed=set(hold_ids),",
        (f"{_RACES}::test_32_ends_of_one_hold_charge_once", f"{_STORIES}::test_story"),
    ),
    Mutant(
        "a-second-end-charges-again-on-postgresql",
        "I-11",
        _POSTGRES,
        'claimed={hexes[text(row[0]).replace("-", "")] for row in found.get("claimed", ())},',
        "claimed=set(hold_ids),",
        (f"{_RACES}::test_32_ends_of_one_hold_charge_once", f"{_STORIES}::test_story"),
        ("postgres",),
    ),
    Mutant(
        "both-ends-of-a-call-in-one-batch-charge",
        "I-11",
        _BATCH,
        "if resolve.request_id in state.resolved:",
        "if resolve.request_id in state.resolved and resolve.request_id not in state.claimed:",
        (f"{_STORIES}::test_two_ends_of_one_call_in_one_batch_charge_the_larger_once",),
    ),
    Mutant(
        "nobody-ends-the-holds-of-the-dead",
        "I-12",
        "apps/billing/reaper.py",
        "all_others=all_others, seen=None)\n",
        "all_others=all_others, seen=None)[:0]\n",
        (f"{_LEASES}::test_a_dead_owner_s_calls_cost_their_checkpoint_or_nothing",),
    ),
    Mutant(
        "the-reaper-ignores-leases",
        "I-13",
        _POSTGRES,
        "AND (%s OR expires_at <",
        "AND (%s OR TRUE OR expires_at <",
        (f"{_LEASES}::test_the_holds_of_a_living_owner_are_left_alone",),
        ("postgres",),
    ),
    Mutant(
        "a-worker-ends-leases-that-were-renewed-while-it-waited",
        "I-13",
        _POSTGRES,
        "(but, all_others, seen is None,",
        "(but, all_others, True,",
        (f"{_REAPER}::test_a_worker_gives_gateways_time_to_renew_after_the_database_was_away",),
        ("postgres",),
    ),
    Mutant(
        "anybody-ends-leases-on-sqlite",
        "I-13",
        _SQLITE,
        "if all_others:",
        "if all_others or but:",
        (f"{_LEASES}::test_the_holds_of_a_living_owner_are_left_alone",),
    ),
    Mutant(
        "who-was-taken-for-dead-goes-on-holding",
        "I-13",
        _POSTGRES,
        'if not rows or rows[0][2] == b"t":',
        "if not rows:",
        (f"{_LEASES}::test_an_owner_that_was_taken_for_dead_notices_and_holds_nothing",),
        ("postgres",),
    ),
    Mutant(
        "the-host-s-clock-decides-who-is-dead",
        "I-14",
        _POSTGRES,
        "(lease_seconds, incarnation_id),",
        "(lease_seconds + 0 * datetime.now().second, incarnation_id),",
        (f"{_LEASES}::test_on_postgresql_no_host_s_clock_decides_who_is_dead",),
    ),
    Mutant(
        "counters-forget-what-is-held",
        "I-15",
        _BATCH,
        "state.counters[counter_id].held += amount",
        "state.counters[counter_id].held += 0",
        (f"{_CAPS}::test_every_level_counts_a_call",),
    ),
    Mutant(
        "a-cap-is-counted-at-one-level-only",
        "I-16",
        _BATCH,
        "for cap in (*hold.caps, *spares)]",
        "for cap in (*hold.caps[:1], *spares)]",
        (f"{_CAPS}::test_every_level_counts_a_call",),
    ),
    Mutant(
        "a-refusal-at-one-level-leaves-money-held",
        "I-16",
        _BATCH,
        'return HoldRefused("cap", cap, left)',
        'return (_take(buckets, amount), HoldRefused("cap", cap, left))[1]',
        (f"{_CAPS}::test_a_refusal_at_one_level_leaves_the_others_as_they_were",),
    ),
    Mutant(
        "all-days-of-a-budget-are-one",
        "I-16",
        "apps/billing/ledger/commands.py",
        'scope = f"{self.scope}:{self.period}" if self.period else self.scope',
        'scope = f"{self.scope}:{len(self.period)}" if self.period else self.scope',
        (f"{_BUDGETS}::test_a_day_begins_at_zero_and_its_month_goes_on",),
    ),
    Mutant(
        "a-counter-that-still-holds-is-deleted",
        "I-15",
        "apps/billing/ledger/sqlite.py",
        "WHERE instr(scope, ':') > 0 AND held_nanos = 0",
        "WHERE instr(scope, ':') > 0",
        (f"{_BUDGETS}::test_counters_of_periods_that_are_over_are_deleted_when_they_hold_nothing",),
    ),
    Mutant(
        "counters-are-read-without-a-lock",
        "I-16",
        _POSTGRES,
        '_LOCK_COUNTERS = f"{_FIND_COUNTERS} FOR NO KEY UPDATE"',
        "_LOCK_COUNTERS = _FIND_COUNTERS",
        (f"{_RACES}::test_32_holds_of_different_users_against_a_group_s_cap_for_ten_grant_ten",),
        ("postgres",),
    ),
    Mutant(
        "accounts-are-locked-as-they-come",
        "I-16",
        _POSTGRES,
        'ORDER BY id FOR NO KEY UPDATE"""\n_OWING',
        'ORDER BY random() FOR NO KEY UPDATE"""\n_OWING',
        (f"{_RACES}::test_gateways_that_take_accounts_in_opposite_orders_do_not_deadlock",),
        ("postgres",),
    ),
    Mutant(
        "excess-takes-what-others-hold",
        "I-18",
        _BATCH,
        "from_wallet = max(0, min(nanos, available))",
        "from_wallet = nanos",
        (f"{_STORIES}::test_story",),
    ),
    Mutant(
        "who-owes-gets-another-hold",
        "I-18",
        _BATCH,
        "self._state.owing.add(line.account_id)",
        "self._state.owing.discard(line.account_id)",
        (f"{_STORIES}::test_a_debt_made_by_a_batch_blocks_the_holds_of_the_same_batch",),
    ),
    Mutant(
        "an-end-gives-back-only-what-it-charged",
        "I-19",
        _BATCH,
        "account.held -= nanos",
        "account.held -= min(nanos, resolve.charge_nanos)",
        (f"{_STORIES}::test_story",),
    ),
    Mutant(
        "an-ended-call-keeps-its-hold",
        "I-20",
        _SQLITE,
        '"DELETE FROM billing_hold WHERE request_id IN (SELECT value FROM json_each(?))"',
        '"UPDATE billing_hold SET checkpoint = NULL '
        'WHERE request_id IN (SELECT value FROM json_each(?))"',
        (f"{_STORIES}::test_story",),
    ),
    Mutant(
        "the-journal-is-dropped-when-its-replay-fails",
        "I-20",
        _DUTIES,
        "return False  # What had been committed adds nothing the next time.",
        "pass",
        (f"{_OUTAGES}::test_a_replay_that_fails_leaves_the_journal_as_it_was",),
    ),
    Mutant(
        "the-journal-goes-by-what-it-read-before",
        "I-20",
        "apps/billing/journal.py",
        'with open(file.fileno(), "rb", closefd=False) as reader:',
        "for reader in (file,):",
        (
            "apps/billing/tests/test_journal.py"
            "::test_what_follows_a_write_that_did_not_fit_is_replayed",
        ),
    ),
    Mutant(
        "what-a-dead-process-left-goes-unread",
        "I-20",
        "apps/billing/journal.py",
        "file for file in self._files if file.is_replayed and",
        "file for file in self._files if file is not self._own or file.is_replayed and",
        (
            "apps/billing/tests/test_adopted_journals.py"
            "::test_what_a_process_left_is_replayed_though_the_disk_is_full",
        ),
    ),
    Mutant(
        "a-damaged-line-goes-with-its-file",
        "I-20",
        "apps/billing/journal.py",
        "self._keep(line)",
        "pass",
        (
            "apps/billing/tests/test_adopted_journals.py"
            "::test_a_damaged_line_is_named_and_kept_and_the_others_are_replayed",
        ),
    ),
    Mutant(
        "a-line-of-a-newer-gateway-stops-the-replay",
        "I-20",
        "apps/billing/journal_lines.py",
        "except (AttributeError, LookupError, TypeError, ValueError) as error:",
        "except RecursionError as error:",
        (
            "apps/billing/tests/test_adopted_journals.py"
            "::test_a_line_of_no_known_form_is_kept_and_the_others_are_replayed",
        ),
    ),
    Mutant(
        "a-row-that-is-refused-keeps-its-call-open",
        "I-20",
        "apps/billing/flushing.py",
        "stored=None,",
        "stored=resolve.stored,",
        (f"{_STORED}::test_a_poisonous_row_is_left_out_and_its_call_settled",),
    ),
    Mutant(
        "charges-are-posted-beside-their-call",
        "I-21",
        _BATCH,
        'lines.append(Line(account_id, "charge", -part, resolve.request_id))',
        'lines.append(Line(account_id, "charge", -part))',
        (f"{_STORIES}::test_story",),
    ),
    Mutant(
        "the-reaper-charges-above-the-hold",
        "I-26",
        "apps/billing/reaper.py",
        'charge = min(full, hold["amount_nanos"])',
        "charge = full",
        (f"{_TESTS}/test_reaper.py::test_a_checkpoint_is_never_charged_above_the_hold",),
    ),
    Mutant(
        "keys-are-read-before-the-wallet-is-locked",
        "I-33",
        _POSTGRES,
        "statements: dict[str, Statement] = {}",
        'statements: dict[str, Statement] = {"keys": _BEGIN} if key_ids else {}',
        (f"{_KEYS}::test_of_64_processes_at_once_one_has_the_key",),
        ("postgres",),
    ),
    Mutant(
        "a-key-pays-for-two-calls",
        "I-33",
        _HELD_KEYS,
        "if found is not None and found.request_id != resolve.request_id:",
        "if False:",
        (
            f"{_KEYS}"
            "::test_a_late_settlement_charges_nothing_where_its_key_has_paid_for_another_call",
        ),
    ),
    Mutant(
        "the-dead-keep-their-keys",
        "I-37",
        "apps/billing/reaper.py",
        "if detail.get(HAS_KEY) else None",
        "if detail.get(HAS_KEY) and charge else None",
        (f"{_KEYS}::test_the_key_of_a_dead_owner_that_delivered_nothing_is_free_again",),
    ),
    Mutant(
        "what-is-remembered-is-not-checked",
        "I-04",
        _POSTGRES,
        "else list(guess.list_moves(state, changes))",
        "else updates",
        (f"{_MEMORY}::test_money_that_another_gateway_took_is_not_there",),
        ("postgres",),
    ),
    Mutant(
        "what-did-not-commit-is-remembered",
        "I-02",
        _POSTGRES,
        "self._memory.forget()",
        "pass",
        (f"{_MEMORY}::test_what_did_not_commit_is_not_remembered",),
        ("postgres",),
    ),
    Mutant(
        "a-chain-is-told-by-its-length",
        "I-68",
        "apps/billing/ledger/postgres_steps.py",
        "AND head = $4::bytea RETURNING 1",
        "AND $4::bytea IS NOT NULL RETURNING 1",
        (f"{_MEMORY}::test_an_entry_is_chained_to_the_one_that_is_there",),
        ("postgres",),
    ),
    Mutant(
        "many-that-are-remembered-are-not-checked",
        "I-04",
        "apps/billing/ledger/postgres_steps.py",
        "    yield _lock_accounts(known)\n",
        "",
        (f"{_MEMORY}::test_what_others_took_of_one_of_many_is_not_there",),
        ("postgres",),
    ),
    Mutant(
        "a-hold-is-placed-again-under-the-next-lease",
        "I-11",
        "apps/billing/flushing.py",
        "more_ended, more_held = self._flush_rest(resolves[middle:], holds[middle:])",
        "more_ended, more_held = self.flush(resolves[middle:], holds[middle:])",
        (
            f"{_TESTS}/test_flushing.py"
            "::test_what_was_committed_before_a_lease_was_found_ended_is_not_placed_again",
        ),
    ),
    Mutant(
        "a-hold-in-doubt-is-placed-again",
        "I-11",
        "apps/billing/ledger_thread.py",
        "            self._refuse_doubtful()",
        "            pass",
        (
            f"{_TESTS}/test_writer_outages.py"
            "::test_a_hold_in_doubt_is_refused_where_others_have_ended_its_lease",
        ),
    ),
)
