"""One's own profile over REST: who one is, what one has and what one may."""

from __future__ import annotations

from typing import cast

from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import generics
from rest_framework.request import Request
from rest_framework.response import Response

from apps.api_keys.models import APIKey
from apps.billing.accounts import find_standing
from apps.billing.budgets import budget_of_user, find_uses
from apps.billing.serializers import ProfileInput, ProfileOutput
from apps.core.rest import actor_of
from apps.core.throttles import OWN_THROTTLES
from apps.users.models import User
from apps.users.permissions import IsSignedIn
from apps.users.profile import change_profile


class ProfileView(generics.GenericAPIView[User]):
    """One's own profile."""

    permission_classes = (IsSignedIn,)
    throttle_classes = OWN_THROTTLES
    serializer_class = ProfileOutput
    filter_backends = ()

    @extend_schema(
        operation_id="user_profile_retrieve",
        summary="Show the own profile",
        responses=ProfileOutput,
    )
    def get(self, request: Request) -> Response:
        """Return who one is, wallet, limits, budgets and the default key as far as it is shown."""
        return _show(cast(User, actor_of(request)))

    @extend_schema(
        operation_id="user_profile_update",
        summary="Change the own profile",
        request=ProfileInput,
        responses=ProfileOutput,
    )
    def patch(self, request: Request) -> Response:
        """Change the own name or password.

        A new password needs `current_password` (400 `wrong_password`; guesses are counted like
        sign-ins) and ends all other sessions.
        """
        user = cast(User, actor_of(request))
        given = ProfileInput(user, data=request.data)
        given.is_valid(raise_exception=True)
        changed = change_profile(
            user=user, access=request.auth, request=request._request, **given.validated_data
        )
        return _show(changed)


def _show(user: User) -> Response:
    answer = {
        "user": user,
        "wallet": find_standing(user.customer_id),
        "budgets": find_uses(budget_of_user(user), now=timezone.now()),
        "default_key": APIKey.objects.filter(user=user, is_default=True, is_active=True).first(),
    }
    return Response(ProfileOutput(answer).data)
