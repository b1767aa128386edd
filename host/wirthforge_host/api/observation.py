"""What can be watched: events, logs, metrics, health."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query, Response, status
from fastapi.responses import EventSourceResponse
from fastapi.sse import ServerSentEvent

from wirthforge_host.api.security import Reader, Wired
from wirthforge_sdk.contracts.host_api import HealthOut, LogOut
from wirthforge_sdk.contracts.identifiers import Slug
from wirthforge_sdk.contracts.wire import DEFAULT_PAGE, Limit, Page

router = APIRouter()


async def _installed(namespace: Slug, name: Slug, _: Reader, wiring: Wired) -> str:
    """The plugin's name. A dependency, for a stream has no way to say afterwards that there is no such plugin."""
    return (await wiring.plugins.get(f"{namespace}/{name}")).name


@router.get("/v1/plugins/{namespace}/{name}/logs", tags=["plugins"])
async def logs(
    plugin: Annotated[str, Depends(_installed)],
    wiring: Wired,
    after: Annotated[int | None, Query(ge=0)] = None,
    limit: Limit = DEFAULT_PAGE,
) -> Page[LogOut]:
    """The newest lines of the plugin's log, oldest first; ``after`` continues from an id."""
    items = wiring.logs.tail(plugin, after=after, limit=limit)
    return Page(items=items, next=str(items[-1].id) if items else None)


@router.get(
    "/v1/plugins/{namespace}/{name}/logs/stream",
    tags=["plugins"],
    response_class=EventSourceResponse,
)
async def follow(
    plugin: Annotated[str, Depends(_installed)],
    wiring: Wired,
    last_event_id: Annotated[int | None, Header()] = None,
) -> AsyncIterator[ServerSentEvent]:
    """The plugin's log as it is written."""
    async with wiring.logs.subscribe(plugin, after=last_event_id) as stream:
        async for line in stream:
            yield ServerSentEvent(event="log", id=str(line.id), data=line.model_dump(mode="json"))


@router.get("/metrics", tags=["health"], response_class=Response)
async def metrics(_: Reader, wiring: Wired) -> Response:
    """Prometheus metrics, in its text format."""
    states = [record.state.value for record in await wiring.plugins.records()]
    told = wiring.metrics.exposition(states, wiring.resources.figures())
    return Response(told, media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get("/healthz", tags=["health"])
async def healthz() -> HealthOut:
    """Whether the process answers."""
    return HealthOut(status="ok", checks={})


@router.get("/readyz", tags=["health"])
async def readyz(response: Response, wiring: Wired) -> HealthOut:
    """Whether it can do its work: database, engine, image, and what goes on beside requests."""
    checks = await wiring.readiness()
    ready = all(check == "ok" for check in checks.values())
    if not ready:
        response.status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    return HealthOut(status="ok" if ready else "unavailable", checks=checks)
