from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('api_keys', '0002_links'),
    ]

    operations = [
        migrations.AddField(
            model_name='apikey',
            name='locked_at',
            field=models.DateTimeField(blank=True, editable=False, help_text='When an administrator disabled the key; its owner cannot enable it again.', null=True),
        ),
    ]
