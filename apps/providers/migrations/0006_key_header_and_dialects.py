from django.db import migrations, models

from apps.core.triggers import keep_triggers

# SQLite rebuilds the table for a column with a default, and loses its triggers with it.
remember, restore = keep_triggers("providers_provider")


class Migration(migrations.Migration):

    dependencies = [
        ('providers', '0005_limits_and_leaving'),
    ]

    operations = [
        migrations.RunPython(remember, restore),
        migrations.AddField(
            model_name='provider',
            name='key_header',
            field=models.CharField(blank=True, choices=[('', 'as its dialect says'), ('authorization', 'Authorization: Bearer'), ('api-key', 'api-key'), ('x-api-key', 'x-api-key'), ('x-goog-api-key', 'x-goog-api-key')], db_default='', default='', help_text='Where the provider wants its key, if elsewhere than its dialect says.', max_length=32),
        ),
        migrations.AlterField(
            model_name='provider',
            name='dialect',
            field=models.CharField(choices=[('openai', 'OpenAI Chat Completions'), ('anthropic', 'Anthropic Messages'), ('gemini', 'Google Gemini'), ('openai-responses', 'OpenAI Responses')], default='openai', max_length=32),
        ),
        migrations.RunPython(restore, remember),
    ]
