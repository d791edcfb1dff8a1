from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('api_keys', '0003_keys_locked_by_administrators'),
    ]

    operations = [
        migrations.AlterField(
            model_name='apikey',
            name='cap_nanos',
            field=models.BigIntegerField(blank=True, help_text='The most this key may spend, counted while it is capped, in nano-USD; empty: no cap.', null=True),
        ),
    ]
