"""Every committed change of the configuration gets a version, whoever made it and how.

On PostgreSQL the triggers run at the commit (deferred) and bump the version once a transaction; the row
lock on the version makes versions visible in the order in which they were given.
"""

from typing import Any

from django.db import migrations

from apps.core.triggers import drop_stamps_configuration, stamps_configuration

LIMITS = ("rpm", "tpm", "concurrency")
# table → (columns that gateways use, the column that names what has to be loaded again)
WATCHED: dict[str, tuple[tuple[str, ...], str]] = {
    "users_user": (("username", "is_active", "user_group_id", "customer_id", *LIMITS), "id"),
    "users_usergroup": (("name", "multiplier_millionths", *LIMITS), "id"),
    "providers_provider": (
        (
            "name", "base_url", "dialect", "is_active", "payload_mode", "connect_timeout_seconds",
            "first_byte_timeout_seconds", "idle_timeout_seconds", "total_timeout_seconds",
        ),
        "id",
    ),
    "providers_providerkey": (("provider_id", "sealed_secret", "weight", "is_active"), "id"),
    "ai_models_aimodel": (
        ("name", "display_name", "context_length", "max_output_tokens", "image_tokens_max", "position", "is_active"),
        "id",
    ),
    "ai_models_route": (
        ("model_id", "provider_id", "upstream_name", "priority", "weight", "max_tokens_parameter", "is_active"),
        "id",
    ),
    "ai_models_priceversion": (("effective_at",), "id"),
    "model_groups_modelgroup": (("name", "is_public", "is_active", "multiplier_millionths"), "id"),
    "model_groups_modelgroup_models": (("modelgroup_id", "aimodel_id"), "id"),
    "model_groups_modelgroup_user_groups": (("modelgroup_id", "usergroup_id"), "id"),
    "api_keys_apikey": (
        (
            "user_id", "name", "digest", "is_active", "expires_at", "allowed_models", "allowed_networks",
            "cap_nanos", "payload_mode", *LIMITS,
        ),
        "id",
    ),
    "quotas_userquota": (("user_id", "model_group_id", "account_id", "expires_at", "is_active"), "user_id"),
    # A customer's wallet is made with the customer; its balance is not configuration.
    "billing_account": (("customer_id", "kind"), "customer_id"),
}  # fmt: skip

STAMP = """CREATE FUNCTION stamp_configuration() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  stamped text := current_setting('gateway.configuration_version', true);
  changed jsonb;
  new_version bigint;
BEGIN
  IF stamped IS NULL OR stamped = '' THEN
    UPDATE proxy_configurationversion SET version = version + 1 WHERE id = 1 RETURNING version INTO new_version;
    PERFORM set_config('gateway.configuration_version', new_version::text, true);
  ELSE
    new_version := stamped::bigint;
  END IF;
  IF TG_OP = 'DELETE' THEN changed := to_jsonb(OLD); ELSE changed := to_jsonb(NEW); END IF;
  INSERT INTO proxy_configurationchange (version, table_name, row_key)
    VALUES (new_version, TG_TABLE_NAME, COALESCE((changed ->> TG_ARGV[0])::bigint, 0));
  RETURN NULL;
END $$"""


def install(apps: Any, schema_editor: Any) -> None:
    vendor = schema_editor.connection.vendor
    apps.get_model("proxy", "ConfigurationVersion").objects.create(id=1, version=0)
    if vendor == "postgresql":
        schema_editor.execute(STAMP, None)
    for table, (columns, key) in WATCHED.items():
        for statement in stamps_configuration(vendor, table, columns=columns, key=key):
            schema_editor.execute(statement, None)


def remove(apps: Any, schema_editor: Any) -> None:
    vendor = schema_editor.connection.vendor
    for table in WATCHED:
        for statement in drop_stamps_configuration(vendor, table):
            schema_editor.execute(statement, None)
    if vendor == "postgresql":
        schema_editor.execute("DROP FUNCTION stamp_configuration()", None)
    apps.get_model("proxy", "ConfigurationVersion").objects.all().delete()


class Migration(migrations.Migration):
    dependencies = [
        ("proxy", "0001_initial"),
        ("users", "0001_initial"),
        ("providers", "0001_initial"),
        ("ai_models", "0001_initial"),
        ("model_groups", "0002_links"),
        ("api_keys", "0002_links"),
        ("billing", "0004_operator_accounts"),
        ("quotas", "0002_links"),
    ]

    operations = [migrations.RunPython(install, remove)]
