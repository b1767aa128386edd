"""Streams of a host."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from wirthforge_sdk.client.connection import Request, Service
from wirthforge_sdk.client.events import read_events
from wirthforge_sdk.contracts.wire import Shape
from wirthforge_sdk.errors import UnavailableError

SILENCE_S: Final = 60.0
"""Longest silence of a stream: a host that lives says so every quarter of a minute."""

Sent = TypeVar("Sent", bound=Shape)


class Streams(Service):
    """What a host tells as it happens."""

    async def _follow(
        self, path: str, after: int | None, shape: type[Sent], params: Mapping[str, Any] | None = None
    ) -> AsyncIterator[Sent]:
        headers = {"Accept": "text/event-stream"}
        if after is not None:
            headers["Last-Event-ID"] = str(after)
        request = Request("GET", path, dict(params or {}), headers=headers, timeout_s=SILENCE_S)
        async for told in self._told(request, shape):
            yield told

    async def _told(self, request: Request, shape: type[Sent]) -> AsyncIterator[Sent]:
        async with self._connection.opened(request) as response:
            async for event in read_events(response.aiter_bytes()):
                try:
                    yield shape.model_validate_json(event.data)
                except ValidationError as error:
                    raise UnavailableError(
                        f"the host sent a '{event.event}' in a form that this version does not know: "
                        "bring client and host to the same version"
                    ) from error
