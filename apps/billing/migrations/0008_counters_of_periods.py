from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('billing', '0007_rare_entries_and_transactions'),
    ]

    operations = [
        migrations.AlterField(
            model_name='spendcounter',
            name='scope',
            field=models.CharField(help_text='What is capped: api_key, user, user_group or provider; of a budget with its period, such as user:2026-11-29 or user_group:2026-11.', max_length=32),
        ),
    ]
