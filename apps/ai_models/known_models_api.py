"""Known models over REST: looking through them and taking some into the catalogue."""

from __future__ import annotations

from typing import Any, Final, cast

from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import generics, serializers
from rest_framework.request import Request
from rest_framework.response import Response

from apps.ai_models.known_models import (
    IMPORT_MAX,
    Choice,
    KnownModel,
    import_known_models,
    load_known_models,
    search_known_models,
)
from apps.ai_models.models import AIModel
from apps.ai_models.price_serializers import PRICES_SCHEMA
from apps.ai_models.serializers import validate_model_name
from apps.core.pages import NumberedPages
from apps.core.rest import StrictSerializer, actor_of, example, read_query
from apps.providers.models import Provider
from apps.users.permissions import IsAdmin, ViewersRead

_PAGE_PARAMETERS: Final = frozenset({"page", "page_size"})


class KnownModelsQuery(StrictSerializer):
    """Filters of known models."""

    provider = serializers.CharField(
        max_length=64, required=False, help_text="The id of a known provider, such as openai."
    )
    search = serializers.CharField(
        max_length=200, required=False, help_text="A piece of the model's id or name."
    )

    def validate_provider(self, value: str) -> str:
        """Refuse providers that are not in the file."""
        if value not in load_known_models().providers:
            raise serializers.ValidationError(f"There is no known provider {value}.")
        return value


@example(
    {
        "provider": "openai",
        "provider_name": "OpenAI",
        "model": "gpt-4o",
        "name": "GPT-4o",
        "context_length": 128000,
        "prices": {"input": "2.5", "cache_read": "1.25", "output": "10"},
        "notes": ["other_fees"],
        "is_in_catalogue": False,
    }
)
class KnownModelOutput(serializers.Serializer[KnownModel]):
    """A model that a provider is known to offer, at its list price in USD per million tokens.

    Notes: `tiered` (long inputs cost more than this), `time_of_day` (cheaper at some hours),
    `other_fees` (searches and the like cost extra), `deprecated`.
    """

    provider = serializers.CharField()
    provider_name = serializers.SerializerMethodField()
    model = serializers.CharField()
    name = serializers.CharField()
    context_length = serializers.IntegerField(allow_null=True)
    prices = serializers.SerializerMethodField()
    notes = serializers.ListField(child=serializers.CharField())
    is_in_catalogue = serializers.SerializerMethodField()

    def get_provider_name(self, known: KnownModel) -> str:
        """Return the provider's name."""
        return load_known_models().providers[known.provider]

    @extend_schema_field(PRICES_SCHEMA)
    def get_prices(self, known: KnownModel) -> dict[str, str]:
        """Return token class → USD per million tokens, and `request`."""
        return dict(known.prices)

    def get_is_in_catalogue(self, known: KnownModel) -> bool:
        """Return whether there is a model of this name already."""
        return known.model in self.context.get("names", ())


@example({"provider": "openai", "model": "gpt-4o", "name": "gpt-4o"})
class KnownModelChoice(StrictSerializer):
    """A known model, and the name that it gets; without one its own."""

    provider = serializers.CharField(max_length=64)
    model = serializers.CharField(max_length=200)
    name = serializers.CharField(max_length=200, required=False, validators=[validate_model_name])

    def validate(self, attrs: dict[str, Any]) -> Any:
        """Return a Choice."""
        known = load_known_models().by_key.get((attrs["provider"], attrs["model"]))
        if known is None:
            raise serializers.ValidationError(
                {"model": [f"There is no known model {attrs['model']} of {attrs['provider']}."]}
            )
        return Choice(known, attrs.get("name", known.model))


@example(
    {
        "models": [
            {"provider": "openai", "model": "gpt-4o"},
            {"provider": "anthropic", "model": "claude-sonnet-4-6", "name": "sonnet"},
        ],
        "route_provider": 1,
    }
)
class ImportInput(StrictSerializer):
    """Known models to import, and the provider to which they get routes."""

    models = serializers.ListField(child=KnownModelChoice(), min_length=1, max_length=IMPORT_MAX)
    route_provider = serializers.PrimaryKeyRelatedField(
        queryset=Provider.objects.all(),
        required=False,
        pk_field=serializers.IntegerField(min_value=1, max_value=2**63 - 1),
    )


class ImportedOutput(serializers.Serializer[Any]):
    """What became of one of them."""

    provider = serializers.CharField(source="choice.known.provider")
    model = serializers.CharField(source="choice.known.model")
    name = serializers.CharField(source="choice.name")
    status = serializers.ChoiceField(choices=["created", "exists"])
    id = serializers.IntegerField()
    assumed = serializers.ListField(
        child=serializers.CharField(),
        help_text="Values of the new model that nobody told: set them to the provider's own. A "
        "call that asks for more than `max_output_tokens` is refused, and one that sets no "
        "maximum is held for so many.",
    )


@example(
    {
        "results": [
            {
                "provider": "openai",
                "model": "gpt-4o",
                "name": "gpt-4o",
                "status": "created",
                "id": 7,
                "assumed": ["max_output_tokens"],
            }
        ]
    }
)
class ImportOutput(serializers.Serializer[Any]):
    """What became of each, in the order of the request."""

    results = ImportedOutput(many=True)


class KnownModelsView(generics.GenericAPIView[Any]):
    """Known models."""

    serializer_class = KnownModelOutput
    permission_classes = (ViewersRead,)
    filter_backends = ()

    @extend_schema(
        parameters=[KnownModelsQuery],
        responses=KnownModelOutput(many=True),
        operation_id="admin_known_models_list",
        summary="List known models",
    )
    def get(self, request: Request) -> Response:
        """Return models that providers are known to offer, with their list prices."""
        asked = read_query(KnownModelsQuery, request, without=_PAGE_PARAMETERS)
        found = search_known_models(
            provider=asked.get("provider", ""), text=asked.get("search", "")
        )
        pages = NumberedPages()
        page: Any = pages.paginate_queryset(cast(Any, found), request, view=self) or []
        names = AIModel.objects.filter(name__in=[known.model for known in page])
        context = {"names": set(names.values_list("name", flat=True))}
        shown = KnownModelOutput(page, many=True, context=context)
        return pages.get_paginated_response(shown.data)


class ImportKnownModelsView(generics.GenericAPIView[Any]):
    """Taking known models into the catalogue."""

    serializer_class = ImportInput
    permission_classes = (IsAdmin,)
    filter_backends = ()

    @extend_schema(
        request=ImportInput,
        responses=ImportOutput,
        operation_id="admin_known_models_import",
        summary="Import known models",
    )
    def post(self, request: Request) -> Response:
        """Make models with their list prices and, with `route_provider`, routes.

        A model whose name is taken is left as it is and answers `exists`: the call can be repeated.
        """
        given = ImportInput(data=request.data)
        given.is_valid(raise_exception=True)
        results = import_known_models(
            choices=given.validated_data["models"],
            route_provider=given.validated_data.get("route_provider"),
            actor=actor_of(request),
            request=request._request,
        )
        return Response(ImportOutput({"results": results}).data)
