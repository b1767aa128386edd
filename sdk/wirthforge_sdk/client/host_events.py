"""The client of a host's events."""

from __future__ import annotations

from typing import Any

from wirthforge_sdk.client.connection import Request, Service, given
from wirthforge_sdk.contracts.events_api import BusEventOut, KeepIn, PublicationIn, PublishedOut, TopicsOut
from wirthforge_sdk.contracts.wire import Page

BusEventPage = Page[BusEventOut]


class Bus(Service):
    """The event bus of a host."""

    async def publish(self, topic: str, data: Any = None) -> PublishedOut:
        """Publishes an event. Never repeated: it might be published twice."""
        with given():
            body = PublicationIn(topic=topic, data=data)
        return await self._connection.ask(Request("POST", "/v1/events", body=body), PublishedOut)

    async def kept_events(
        self, *, topic: str = "#", after: int | None = None, limit: int | None = None
    ) -> BusEventPage:
        """Kept events, oldest first."""
        params = {"topic": topic, "after": after, "limit": limit}
        return await self._connection.ask(
            Request("GET", "/v1/events/kept", params, repeatable=True), BusEventPage
        )

    async def topics(self) -> TopicsOut:
        """What is kept, and who is subscribed."""
        return await self._connection.ask(Request("GET", "/v1/events/topics", repeatable=True), TopicsOut)

    async def keep_events(self, wanted: KeepIn) -> None:
        """Has events kept, from the next on."""
        await self._connection.tell(Request("PUT", "/v1/events/topics", body=wanted, repeatable=True))

    async def stop_keeping_events(self, topic: str) -> None:
        """Ends that."""
        await self._connection.tell(Request("DELETE", "/v1/events/topics", {"topic": topic}))
