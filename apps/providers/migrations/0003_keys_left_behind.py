from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('providers', '0002_spending_cap'),
    ]

    operations = [
        migrations.AddField(
            model_name='providerkey',
            name='left_behind_at',
            field=models.DateTimeField(editable=False, help_text='When the provider moved away from where this secret was typed for. Until it is typed again the key cannot be active.', null=True),
        ),
    ]
