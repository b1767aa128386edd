"""The bus: who publishes, who is told, and what is kept."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime

import msgspec
import structlog

from wirthforge_host.audit.records import Outcome, Record
from wirthforge_host.audit.service import Audit
from wirthforge_host.bus.feeds import KeptFeed
from wirthforge_host.bus.log import Cursor, Log
from wirthforge_host.bus.models import HOST, MAX_EVENT_BYTES, BusEvent, Retention
from wirthforge_host.bus.queue import Queue
from wirthforge_host.bus.subscriber import Subscriber
from wirthforge_host.errors import PluginUnavailableError
from wirthforge_host.events import PUBLISHED, Event, Events
from wirthforge_host.permissions import Rights
from wirthforge_sdk.contracts.bridge import too_deep
from wirthforge_sdk.contracts.events import Subscription
from wirthforge_sdk.contracts.topics import MAX_TOPIC, RESERVED, Patterns, is_topic
from wirthforge_sdk.errors import InvalidInputError, LimitExceededError, NotFoundError, WirthForgeError
from wirthforge_sdk.serving.database import Database

BLOCK_S = 5.0
"""How long a publisher waits for subscribers that must lose nothing."""
MAX_DECLARED = 256
"""Patterns that operators may want kept."""
EXPIRE_S = 60.0
LEVELS = 4
"""Of arrays and objects around an event's data when it is delivered."""

_log = structlog.get_logger(__name__)


UNDELIVERED = "host.event.undelivered"


class Bus:
    """Events between plugins, applications and the host. :meth:`load` before use; of the event loop's thread alone."""

    def __init__(
        self, database: Database, audit: Audit, news: Events, *, now: Callable[[], datetime]
    ) -> None:
        self._database = database
        self._audit = audit
        self._news = news
        self._now = now
        self._queues: Patterns[Queue] = Patterns()
        self._readers: Patterns[KeptFeed] = Patterns()
        self._subscribers: set[Subscriber] = set()
        self._lines: defaultdict[Rights, list[Subscriber]] = defaultdict(list)
        """The connections of each release that are ready, in their order: an event is for one of them."""
        self.turns = asyncio.Lock()
        """Held by a connection that has its turn, until it has what the manifest subscribes to."""
        self._tasks: set[asyncio.Task[None]] = set()
        self.log = Log(database, self._tell, now=now)
        self.attempts: defaultdict[Cursor, dict[int, int]] = defaultdict(dict)
        """How often each event was sent that was not acknowledged; also over restarts of a plugin."""
        news.listen(self._heard)

    async def load(self) -> None:
        """Reads what is kept."""
        await self.log.load()

    async def publish(self, publisher: str, topic: str, encoded: bytes) -> BusEvent:
        """Publishes an event; one that is kept is committed when this returns.

        Args:
            publisher: ``plugin:<name>`` or ``application:<label>``, as the connection says.
            topic: Not of the host's.
            encoded: JSON.

        Raises:
            InvalidInputError: The topic is none, or the data is over its bound.
            LimitExceededError: A subscriber that must lose nothing has no room; nobody was told.
            DatabaseUnavailableError: It could not be kept; nobody was told.
        """
        if not is_topic(topic):
            raise InvalidInputError(
                f"topic: '{topic[:MAX_TOPIC]}' is none that can be published on: words of a-z, 0-9, _ and - with dots "
                f"between them, the first not '{RESERVED}'",
                field="topic",
            )
        if len(encoded) > MAX_EVENT_BYTES:
            raise InvalidInputError(f"data: over {MAX_EVENT_BYTES} bytes as JSON", field="data")
        if too_deep(b"[" * LEVELS + encoded + b"]" * LEVELS):
            raise InvalidInputError("data: nested too deep", field="data")
        async with self._room(topic):
            if self.log.keeps(topic):
                return await self.log.append(publisher, topic, encoded)
            event = BusEvent(self.log.next_id(), topic, publisher, self._now(), encoded)
            self._tell(event)
            return event

    def subscriber(self, plugin: str, rights: Rights, subscriptions: Sequence[Subscription]) -> Subscriber:
        """A plugin's connection, as one that may subscribe; its manifest names ``subscriptions``."""
        made = Subscriber(self, plugin, rights, subscriptions)
        self._subscribers.add(made)
        return made

    def join(self, pattern: str, feed: Queue | KeptFeed) -> None:
        """Has events of a pattern put into a queue, or a reader of kept ones woken."""
        if isinstance(feed, Queue):
            self._queues.add(pattern, feed)
        else:
            self._readers.add(pattern, feed)

    def part(self, pattern: str, feed: Queue | KeptFeed) -> None:
        """Ends that."""
        if isinstance(feed, Queue):
            self._queues.remove(pattern, feed)
            feed.close()
        else:
            self._readers.remove(pattern, feed)

    def line_up(
        self, subscriber: Subscriber, *, after: Rights | None = None, instead_of: Subscriber | None = None
    ) -> list[Subscriber]:
        """It is its turn to have what the manifest subscribes to, or is when those before it are over.

        Args:
            subscriber: Whose.
            after: A release whose line ends now, and whose place it takes, the first of its own.
            instead_of: One in line, whose place it takes.

        Returns:
            Those that were in the line that ended.

        Raises:
            PluginUnavailableError: Its connection is over.
            RuntimeError: It takes a place, and of its release there are some in line already.
        """
        if subscriber not in self._subscribers:
            raise PluginUnavailableError("the plugin's instance is not connected")
        if after not in {None, subscriber.rights} and subscriber.rights in self._lines:
            raise RuntimeError("the first of a release takes over")
        if instead_of is not None:
            line = self._lines[instead_of.rights]
            line[line.index(instead_of)] = subscriber
            return [instead_of]
        before = [] if after is None else self._lines.pop(after, [])
        self._lines[subscriber.rights].append(subscriber)
        return before

    def is_turn_of(self, subscriber: Subscriber, *, alone: bool = False) -> bool:
        """Whether it is; with ``alone``, whether no other of its release is in line, besides."""
        line = self._lines.get(subscriber.rights, [])
        return (line if alone else line[:1]) == [subscriber]

    def leave(self, subscriber: Subscriber) -> None:
        """A connection is over."""
        self._subscribers.discard(subscriber)
        line = self._lines.pop(subscriber.rights, [])
        was_first = line[:1] == [subscriber]
        rest = [each for each in line if each is not subscriber]
        if rest:
            self._lines[subscriber.rights] = rest
            if was_first:
                self._spawn(rest[0].take_turn())

    def subscriptions(self) -> list[tuple[str, str, int]]:
        """What plugins are subscribed to now: plugin, pattern, events that wait in memory."""
        return sorted(
            (each.plugin, pattern, waiting)
            for each in self._subscribers
            for pattern, waiting in each.active()
        )

    def abandon(self, plugin: str, patterns: Sequence[str]) -> None:
        """Ends durable subscriptions that were revoked, or that the release at work does not have."""
        if patterns:
            self._spawn(self.log.abandon(plugin, patterns))

    def gave_up(self, plugin: str, event: BusEvent, reason: str) -> None:
        """Tells operators of an event that a plugin did not take; not of that news itself, which would not end."""
        if event.topic == UNDELIVERED:
            return
        self._news.emit("event.undelivered", plugin=plugin, event=event.id, on=event.topic, reason=reason)

    async def keep(self, pattern: str, retention: Retention, *, by: str) -> None:
        """Has events of a pattern kept, from the next on.

        Raises:
            LimitExceededError: Too many patterns are kept.
        """
        if pattern not in self.log.wanted and len(self.log.wanted) >= MAX_DECLARED:
            raise LimitExceededError(f"{MAX_DECLARED} patterns are kept: end one first")
        detail = {
            "topic": pattern,
            "events": retention.events,
            "size_bytes": retention.size_bytes,
            "age_s": retention.age_s,
        }
        async with self._database.transaction() as tx:
            await self.log.keep(pattern, retention, by=by, tx=tx)
            await self._audit.append(
                tx, Record(actor=by, action="events.keep", outcome=Outcome.ALLOWED, detail=detail)
            )

    async def stop_keeping(self, pattern: str, *, by: str) -> None:
        """Ends that; what is kept stays until it is too old.

        Raises:
            NotFoundError: Nobody wanted it kept.
        """
        async with self._database.transaction() as tx:
            if not await self.log.stop_keeping(pattern, tx=tx):
                raise NotFoundError(f"events of '{pattern}' are not kept by an operator's word")
            detail = {"topic": pattern}
            await self._audit.append(
                tx, Record(actor=by, action="events.forget", outcome=Outcome.ALLOWED, detail=detail)
            )

    async def run(self) -> None:
        """Drops what is too old, until cancelled."""
        while True:
            try:
                await self.log.expire()
            except WirthForgeError as error:
                _log.warning("bus.not_expired", error=error.message)
            await asyncio.sleep(EXPIRE_S)

    async def close(self) -> None:
        """Ends all deliveries; returns when what was taken is written."""
        for each in list(self._subscribers):
            each.close()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self.log.close()

    @asynccontextmanager
    async def _room(self, topic: str) -> AsyncIterator[None]:
        """Holds a place in every queue that must lose nothing.

        Raises:
            LimitExceededError: One had none for :data:`BLOCK_S`.
        """
        blocking = [queue for queue in dict.fromkeys(self._queues.matching(topic)) if queue.blocks]
        held: list[Queue] = []
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(BLOCK_S):
                    for queue in blocking:
                        await queue.reserve()
                        held.append(queue)
            if len(held) < len(blocking):
                raise LimitExceededError(
                    "a subscriber that must lose no event has no room: publish it again later"
                )
            yield
        finally:
            for queue in held:
                queue.settle()

    def _tell(self, event: BusEvent) -> None:
        for queue in dict.fromkeys(self._queues.matching(event.topic)):
            queue.put(event)
        for reader in dict.fromkeys(self._readers.matching(event.topic)):
            reader.wake()
        kind, _, name = event.publisher.partition(":")
        if kind == "plugin":
            self._news.emit("plugin.event", plugin=name, topic=event.topic, data=msgspec.Raw(event.encoded))
        elif kind == "application":
            data = msgspec.Raw(event.encoded)
            self._news.emit("application.event", application=name, topic=event.topic, data=data)

    def _heard(self, event: Event) -> None:
        """News of the host are events of the bus. They wait for nobody."""
        if event.type in PUBLISHED:
            return
        topic = event.topic
        encoded = msgspec.json.encode({"plugin": event.plugin, **event.data})
        if self.log.keeps(topic):
            self._spawn(self._kept(topic, encoded))
        else:
            self._tell(BusEvent(self.log.next_id(), topic, HOST, event.at, encoded))

    async def _kept(self, topic: str, encoded: bytes) -> None:
        await self.log.append(HOST, topic, encoded)

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.create_task(_told(work), name="bus")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _told(work: Awaitable[None]) -> None:
    try:
        await work
    except WirthForgeError as error:
        _log.warning("bus.not_written", error=error.message)
