from typing import Any

from django.db import migrations, models

from apps.core.triggers import append_only, drop_append_only, stamp_again

TABLE = "ai_models_priceversion"


def refuse_changes_again(apps: Any, schema_editor: Any) -> None:
    """SQLite loses the triggers of 0002 with the table that it rebuilds."""
    vendor = schema_editor.connection.vendor
    if vendor == "sqlite":
        for statement in (*drop_append_only(vendor, TABLE), *append_only(vendor, TABLE)):
            schema_editor.execute(statement, None)


# What proxy.0002 watches.
stamp = stamp_again({TABLE: ("effective_at",)})


class Migration(migrations.Migration):

    dependencies = [
        ('ai_models', '0002_prices_are_never_edited'),
    ]

    operations = [
        migrations.RunPython(migrations.RunPython.noop, stamp),
        migrations.RunPython(migrations.RunPython.noop, refuse_changes_again),
        migrations.AddField(
            model_name='priceversion',
            name='character_nanos',
            field=models.BigIntegerField(blank=True, help_text='Nano-USD per million characters.', null=True),
        ),
        migrations.AddField(
            model_name='priceversion',
            name='image_nanos',
            field=models.BigIntegerField(blank=True, help_text='Nano-USD per image that is made.', null=True),
        ),
        migrations.AddField(
            model_name='priceversion',
            name='minimum_nanos',
            field=models.BigIntegerField(default=0, help_text='Nano-USD that a request costs at least, before the multiplier.'),
        ),
        migrations.AddField(
            model_name='priceversion',
            name='second_nanos',
            field=models.BigIntegerField(blank=True, help_text='Nano-USD per second of audio or video.', null=True),
        ),
        migrations.AddField(
            model_name='priceversion',
            name='terms',
            field=models.JSONField(blank=True, help_text='Other amounts above so much input, in a service tier, at a time of the day: see docs/pricing.md.', null=True),
        ),
        migrations.AddField(
            model_name='priceversion',
            name='tool_call_nanos',
            field=models.BigIntegerField(blank=True, help_text='Nano-USD per call of a tool that the provider runs.', null=True),
        ),
        migrations.AddField(
            model_name='priceversion',
            name='web_search_nanos',
            field=models.BigIntegerField(blank=True, help_text='Nano-USD per search that the provider runs.', null=True),
        ),
        migrations.AddConstraint(
            model_name='priceversion',
            constraint=models.CheckConstraint(condition=models.Q(('minimum_nanos__gte', 0), ('minimum_nanos__lte', 1000000000000000)), name='ai_models_price_minimum'),
        ),
        migrations.AddConstraint(
            model_name='priceversion',
            constraint=models.CheckConstraint(condition=models.Q(('image_nanos__isnull', True), models.Q(('image_nanos__gte', 0), ('image_nanos__lte', 1000000000000000)), _connector='OR'), name='ai_models_price_image'),
        ),
        migrations.AddConstraint(
            model_name='priceversion',
            constraint=models.CheckConstraint(condition=models.Q(('second_nanos__isnull', True), models.Q(('second_nanos__gte', 0), ('second_nanos__lte', 1000000000000000)), _connector='OR'), name='ai_models_price_second'),
        ),
        migrations.AddConstraint(
            model_name='priceversion',
            constraint=models.CheckConstraint(condition=models.Q(('character_nanos__isnull', True), models.Q(('character_nanos__gte', 0), ('character_nanos__lte', 1000000000000000)), _connector='OR'), name='ai_models_price_character'),
        ),
        migrations.AddConstraint(
            model_name='priceversion',
            constraint=models.CheckConstraint(condition=models.Q(('web_search_nanos__isnull', True), models.Q(('web_search_nanos__gte', 0), ('web_search_nanos__lte', 1000000000000000)), _connector='OR'), name='ai_models_price_web_search'),
        ),
        migrations.AddConstraint(
            model_name='priceversion',
            constraint=models.CheckConstraint(condition=models.Q(('tool_call_nanos__isnull', True), models.Q(('tool_call_nanos__gte', 0), ('tool_call_nanos__lte', 1000000000000000)), _connector='OR'), name='ai_models_price_tool_call'),
        ),
        migrations.RunPython(refuse_changes_again, migrations.RunPython.noop),
        migrations.RunPython(stamp, migrations.RunPython.noop),
    ]
