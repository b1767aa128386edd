"""Events over HTTP: the news of the host and the bus as a stream, publishing, and what is kept."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

import msgspec
from fastapi import APIRouter, Header, Query, Response, status
from fastapi.responses import EventSourceResponse
from fastapi.sse import ServerSentEvent
from pydantic import Field

from wirthforge_host.api.security import Caller, Keeper, Reader, Wired, require
from wirthforge_host.bus import BusEvent, Retention
from wirthforge_host.events import GAP
from wirthforge_host.tokens.service import Operator, Scope
from wirthforge_host.wiring import Wiring
from wirthforge_sdk.contracts.events_api import (
    BusEventOut,
    KeepIn,
    KeptOut,
    PublicationIn,
    PublishedOut,
    SubscribedOut,
    TopicsOut,
)
from wirthforge_sdk.contracts.identifiers import PluginName
from wirthforge_sdk.contracts.topics import PatternText, matches
from wirthforge_sdk.contracts.wire import DEFAULT_PAGE, Body, Limit, Page
from wirthforge_sdk.errors import InvalidInputError, PermissionDeniedError

router = APIRouter(prefix="/v1/events", tags=["events"])

READS = 20
"""Looks at the log for one page: what matches may be rare in it."""


class Filters(Body):
    """Which events."""

    topic: PatternText | None = None
    """Of the bus; what the host tells is ``host.`` and its type."""
    plugin: PluginName | None = None


class Asked(Body):
    """Which kept events."""

    topic: PatternText = "#"
    after: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Id to continue above: ``next`` of the last page."""
    limit: Limit = DEFAULT_PAGE


@router.get("", response_class=EventSourceResponse)
async def events(
    _: Reader,
    wiring: Wired,
    wanted: Annotated[Filters, Query()],
    last_event_id: Annotated[int | None, Header()] = None,
) -> AsyncIterator[ServerSentEvent]:
    """Events of the host and its plugins as they happen; ``Last-Event-ID`` repeats the recent ones missed."""
    async with wiring.events.subscribe(after=last_event_id) as stream:
        async for event in stream:
            if event.type != GAP:
                if wanted.plugin is not None and event.plugin != wanted.plugin:
                    continue
                if wanted.topic is not None and not matches(wanted.topic, event.topic):
                    continue
            yield ServerSentEvent(event=event.type, id=str(event.id), data=event.as_dict())


@router.post("", status_code=status.HTTP_201_CREATED)
async def publish(body: PublicationIn, operator: Caller, wiring: Wired) -> PublishedOut:
    """Publishes an event as an application; one that is kept is, when this answers."""
    return PublishedOut(id=await published(wiring, operator, body))


@router.get("/kept")
async def kept(_: Reader, wiring: Wired, asked: Annotated[Asked, Query()]) -> Page[BusEventOut]:
    """Kept events, oldest first."""
    found: list[BusEvent] = []
    position = asked.after
    for _read in range(READS):
        before = position
        more, position = await wiring.bus.log.read(before, asked.topic)
        found += more
        if position == before or len(found) >= asked.limit:
            break
    if len(found) > asked.limit:
        found, position = found[: asked.limit], found[asked.limit - 1].id
    items = [_shown(event) for event in found]
    return Page(items=items, next=None if position == asked.after else str(position))


@router.get("/topics")
async def topics(_: Reader, wiring: Wired) -> TopicsOut:
    """What is kept, and who is subscribed."""
    log = wiring.bus.log
    live = {(plugin, pattern): waiting for plugin, pattern, waiting in wiring.bus.subscriptions()}
    return TopicsOut(
        keep=[
            KeepIn(topic=topic, events=each.events, size_bytes=each.size_bytes, age_s=each.age_s)
            for topic, each in sorted(log.wanted.items())
        ],
        kept=[
            KeptOut(topic=row.topic, publisher=row.publisher, events=row.events, size_bytes=row.size_bytes)
            for row in await log.usages()
        ],
        subscriptions=[
            SubscribedOut(
                plugin=plugin,
                topic=pattern,
                live=(plugin, pattern) in live,
                durable=(plugin, pattern) in log.cursors,
                waiting=live.get((plugin, pattern), 0),
                acknowledged=log.cursors.get((plugin, pattern)),
            )
            for plugin, pattern in sorted({*live, *log.cursors})
        ],
    )


@router.put("/topics", status_code=status.HTTP_204_NO_CONTENT, response_class=Response)
async def keep(body: KeepIn, operator: Keeper, wiring: Wired) -> None:
    """Has events of a topic or a pattern kept, from the next on."""
    retention = Retention(events=body.events, size_bytes=body.size_bytes, age_s=body.age_s)
    await wiring.bus.keep(body.topic, retention, by=operator.actor)


@router.delete("/topics", status_code=status.HTTP_204_NO_CONTENT, response_class=Response)
async def stop_keeping(operator: Keeper, wiring: Wired, topic: Annotated[PatternText, Query()]) -> None:
    """Ends that, in just the words it was begun with; what is kept stays until it is too old."""
    await wiring.bus.stop_keeping(topic, by=operator.actor)


async def published(wiring: Wiring, operator: Operator, body: PublicationIn) -> int:
    """The id of an event that the holder of a token published.

    Raises:
        PermissionDeniedError: Their token lacks the scope, or the topic is none of its own.
        WirthForgeError: As :meth:`Bus.publish` tells.
    """
    require(operator, Scope.CALL)
    if not operator.may_publish(body.topic):
        raise PermissionDeniedError(f"this token may not publish on '{body.topic}'", topic=body.topic)
    try:
        encoded = msgspec.json.encode(body.data)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"data: not JSON that can be sent: {error}", field="data") from error
    return (await wiring.bus.publish(f"application:{operator.label}", body.topic, encoded)).id


def _shown(event: BusEvent) -> BusEventOut:
    return BusEventOut(
        id=event.id,
        topic=event.topic,
        publisher=event.publisher,
        at=event.at,
        data=msgspec.json.decode(event.encoded),
    )
