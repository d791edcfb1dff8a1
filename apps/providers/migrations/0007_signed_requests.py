from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('providers', '0006_key_header_and_dialects'),
    ]

    operations = [
        migrations.AlterField(
            model_name='provider',
            name='key_header',
            field=models.CharField(blank=True, choices=[('', 'as its dialect says'), ('authorization', 'Authorization: Bearer'), ('api-key', 'api-key'), ('x-api-key', 'x-api-key'), ('x-goog-api-key', 'x-goog-api-key'), ('google-service-account', 'token of a Google service account'), ('aws-sigv4', 'AWS Signature Version 4')], db_default='', default='', help_text='Where the provider wants its key, if elsewhere than its dialect says, or what its requests are signed with.', max_length=32),
        ),
    ]
