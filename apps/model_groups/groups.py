"""Making model groups."""

from __future__ import annotations

from collections.abc import Sequence

from django.contrib.auth.base_user import AbstractBaseUser
from django.db import IntegrityError, transaction
from django.http import HttpRequest

from apps.ai_models.models import AIModel
from apps.audit.events import record_event, values_of
from apps.core.domain_errors import DomainError
from apps.model_groups.models import ModelGroup


class GroupExists(DomainError):
    """There is a model group of this name."""

    status_code = 409
    code = "model_group_exists"
    message = "A model group with this name already exists."


def create_group(
    *,
    name: str,
    models: Sequence[AIModel],
    description: str = "",
    is_public: bool = False,
    actor: AbstractBaseUser | None = None,
    request: HttpRequest | None = None,
) -> ModelGroup:
    """Make a group of models. Raises GroupExists."""
    try:
        with transaction.atomic():
            group = ModelGroup.objects.create(
                name=name, description=description, is_public=is_public
            )
            group.models.set(models)
            record_event(
                actor=actor,
                action="model_group.created",
                subject=group,
                after={**values_of(group), "models": [model.pk for model in models]},
                request=request,
            )
    except IntegrityError as error:
        if ModelGroup.objects.filter(name=name).exists():
            raise GroupExists from error
        raise
    return group
