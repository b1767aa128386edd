"""The shapes of events in the host's admin API, shared by server and client."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import Field

from wirthforge_sdk.contracts.identifiers import PluginName
from wirthforge_sdk.contracts.topics import PatternText, TopicText
from wirthforge_sdk.contracts.wire import Body, Shape


class PublicationIn(Body):
    """What an application publishes."""

    topic: TopicText
    data: Any = None
    """JSON, of at most 64 KiB."""


class PublishedOut(Shape):
    """That it is published; on a topic that is kept, that it is kept."""

    id: int


class BusEventOut(Shape):
    """An event of the bus."""

    id: int
    topic: str
    publisher: str
    """``plugin:<name>``, ``application:<token label>`` or ``host``."""
    at: datetime
    data: Any


class KeepIn(Body):
    """Has events kept, from the next on, within bounds for each publisher and topic."""

    topic: PatternText
    events: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    size_bytes: Annotated[int, Field(ge=1024, le=64 * 1024 * 1024)] = 8 * 1024 * 1024
    age_s: Annotated[int, Field(ge=1, le=366 * 24 * 3600)] = 7 * 24 * 3600


class KeptOut(Shape):
    """What is kept of one publisher on one topic."""

    topic: str
    publisher: str
    events: int
    size_bytes: int


class SubscribedOut(Shape):
    """A subscription of a plugin."""

    plugin: PluginName
    topic: str
    live: bool
    """Its plugin is connected and has the grant."""
    durable: bool
    waiting: int
    """Events in its queue; of a durable one, 0: what it has not acknowledged is kept."""
    acknowledged: int | None
    """Of a durable one, the id up to which it has acknowledged all."""


class TopicsOut(Shape):
    """What is kept, and who is subscribed."""

    keep: list[KeepIn]
    """By an operator's word."""
    kept: list[KeptOut]
    subscriptions: list[SubscribedOut]
