"""A plugin's instance as a subscriber: its subscriptions begin and end with its grants."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wirthforge_host.bus.delivery import Delivery, Send
from wirthforge_host.bus.feeds import KeptFeed
from wirthforge_host.bus.models import BusEvent
from wirthforge_host.bus.queue import Queue
from wirthforge_host.permissions import Rights
from wirthforge_sdk.contracts.events import MAX_SUBSCRIPTIONS, Overflow, Subscription
from wirthforge_sdk.errors import ConflictError, LimitExceededError

if TYPE_CHECKING:
    from wirthforge_host.bus.service import Bus


@dataclass(frozen=True, slots=True, eq=False)
class _Active:
    feed: Queue | KeptFeed
    task: asyncio.Task[None]


class Subscriber:
    """One connection's subscriptions. :meth:`begin` when the plugin is ready; :meth:`close` when it is gone.

    What the manifest subscribes to is for the plugin, and comes to one of its instances: the first that is ready, then
    the next. What an instance subscribes to itself comes to that instance.

    What is denied within a granted pattern is not delivered; what is revoked ends at once, with what is on its way.
    """

    def __init__(self, bus: Bus, plugin: str, rights: Rights) -> None:
        self._bus = bus
        self.plugin = plugin
        self.rights = rights
        self._send: Send | None = None
        self._of_manifest: Sequence[Subscription] = ()
        self._wanted: dict[str, Subscription] = {}
        self._active: dict[str, _Active] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._watches = False
        self._closed = False

    async def begin(self, subscriptions: Sequence[Subscription], send: Send) -> None:
        """Has events delivered, of the subscriptions that are granted now and whenever they are."""
        if self._closed:
            return
        self._of_manifest = subscriptions
        self._send = send
        self._watches = True
        self.rights.watch(self._settle)
        if self._bus.line_up(self):
            await self.take_turn()
        else:
            self._settle()

    async def take_turn(self) -> None:
        """Has events delivered of what the manifest subscribes to."""
        if self._closed:
            return
        subscriptions = self._of_manifest
        granted = [each for each in subscriptions if each.durable and self._may(each.topic)]
        durable = {each.topic for each in granted}
        await self._bus.log.abandon(
            self.plugin,
            [
                pattern
                for name, pattern in self._bus.log.cursors
                if name == self.plugin and pattern not in durable
            ],
        )
        for each in granted:
            await self._bus.log.establish((self.plugin, each.topic))
        self._wanted = {each.topic: each for each in subscriptions} | self._wanted
        self._settle()

    def subscribe(self, subscription: Subscription) -> None:
        """Adds one that lasts as long as the connection. Whether it is granted, the caller asked.

        Raises:
            ConflictError: There is one of this pattern.
            LimitExceededError: There are too many.
        """
        if subscription.topic in self._wanted:
            raise ConflictError(f"there is a subscription of {subscription.topic}: end it first")
        if len(self._wanted) >= MAX_SUBSCRIPTIONS:
            raise LimitExceededError(f"there are {MAX_SUBSCRIPTIONS} subscriptions: end one first")
        self._wanted[subscription.topic] = subscription
        self._settle()

    def unsubscribe(self, pattern: str) -> bool:
        """Ends a subscription until the next connection; whether there was one of this pattern."""
        ended = self._wanted.pop(pattern, None) is not None
        self._settle()
        return ended

    def active(self) -> list[tuple[str, int]]:
        """Each subscription at work, and how many events wait in memory for it."""
        return [
            (pattern, len(each.feed) if isinstance(each.feed, Queue) else 0)
            for pattern, each in self._active.items()
        ]

    def close(self) -> None:
        """Ends all of them; durable ones go on with the next connection."""
        self._closed = True
        if self._watches:
            self.rights.unwatch(self._settle)
            self._watches = False
        for pattern in list(self._active):
            self._end(pattern)
        self._bus.leave(self)

    def _may(self, topic: str) -> bool:
        return self.rights.allows(f"events.subscribe:{topic}")

    def _settle(self) -> None:
        if self._send is None or self._closed:
            return
        for pattern in list(self._active):
            revoked = not self._may(pattern)
            if pattern not in self._wanted or revoked:
                self._end(pattern)
            if revoked and (self.plugin, pattern) in self._bus.log.cursors:
                self._bus.abandon(self.plugin, pattern)
        for pattern, subscription in self._wanted.items():
            if pattern not in self._active and self._may(pattern):
                self._start(subscription, self._send)

    def _start(self, subscription: Subscription, send: Send) -> None:
        pattern, log = subscription.topic, self._bus.log
        cursor = (self.plugin, pattern)
        feed: Queue | KeptFeed
        if subscription.durable:
            feed = KeptFeed(log, pattern, log.cursors.get(cursor, log.last), cursor)
        else:
            feed = Queue(subscription.queue, blocks=subscription.overflow is Overflow.BLOCK)
        self._bus.join(pattern, feed)
        delivery = Delivery(
            subscription,
            feed,
            send,
            allowed=self._may,
            failed=self._failed,
            attempts=self._bus.attempts[cursor],
        )
        self._active[pattern] = _Active(feed, asyncio.create_task(self._run(cursor, delivery, subscription)))

    async def _run(self, cursor: tuple[str, str], delivery: Delivery, subscription: Subscription) -> None:
        if subscription.durable:
            # Of one that was granted while the plugin runs; else it is there.
            await self._bus.log.establish(cursor)
        await delivery.run()

    def _end(self, pattern: str) -> None:
        ended = self._active.pop(pattern)
        ended.task.cancel()
        self._bus.part(pattern, ended.feed)

    def _failed(self, event: BusEvent, reason: str) -> None:
        self._bus.gave_up(self.plugin, event, reason)
