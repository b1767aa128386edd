"""A plugin's instance as a subscriber: its subscriptions begin and end with its grants."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wirthforge_host.bus.delivery import Delivery, Send, Way
from wirthforge_host.bus.feeds import KeptFeed
from wirthforge_host.bus.models import BusEvent
from wirthforge_host.bus.queue import Queue
from wirthforge_host.permissions import Rights
from wirthforge_sdk.contracts.events import MAX_SUBSCRIPTIONS, Overflow, Subscription
from wirthforge_sdk.errors import ConflictError, LimitExceededError

if TYPE_CHECKING:
    from wirthforge_host.bus.service import Bus


HAND_OVER_S = 5.0
"""How long an instance has to acknowledge what is on its way to it when another takes over."""


@dataclass(frozen=True, slots=True, eq=False)
class _Active:
    feed: Queue | KeptFeed
    delivery: Delivery
    task: asyncio.Task[None]


class Subscriber:
    """One connection's subscriptions: at work from :meth:`begin` or :meth:`take_over` on, until :meth:`close`.

    What the manifest subscribes to is for the plugin, and comes to one of its instances: the first that begins, then
    the next. What an instance subscribes to itself comes to that instance.

    What is denied within a granted pattern is not delivered; what is revoked ends at once, with what is on its way.
    """

    def __init__(self, bus: Bus, plugin: str, rights: Rights, subscriptions: Sequence[Subscription]) -> None:
        self._bus = bus
        self.plugin = plugin
        self.rights = rights
        self._of_manifest = subscriptions
        self._way: Way | None = None
        """None: it is sent nothing, not yet or not any more."""
        self._shared: dict[str, Subscription] = {}
        """Those of the manifest, while it is its turn."""
        self._own: dict[str, Subscription] = {}
        self._active: dict[str, _Active] = {}
        self._watches = False
        self._closed = False
        self._rests = False

    async def begin(self, send: Send) -> None:
        """Has events delivered, of the subscriptions that are granted now and whenever they are.

        Does nothing where they are, or where the connection is over.
        """
        if self._closed:
            return
        if self._way is None:
            self._open(send)
            self._bus.line_up(self)
            self._settle()
        await self.take_turn()

    async def take_turn(self) -> None:
        """Has events delivered of what the manifest subscribes to, if it is its turn."""
        async with self._bus.turns:
            if self._bus.is_turn_of(self) and not self._shared:
                await self._establish()
                self._go_on({})

    async def take_over(self, old: Subscriber, send: Send) -> None:
        """As :meth:`begin`, in the place of all connections of another release: at one point, no event lost or doubled.

        What both releases' manifests subscribe to goes on with what waits, and with the terms of this one; the rest
        of the old ones' ends. Returns when nothing is on its way to them. They can take over again.

        Raises:
            PluginUnavailableError: This connection is over; nothing has changed.
            DatabaseUnavailableError: What begins could not be written down; nothing has changed.
        """
        async with self._bus.turns:
            new = [each for each in self._durable() if (self.plugin, each) not in self._bus.log.cursors]
            try:
                await self._establish()
                before = self._bus.line_up(self, after=old.rights)
            except BaseException:
                self._bus.abandon(self.plugin, new)
                raise
            handed = [each.hand_out() for each in before]
            self._open(send)
            self._go_on({pattern: each for _, had in handed for pattern, each in had.items()})
        for way, _ in handed:
            await way.ended()

    def rest(self) -> None:
        """Its connection is over, and another of its instance may go on for it, with what waits until then.

        Where the plugin has other instances, one of them goes on at once instead.
        """
        if not self._shared or not self._bus.is_turn_of(self, alone=True):
            self.close()
            return
        self._rests = True
        self._own = {}
        self._settle()
        for each in self._active.values():
            each.delivery.rest()

    async def go_on(self, old: Subscriber, send: Send) -> None:
        """As :meth:`begin`, in the place of a connection of the same instance, which is over.

        Where that one rests, what waits for it comes to this one, and no event is lost or doubled.

        Raises:
            PluginUnavailableError: This connection is over, too.
            DatabaseUnavailableError: As :meth:`begin`.
        """
        async with self._bus.turns:
            rested = old._rests and not old._closed
            if rested:
                self._bus.line_up(self, instead_of=old)
                _, handed = old.hand_out()
                self._open(send)
                self._go_on(handed)
        old.close()
        if not rested:
            await self.begin(send)

    def subscribe(self, subscription: Subscription) -> None:
        """Adds one that lasts as long as the connection. Whether it is granted, the caller asked.

        Raises:
            ConflictError: There is one of this pattern.
            LimitExceededError: There are too many.
        """
        wanted = self._wanted()
        if subscription.topic in wanted:
            raise ConflictError(f"there is a subscription of {subscription.topic}: end it first")
        if len(wanted) >= MAX_SUBSCRIPTIONS:
            raise LimitExceededError(f"there are {MAX_SUBSCRIPTIONS} subscriptions: end one first")
        self._own[subscription.topic] = subscription
        self._settle()

    def unsubscribe(self, pattern: str) -> bool:
        """Ends a subscription until the next connection; whether there was one of this pattern."""
        ended = pattern in self._wanted()
        self._shared.pop(pattern, None)
        self._own.pop(pattern, None)
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

    def _wanted(self) -> dict[str, Subscription]:
        return self._shared | self._own

    def _durable(self) -> list[str]:
        """The patterns of the manifest that outlive its instances."""
        return [each.topic for each in self._of_manifest if each.durable and self._may(each.topic)]

    def _open(self, send: Send) -> None:
        self._way = Way(send)
        if not self._watches:
            self._watches = True
            self.rights.watch(self._settle)

    async def _establish(self) -> None:
        for pattern in self._durable():
            await self._bus.log.establish((self.plugin, pattern))

    def hand_out(self) -> tuple[Way, dict[str, _Active]]:
        """Is sent nothing from now on; the way that ends, and what is at work for the manifest, to go on elsewhere."""
        assert self._way is not None  # noqa: S101 (it was lined up)
        way, self._way = self._way, None
        way.end(HAND_OVER_S)
        handed = {pattern: self._active.pop(pattern) for pattern in self._shared if pattern in self._active}
        self._shared = {}
        for pattern in list(self._active):
            self._end(pattern)
        return way, handed

    def _go_on(self, handed: dict[str, _Active]) -> None:
        """It is its turn, and others have handed out what they had."""
        assert self._way is not None  # noqa: S101 (it was opened)
        self._shared = {each.topic: each for each in self._of_manifest}
        self._active |= handed
        for pattern, each in handed.items():
            wanted = self._shared.get(pattern)
            if wanted is None or wanted.durable is isinstance(each.feed, Queue):
                self._end(pattern)
                continue
            each.delivery.hand_over(wanted, self._way, self._may)
            if isinstance(each.feed, Queue):
                each.feed.bind(wanted.queue, blocks=wanted.overflow is Overflow.BLOCK)
        kept = self._durable()
        self._bus.abandon(
            self.plugin,
            [
                pattern
                for name, pattern in self._bus.log.cursors
                if name == self.plugin and pattern not in kept
            ],
        )
        self._settle()

    def _settle(self) -> None:
        if self._way is None or self._closed:
            return
        wanted = self._wanted()
        for pattern in list(self._active):
            revoked = not self._may(pattern)
            if pattern not in wanted or revoked:
                self._end(pattern)
            if revoked and (self.plugin, pattern) in self._bus.log.cursors:
                self._bus.abandon(self.plugin, [pattern])
        for pattern, subscription in wanted.items():
            if pattern not in self._active and self._may(pattern):
                self._start(subscription, self._way)

    def _start(self, subscription: Subscription, way: Way) -> None:
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
            way,
            allowed=self._may,
            failed=self._failed,
            attempts=self._bus.attempts[cursor] if subscription.durable else {},
        )
        if self._rests:
            delivery.rest()
        task = asyncio.create_task(self._run(cursor, delivery, subscription))
        self._active[pattern] = _Active(feed, delivery, task)

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
