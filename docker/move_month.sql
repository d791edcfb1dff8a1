-- Gives a month of which the default partitions have rows partitions of its own.
--
--   PGOPTIONS='-c auditing.month=2026-11-01' \
--   psql "$OWNER_URL" --set ON_ERROR_STOP=1 --single-transaction --file docker/move_month.sql
--
-- Run it as the owner of the tables, while gateways and worker are stopped: calls cannot be recorded
-- meanwhile. Rows are moved as they are, so every chain still verifies. A month that has its
-- partitions is left alone: safe to repeat. See docs/operations.md.

DO $$
DECLARE
  month timestamptz := (current_setting('auditing.month') || ' 00:00+00')::timestamptz;
  month_name text := to_char(month AT TIME ZONE 'UTC', 'YYYY_MM');
  later timestamptz := (month AT TIME ZONE 'UTC' + interval '1 month') AT TIME ZONE 'UTC';
  -- The smallest UUIDv7 of a millisecond.
  rest text := '70008000000000000000';
  low uuid := lpad(to_hex((extract(epoch FROM month) * 1000)::bigint), 12, '0') || rest;
  high uuid := lpad(to_hex((extract(epoch FROM later) * 1000)::bigint), 12, '0') || rest;
  main text;
  own text;
  key text;
BEGIN
  IF extract(day FROM month AT TIME ZONE 'UTC') <> 1 THEN
    RAISE EXCEPTION 'auditing.month has to be the first day of a month';
  END IF;
  FOR main, key IN VALUES
    ('audit_apirequest', 'id'), ('audit_attempt', 'id'), ('audit_payload', 'request_id')
  LOOP
    own := main || '_' || month_name;
    CONTINUE WHEN to_regclass(format('%I', own)) IS NOT NULL;
    EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', own, main);
    -- The triggers that refuse changes of rows are the table's: they go here and come back below.
    EXECUTE format('ALTER TABLE %I DETACH PARTITION %I', main, main || '_default');
    EXECUTE format('INSERT INTO %I SELECT * FROM %I WHERE %I >= %L AND %I < %L',
                   own, main || '_default', key, low, key, high);
    EXECUTE format('DELETE FROM %I WHERE %I >= %L AND %I < %L',
                   main || '_default', key, low, key, high);
    EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I DEFAULT', main, main || '_default');
    EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                   main, own, low, high);
    IF main <> 'audit_payload' THEN
      EXECUTE format('CREATE TRIGGER %I BEFORE TRUNCATE ON %I '
                     'FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()', own || '_no_truncate', own);
    END IF;
  END LOOP;
END $$;
