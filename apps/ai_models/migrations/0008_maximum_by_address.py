from django.db import migrations, models

from apps.providers.maximums import find_max_tokens_parameter

_FORMER_DEFAULT = "max_completion_tokens"


def name_what_is_taken(apps, schema_editor):
    """Have routes that kept the default ask by the name that their provider's address tells.

    It is written down, and not left empty: a gateway of the version before may still read it.
    """
    route = apps.get_model("ai_models", "Route")
    for provider in apps.get_model("providers", "Provider").objects.filter(dialect="openai"):
        taken = find_max_tokens_parameter(provider.base_url)
        if taken != _FORMER_DEFAULT:
            routes = route.objects.filter(provider=provider, max_tokens_parameter=_FORMER_DEFAULT)
            routes.update(max_tokens_parameter=taken)


class Migration(migrations.Migration):

    dependencies = [
        ('ai_models', '0007_maximum_of_the_provider'),
        ('providers', '0001_initial'),
    ]

    operations = [
        # No database knows the default, so the table stays as it is: SQLite would rebuild it, and
        # lose its triggers.
        migrations.SeparateDatabaseAndState(
            state_operations=[
                migrations.AlterField(
                    model_name='route',
                    name='max_tokens_parameter',
                    field=models.CharField(blank=True, default='', help_text='The parameter by which this provider takes a cap on output; empty: the one that servers at its address are known to take.', max_length=50),
                ),
            ],
        ),
        migrations.RunPython(name_what_is_taken, migrations.RunPython.noop),
    ]
