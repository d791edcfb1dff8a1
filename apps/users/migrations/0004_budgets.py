from django.db import migrations, models

from apps.core.triggers import keep_triggers

# SQLite rebuilds the tables for the constraints, and loses their triggers with them.
remember, restore = keep_triggers("users_user", "users_usergroup")


class Migration(migrations.Migration):

    dependencies = [
        ('users', '0003_spending_caps'),
    ]

    operations = [
        migrations.RunPython(remember, restore),
        migrations.AddField(
            model_name='usergroup',
            name='daily_budget_nanos',
            field=models.BigIntegerField(blank=True, help_text='The most its members may spend together in a day (UTC), in nano-USD; empty: no budget.', null=True),
        ),
        migrations.AddField(
            model_name='usergroup',
            name='monthly_budget_nanos',
            field=models.BigIntegerField(blank=True, help_text='The most its members may spend together in a month (UTC), in nano-USD; empty: no budget.', null=True),
        ),
        migrations.AddField(
            model_name='user',
            name='daily_budget_nanos',
            field=models.BigIntegerField(blank=True, help_text='The most this user may spend in a day (UTC), in nano-USD; empty: no budget.', null=True),
        ),
        migrations.AddField(
            model_name='user',
            name='monthly_budget_nanos',
            field=models.BigIntegerField(blank=True, help_text='The most this user may spend in a month (UTC), in nano-USD; empty: no budget.', null=True),
        ),
        migrations.AddConstraint(
            model_name='usergroup',
            constraint=models.CheckConstraint(condition=models.Q(('daily_budget_nanos__isnull', True), ('daily_budget_nanos__gte', 0), _connector='OR'), name='users_usergroup_daily_budget'),
        ),
        migrations.AddConstraint(
            model_name='usergroup',
            constraint=models.CheckConstraint(condition=models.Q(('monthly_budget_nanos__isnull', True), ('monthly_budget_nanos__gte', 0), _connector='OR'), name='users_usergroup_monthly_budget'),
        ),
        migrations.AddConstraint(
            model_name='user',
            constraint=models.CheckConstraint(condition=models.Q(('daily_budget_nanos__isnull', True), ('daily_budget_nanos__gte', 0), _connector='OR'), name='users_user_daily_budget'),
        ),
        migrations.AddConstraint(
            model_name='user',
            constraint=models.CheckConstraint(condition=models.Q(('monthly_budget_nanos__isnull', True), ('monthly_budget_nanos__gte', 0), _connector='OR'), name='users_user_monthly_budget'),
        ),
        migrations.RunPython(restore, remember),
    ]
