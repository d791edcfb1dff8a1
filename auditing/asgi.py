"""Sends each path to its plane: the client API to `apps.proxy`, the rest to Django."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from django.conf import settings
from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "auditing.settings")
_django = get_asgi_application()

# Django has to be set up before anything that imports models.
from apps.proxy import metrics  # noqa: E402
from apps.proxy.asgi import DataPlane, is_client_path  # noqa: E402
from auditing.control_plane import ControlPlane  # noqa: E402


class Application:
    """Both planes in one process."""

    def __init__(self) -> None:
        self.data_plane = DataPlane()
        self.control_plane = ControlPlane(_django)

    async def __call__(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
        send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
    ) -> None:
        """Answer one request, or follow the server's life."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http" and is_client_path(scope["path"]):
            await self.data_plane(scope, receive, send)
        elif scope["path"] == metrics.PATH and metrics.may_read(scope, settings.METRICS_TOKEN):
            await metrics.answer(self.data_plane.gateway, scope, send)
        else:
            await self.control_plane(scope, receive, send)

    async def _live(
        self,
        receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
        send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
    ) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await self.data_plane.gateway.start()
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                await self.data_plane.gateway.stop()
                await send({"type": "lifespan.shutdown.complete"})
                return


application = Application()
