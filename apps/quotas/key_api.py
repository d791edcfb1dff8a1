"""API keys over REST: all of them for administrators, and one's own."""

from __future__ import annotations

from typing import Any, cast

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import generics
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.api_keys.changes import change_key, remove_key
from apps.api_keys.filters import KeyFilterSet, OwnKeyFilterSet
from apps.api_keys.issue import issue_key
from apps.api_keys.models import APIKey
from apps.api_keys.serializers import (
    KeyChangeInput,
    KeyInput,
    KeyOutput,
    KeyReplacementInput,
    NewKeyOutput,
    NewOwnKeyOutput,
    OwnKeyChangeInput,
    OwnKeyInput,
    OwnKeyOutput,
    OwnKeyReplacementInput,
    RefreshedKeyOutput,
    RefreshKeyInput,
)
from apps.core.rest import actor_of, answer_deletion
from apps.core.throttles import OWN_THROTTLES
from apps.quotas.own_keys import change_own_key, issue_own_key, refresh_own_key
from apps.quotas.queries import add_use, list_keys
from apps.users.changes import refuse_above
from apps.users.models import User
from apps.users.permissions import IsSignedIn


class _KeyLists(generics.ListAPIView[APIKey]):
    """Lists of keys: what they have spent is looked up for the keys of one page only."""

    def paginate_queryset(self, queryset: Any) -> Any:
        """Return the keys of the page with their use."""
        return add_use(super().paginate_queryset(queryset) or [])


class KeysView(_KeyLists):
    """All API keys."""

    queryset = APIKey.objects.order_by("-id")
    serializer_class = KeyOutput
    filterset_class = KeyFilterSet

    @extend_schema(operation_id="admin_keys_list", summary="List API keys")
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List all keys, newest first. `search` looks into names of keys and users, and e-mail."""
        return super().get(request, *args, **kwargs)

    @extend_schema(
        operation_id="admin_keys_create",
        summary="Make an API key",
        request=KeyInput,
        responses={201: NewKeyOutput},
    )
    def post(self, request: Request) -> Response:
        """Make a key for a user. `api_key` is shown this once."""
        given = KeyInput(data=request.data)
        given.is_valid(raise_exception=True)
        actor = _caller(request)
        refuse_above(given.validated_data["user"], actor)
        key, raw = issue_key(**given.validated_data, actor=actor, request=request._request)
        return Response(NewKeyOutput(_with_raw(key, raw)).data, status=201)


class UserKeysView(_KeyLists):
    """The API keys of a user."""

    serializer_class = KeyOutput
    filterset_class = OwnKeyFilterSet
    queryset = APIKey.objects.none()

    def get_queryset(self) -> QuerySet[APIKey]:
        """Return the user's keys."""
        user = generics.get_object_or_404(User, pk=self.kwargs["user_id"])
        return APIKey.objects.filter(user=user).order_by("-id")

    @extend_schema(operation_id="admin_users_keys_list", summary="List a user's API keys")
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List the keys of a user, newest first."""
        return super().get(request, *args, **kwargs)


class KeyView(generics.GenericAPIView[APIKey]):
    """One API key."""

    queryset = list_keys()
    serializer_class = KeyOutput
    lookup_url_kwarg = "key_id"
    filter_backends = ()

    @extend_schema(operation_id="admin_keys_retrieve", summary="Show an API key")
    def get(self, request: Request, key_id: str) -> Response:
        """Return the key, never its secret."""
        return Response(KeyOutput(self.get_object()).data)

    @extend_schema(
        operation_id="admin_keys_replace",
        summary="Replace an API key's settings",
        request=KeyReplacementInput,
        responses=KeyOutput,
    )
    def put(self, request: Request, key_id: str) -> Response:
        """Set name, limits and restrictions; the key itself and its user stay."""
        return self._change(request, KeyReplacementInput)

    @extend_schema(
        operation_id="admin_keys_update",
        summary="Change an API key's settings",
        request=KeyChangeInput,
        responses=KeyOutput,
    )
    def patch(self, request: Request, key_id: str) -> Response:
        """Change what is named. A key that is disabled here stays so until it is enabled here.

        Its owner can change the other settings: limits that bind a user belong on the user or the
        user group.
        """
        return self._change(request, KeyChangeInput)

    @extend_schema(
        operation_id="admin_keys_delete", summary="Delete an API key", responses={204: None}
    )
    def delete(self, request: Request, key_id: str) -> Response:
        """Delete a key that was never used.

        One that was is disabled for good; the answer is then 409 `archived_instead`.
        """
        key, actor = self.get_object(), _caller(request)
        refuse_above(key.user, actor)
        is_deleted = remove_key(
            key_id=key.pk,
            actor=actor,
            is_by_owner=False,
            request=request._request,
        )
        return answer_deletion(is_deleted=is_deleted)

    def _change(self, request: Request, serializer: type[KeyChangeInput]) -> Response:
        key, actor = self.get_object(), _caller(request)
        refuse_above(key.user, actor)
        given = serializer(key, data=request.data)
        given.is_valid(raise_exception=True)
        change_key(
            key_id=key.pk,
            changes=cast(Any, given.validated_data),
            actor=actor,
            is_by_owner=False,
            request=request._request,
        )
        return Response(KeyOutput(self.get_object()).data)


class OwnKeysView(_KeyLists):
    """One's own API keys."""

    permission_classes = (IsSignedIn,)
    throttle_classes = OWN_THROTTLES
    serializer_class = OwnKeyOutput
    filterset_class = OwnKeyFilterSet
    queryset = APIKey.objects.none()

    def get_queryset(self) -> QuerySet[APIKey]:
        """Return the caller's keys."""
        return APIKey.objects.filter(user=_caller(self.request)).order_by("-id")

    @extend_schema(operation_id="user_keys_list", summary="List my API keys")
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List one's keys, newest first."""
        return super().get(request, *args, **kwargs)

    @extend_schema(
        operation_id="user_keys_create",
        summary="Make an API key of my own",
        request=OwnKeyInput,
        responses={201: NewOwnKeyOutput},
    )
    def post(self, request: Request) -> Response:
        """Make a key. `api_key` is shown this once. At most 100 active keys.

        `allowed_models` may hold only names of models that one may call.
        """
        given = OwnKeyInput(data=request.data)
        given.is_valid(raise_exception=True)
        limits = dict(given.validated_data)
        key, raw = issue_own_key(
            user=_caller(request),
            name=limits.pop("name"),
            limits=cast(Any, limits),
            request=request._request,
        )
        return Response(NewOwnKeyOutput(_with_raw(key, raw)).data, status=201)


class OwnKeyView(generics.GenericAPIView[APIKey]):
    """One API key of one's own; others' are not found."""

    permission_classes = (IsSignedIn,)
    throttle_classes = OWN_THROTTLES
    serializer_class = OwnKeyOutput
    lookup_url_kwarg = "key_id"
    filter_backends = ()
    queryset = APIKey.objects.none()

    def get_queryset(self) -> QuerySet[APIKey]:
        """Return the caller's keys."""
        return list_keys().filter(user=_caller(self.request))

    @extend_schema(operation_id="user_keys_retrieve", summary="Show an API key of mine")
    def get(self, request: Request, key_id: str) -> Response:
        """Return the key, never its secret."""
        return Response(OwnKeyOutput(self.get_object()).data)

    @extend_schema(
        operation_id="user_keys_replace",
        summary="Replace the settings of an API key of mine",
        request=OwnKeyReplacementInput,
        responses=OwnKeyOutput,
    )
    def put(self, request: Request, key_id: str) -> Response:
        """Set name, limits and restrictions; the key itself stays."""
        return self._change(request, OwnKeyReplacementInput)

    @extend_schema(
        operation_id="user_keys_update",
        summary="Change the settings of an API key of mine",
        request=OwnKeyChangeInput,
        responses=OwnKeyOutput,
    )
    def patch(self, request: Request, key_id: str) -> Response:
        """Change what is named. A key that an administrator disabled cannot be enabled here."""
        return self._change(request, OwnKeyChangeInput)

    @extend_schema(
        operation_id="user_keys_delete", summary="Delete an API key of mine", responses={204: None}
    )
    def delete(self, request: Request, key_id: str) -> Response:
        """Delete a key that was never used.

        One that was is disabled; the answer is then 409 `archived_instead`.
        """
        is_deleted = remove_key(
            key_id=self.get_object().pk,
            actor=_caller(request),
            is_by_owner=True,
            request=request._request,
        )
        return answer_deletion(is_deleted=is_deleted)

    def _change(self, request: Request, serializer: type[OwnKeyChangeInput]) -> Response:
        key = self.get_object()
        given = serializer(key, data=request.data)
        given.is_valid(raise_exception=True)
        change_own_key(
            user=_caller(request),
            key=key,
            changes=cast(Any, given.validated_data),
            request=request._request,
        )
        return Response(OwnKeyOutput(self.get_object()).data)


class RefreshKeyView(APIView):
    """One's default API key."""

    permission_classes = (IsSignedIn,)
    throttle_classes = OWN_THROTTLES

    @extend_schema(
        operation_id="auth_refresh_key",
        summary="Replace my default API key",
        request=None,
        responses=RefreshedKeyOutput,
    )
    def post(self, request: Request) -> Response:
        """Return a new default key, this once; the old one stops working. Limits stay."""
        RefreshKeyInput(data=request.data).is_valid(raise_exception=True)
        raw = refresh_own_key(user=_caller(request), request=request._request)
        return Response(RefreshedKeyOutput({"api_key": raw}).data)


def _caller(request: Request) -> User:
    return cast(User, actor_of(request))


def _with_raw(key: APIKey, raw: str) -> APIKey:
    shown = list_keys().get(pk=key.pk)
    shown.api_key = raw  # type: ignore[attr-defined]  # for this one answer, not a column
    return shown
