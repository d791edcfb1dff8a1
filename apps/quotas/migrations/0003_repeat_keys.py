from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('quotas', '0002_links'),
    ]

    operations = [
        migrations.CreateModel(
            name='RepeatKey',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('key', models.CharField(max_length=150, unique=True)),
                ('digest', models.CharField(help_text='Of the body that came with the key first.', max_length=64)),
                ('subjects', models.JSONField(default=list)),
                ('done', models.JSONField(default=list)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
            ],
        ),
    ]
