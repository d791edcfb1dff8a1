-- What the gateway's own role may do in PostgreSQL: run, and nothing that changes history.
--
--   psql "$OWNER_URL" --set ON_ERROR_STOP=1 --single-transaction --file docker/app_role.sql
--   psql "$OWNER_URL" --command '\password gateway_app'
--
-- Run it as the owner of the tables, after the first and after every later `manage.py migrate`: new
-- tables are closed to gateway_app until then. Safe to repeat. See docs/operations.md.

DO $$
BEGIN
  CREATE ROLE gateway_app LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
  NULL;  -- Made by an earlier run, or by one at the same time.
END $$;

DO $$
DECLARE
  found record;
  verbs text;
BEGIN
  EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
  EXECUTE format('REVOKE ALL ON DATABASE %I FROM gateway_app', current_database());
  EXECUTE format('GRANT CONNECT ON DATABASE %I TO gateway_app', current_database());
  EXECUTE format('REVOKE ALL ON SCHEMA %I FROM PUBLIC', current_schema());
  EXECUTE format('GRANT USAGE ON SCHEMA %I TO gateway_app', current_schema());

  FOR found IN
    SELECT class.oid, class.relname, class.relkind, class.relispartition,
      -- Bits of pg_trigger.tgtype: 8 DELETE, 16 UPDATE.
      COALESCE(bit_or(trigger.tgtype) FILTER (WHERE refuses.proname = 'refuse_change'), 0) AS refused
    FROM pg_class AS class
    LEFT JOIN pg_trigger AS trigger ON trigger.tgrelid = class.oid AND NOT trigger.tgisinternal
    LEFT JOIN pg_proc AS refuses ON refuses.oid = trigger.tgfoid
    WHERE class.relnamespace = current_schema()::regnamespace AND class.relkind IN ('r', 'p', 'S')
    GROUP BY class.oid, class.relname, class.relkind, class.relispartition
  LOOP
    IF found.relkind = 'S' THEN
      EXECUTE format('GRANT USAGE, SELECT ON SEQUENCE %I TO gateway_app', found.relname);
      CONTINUE;
    END IF;
    EXECUTE format('REVOKE ALL ON TABLE %I FROM PUBLIC, gateway_app', found.relname);
    -- Partitions are reached through their table, with its rights, and never by their own names.
    CONTINUE WHEN found.relispartition;
    IF found.relname = 'django_migrations' THEN
      verbs := 'SELECT';
    ELSE
      -- A table whose trigger refuses to change rows loses the right to try.
      verbs := 'SELECT, INSERT'
        || CASE WHEN found.refused & 16 = 0 THEN ', UPDATE' ELSE '' END
        || CASE WHEN found.refused & 8 = 0 THEN ', DELETE' ELSE '' END;
    END IF;
    EXECUTE format('GRANT %s ON TABLE %I TO gateway_app', verbs, found.relname);
  END LOOP;
END $$;
