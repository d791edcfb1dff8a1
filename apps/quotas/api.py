"""Quotas over REST: giving and changing them, one's own, and what one may call at which price."""

from __future__ import annotations

from typing import Any, Final, cast

from django.db.models import QuerySet
from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import generics
from rest_framework.request import Request
from rest_framework.response import Response

from apps.ai_models.models import AIModel
from apps.core.idempotency_keys import idempotency_key_parameter, read_idempotency_key
from apps.core.rest import actor_of, answer_deletion
from apps.quotas.allowances import Cause, Grant, change_quota, create_quota
from apps.quotas.bulk import change_in_bulk, give_in_bulk, list_members
from apps.quotas.filters import OfferFilterSet, OwnQuotaFilterSet, QuotaFilterSet
from apps.quotas.leftovers import remove_quota
from apps.quotas.models import UserQuota
from apps.quotas.offers import list_offers
from apps.quotas.queries import list_quotas
from apps.quotas.repeats import IdempotencyKeyMissing, Repeat, find_claimed, make_repeat
from apps.quotas.serializers import (
    BulkQuotaChangeInput,
    BulkQuotaInput,
    BulkQuotasOutput,
    OfferOutput,
    OwnQuotaOutput,
    QuotaChangeInput,
    QuotaInput,
    QuotaOutput,
    QuotaReplacementInput,
)
from apps.users.models import User
from apps.users.permissions import AnalystsRead, IsAdmin, IsSignedIn

_REPEATABLE: Final = [idempotency_key_parameter(is_required=False)]
_REPEATED_SAFELY: Final = [idempotency_key_parameter(is_required=True)]


class QuotasView(generics.ListAPIView[UserQuota]):
    """All quotas."""

    permission_classes = (AnalystsRead,)
    queryset = list_quotas()
    serializer_class = QuotaOutput
    filterset_class = QuotaFilterSet

    @extend_schema(operation_id="admin_quotas_list", summary="List quotas")
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List quotas with what is used, held and left, newest first.

        `search` looks into user names and names of model groups, for administrators also into
        e-mail addresses.
        """
        return super().get(request, *args, **kwargs)

    @extend_schema(
        operation_id="admin_quotas_create",
        summary="Give a quota",
        request=QuotaInput,
        responses={201: QuotaOutput},
        parameters=_REPEATABLE,
    )
    def post(self, request: Request) -> Response:
        """Give a user an allowance on a model group, funded from promotion.

        A user can have several quotas on one group: each is a grant of its own.
        """
        given = QuotaInput(data=request.data)
        given.is_valid(raise_exception=True)
        quota = create_quota(
            **given.validated_data,
            actor=_actor(request),
            repeat=_repeat(request, "quota"),
            request=request._request,
        )
        return Response(_shown(quota.pk), status=201)


class QuotaView(generics.GenericAPIView[UserQuota]):
    """One quota."""

    permission_classes = (AnalystsRead,)
    queryset = list_quotas()
    serializer_class = QuotaOutput
    lookup_url_kwarg = "quota_id"
    filter_backends = ()

    @extend_schema(operation_id="admin_quotas_retrieve", summary="Show a quota")
    def get(self, request: Request, quota_id: str) -> Response:
        """Return the quota."""
        return Response(QuotaOutput(self.get_object()).data)

    @extend_schema(
        operation_id="admin_quotas_replace",
        summary="Replace a quota",
        request=QuotaReplacementInput,
        responses=QuotaOutput,
        parameters=_REPEATABLE,
    )
    def put(self, request: Request, quota_id: str) -> Response:
        """Set the total, the expiry and whether it counts; user and model group stay.

        A total below what is used and held is refused with 409 `total_below_use`.
        """
        return self._change(request, QuotaReplacementInput)

    @extend_schema(
        operation_id="admin_quotas_update",
        summary="Change a quota",
        request=QuotaChangeInput,
        responses=QuotaOutput,
        parameters=_REPEATABLE,
    )
    def patch(self, request: Request, quota_id: str) -> Response:
        """Change what is named; user and model group stay.

        A total below what is used and held is refused with 409 `total_below_use`. A quota that is
        not active is not drawn on; its money stays in it.
        """
        return self._change(request, QuotaChangeInput)

    @extend_schema(
        operation_id="admin_quotas_delete", summary="Take a quota back", responses={204: None}
    )
    def delete(self, request: Request, quota_id: str) -> Response:
        """Delete a quota that never had money.

        One that had is deactivated, and what is neither used nor held goes back to promotion; the
        answer is then 409 `archived_instead`.
        """
        is_deleted = remove_quota(
            quota_id=self.get_object().pk, actor=_actor(request), request=request._request
        )
        return answer_deletion(is_deleted=is_deleted)

    def _change(self, request: Request, serializer: type[QuotaChangeInput]) -> Response:
        quota = self.get_object()
        given = serializer(quota, data=request.data)
        given.is_valid(raise_exception=True)
        changes = dict(given.validated_data)
        reason = changes.pop("reason")
        change_quota(
            quota_id=quota.pk,
            changes=cast(Any, changes),
            actor=_actor(request),
            reason=reason,
            repeat=_repeat(request, f"quota-change:{request.method}:{quota.pk}"),
            request=request._request,
        )
        return Response(_shown(quota.pk))


class BulkQuotasView(generics.GenericAPIView[UserQuota]):
    """Quotas for many users."""

    permission_classes = (IsAdmin,)
    queryset = UserQuota.objects.none()
    serializer_class = BulkQuotasOutput
    filter_backends = ()
    pagination_class = None

    @extend_schema(
        operation_id="admin_quotas_bulk_create",
        summary="Give quotas to many users",
        request=BulkQuotaInput,
        responses={201: BulkQuotasOutput},
        parameters=_REPEATED_SAFELY,
    )
    def post(self, request: Request) -> Response:
        """Give each of up to 1,000 users the same quota.

        The work commits in pieces. If the call breaks off, send it again with the same
        Idempotency-Key and body: it goes on where it stopped, and nobody gets a quota twice. Where
        a later piece is refused the answer is 409 `stopped_halfway` with the quotas given so far in
        `done`; the same call goes on when what it names is put right.
        """
        repeat = _required_repeat(request, "quotas")
        claimed = find_claimed(repeat)
        context = {"is_repeated": claimed is not None}
        given = BulkQuotaInput(data=request.data, context=context)
        given.is_valid(raise_exception=True)
        values = dict(given.validated_data)
        if claimed is not None:
            user_ids = claimed.subjects
        else:
            user_ids = values.get("users") or list_members(values["user_group"])
        made = give_in_bulk(
            user_ids=user_ids,
            grant=Grant(
                values["model_group"],
                values["total_nanos"],
                values["expires_at"],
                values["is_active"],
            ),
            cause=Cause(_actor(request), values["reason"], request._request),
            repeat=repeat,
        )
        return Response(_shown_all(made), status=201)


class BulkChangeView(generics.GenericAPIView[UserQuota]):
    """Changes of many quotas."""

    permission_classes = (IsAdmin,)
    queryset = UserQuota.objects.none()
    serializer_class = BulkQuotasOutput
    filter_backends = ()
    pagination_class = None

    @extend_schema(
        operation_id="admin_quotas_bulk_change",
        summary="Change many quotas",
        request=BulkQuotaChangeInput,
        responses=BulkQuotasOutput,
        parameters=_REPEATED_SAFELY,
    )
    def post(self, request: Request) -> Response:
        """Change up to 1,000 quotas alike.

        The work commits in pieces. If the call breaks off, send it again with the same
        Idempotency-Key and body: it goes on where it stopped, and nothing is added twice.

        Nothing is changed where one of the quotas refuses it. Where one refuses later on, because
        it was changed in between, the answer is 409 `stopped_halfway` with the quotas changed so
        far in `done`; the same call goes on when what it names is put right.
        """
        repeat = _required_repeat(request, "quotas-change")
        context = {"is_repeated": find_claimed(repeat) is not None}
        given = BulkQuotaChangeInput(data=request.data, context=context)
        given.is_valid(raise_exception=True)
        changes = dict(given.validated_data)
        quota_ids, reason = changes.pop("quotas"), changes.pop("reason")
        changed = change_in_bulk(
            quota_ids=quota_ids,
            changes=cast(Any, changes),
            cause=Cause(_actor(request), reason, request._request),
            repeat=repeat,
        )
        return Response(_shown_all(changed))


class OwnQuotasView(generics.ListAPIView[UserQuota]):
    """One's own quotas."""

    permission_classes = (IsSignedIn,)
    serializer_class = OwnQuotaOutput
    filterset_class = OwnQuotaFilterSet
    queryset = UserQuota.objects.none()

    def get_queryset(self) -> QuerySet[UserQuota]:
        """Return the caller's quotas."""
        return list_quotas().filter(user=_actor(self.request))

    @extend_schema(operation_id="user_quotas_list", summary="List my quotas")
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List one's quotas with what is used, held and left, newest first."""
        return super().get(request, *args, **kwargs)


class OffersView(generics.GenericAPIView[AIModel]):
    """What one may call."""

    permission_classes = (IsSignedIn,)
    queryset = AIModel.objects.all()
    serializer_class = OfferOutput
    filterset_class = OfferFilterSet

    @extend_schema(
        operation_id="user_models_list",
        summary="List the models that I may call",
        responses=OfferOutput(many=True),
    )
    def get(self, request: Request) -> Response:
        """List the models that one may call now, at the prices that one pays.

        Prices contain the multiplier: that of the cheapest model group by which the model is open
        to the caller, times that of his user group. A key can be restricted to fewer models.
        """
        offers = list_offers(
            user=_actor(request),
            now=timezone.now(),
            models=self.filter_queryset(self.get_queryset()),
        )
        page = self.paginate_queryset(cast(Any, offers))
        return self.get_paginated_response(OfferOutput(page, many=True).data)


def _actor(request: Request) -> User:
    return cast(User, actor_of(request))


def _repeat(request: Request, action: str) -> Repeat | None:
    given = read_idempotency_key(request)
    if given is None:
        return None
    return make_repeat(given=given, action=action, actor_id=_actor(request).pk, body=request.data)


def _required_repeat(request: Request, action: str) -> Repeat:
    repeat = _repeat(request, action)
    if repeat is None:
        raise IdempotencyKeyMissing
    return repeat


def _shown(quota_id: int) -> Any:
    return QuotaOutput(list_quotas().get(pk=quota_id)).data


def _shown_all(quota_ids: list[int]) -> Any:
    quotas = list_quotas().filter(pk__in=quota_ids).order_by("pk")
    return BulkQuotasOutput({"quotas": quotas}).data
