"""Brings the events of one subscription to a plugin: in order on each topic, so many at a time, until acknowledged."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from wirthforge_host.bus.feeds import Feed
from wirthforge_host.bus.models import BusEvent, Gap
from wirthforge_host.errors import CallTimedOutError, PluginUnavailableError
from wirthforge_sdk.contracts.events import Subscription
from wirthforge_sdk.errors import LimitExceededError, WirthForgeError

IN_FLIGHT = 32
"""Events of one subscription that are sent and not acknowledged."""
ATTEMPTS = 5
"""How often a durable event is sent that the plugin fails at, or dies of."""
PAUSES_S = (0.1, 0.5, 2.0, 10.0)
"""Before each further attempt; the last for all after it."""

Send = Callable[[str, dict[str, Any], float], Awaitable[None]]
"""Sends one event (the subscription's pattern, the event, seconds it may take); returns when it is acknowledged."""


class Way:
    """The way of events to one instance, for as long as it is sent any."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._limits: set[asyncio.Timeout] = set()
        """Of each event that is on it."""
        self._empty = asyncio.Event()
        self._empty.set()

    async def bring(self, pattern: str, event: dict[str, Any], timeout_s: float) -> None:
        """Sends one event; returns when it is acknowledged.

        Raises:
            CallTimedOutError: It was not in time, or not in that of :meth:`end`.
            WirthForgeError: As the plugin's answer says.
        """
        try:
            async with asyncio.timeout(None) as limit:
                self._limits.add(limit)
                self._empty.clear()
                try:
                    await self._send(pattern, event, timeout_s)
                finally:
                    self._limits.remove(limit)
                    if not self._limits:
                        self._empty.set()
        except TimeoutError:
            raise CallTimedOutError("another instance took over before it was acknowledged") from None

    def end(self, within_s: float) -> None:
        """Cuts what is not acknowledged within so many seconds. Nothing more is brought."""
        until = asyncio.get_running_loop().time() + within_s
        for limit in self._limits:
            limit.reschedule(until)

    async def ended(self) -> None:
        """Returns when nothing is on it."""
        await self._empty.wait()


class Delivery:
    """One subscription at work.

    Args:
        subscription: Which.
        feed: Where its events come from.
        way: To the plugin's instance.
        allowed: Whether the plugin may have events of a topic at this moment.
        failed: Told of each event that is given up, and why.
        attempts: How often each event was tried; kept by the caller, so that a plugin that an event kills meets it
            :data:`ATTEMPTS` times at most.
    """

    def __init__(
        self,
        subscription: Subscription,
        feed: Feed,
        way: Way,
        *,
        allowed: Callable[[str], bool],
        failed: Callable[[BusEvent, str], None],
        attempts: dict[int, int],
    ) -> None:
        self._subscription = subscription
        self._feed = feed
        self._way = way
        self._allowed = allowed
        self._failed = failed
        self._attempts = attempts
        self._slots = asyncio.Semaphore(IN_FLIGHT)
        self._tails: dict[str, asyncio.Task[None]] = {}
        """The last event on its way of each topic."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._goes = asyncio.Event()
        self._goes.set()

    async def run(self) -> None:
        """Delivers until cancelled; what is on its way then is cancelled too, and not acknowledged."""
        missed: int | None = 0
        try:
            while True:
                await self._slots.acquire()
                item = await self._feed.take()
                if isinstance(item, Gap):
                    missed = item.missed
                    self._slots.release()
                    continue
                self._begin(item, missed)
                missed = 0
        finally:
            for task in self._tasks:
                task.cancel()

    def rest(self) -> None:
        """Sends nothing more until it is handed over."""
        self._goes.clear()

    def hand_over(self, subscription: Subscription, way: Way, allowed: Callable[[str], bool]) -> None:
        """Has all that is not sent yet go another way, under another release's terms, without a break.

        What is on its way stays there, and nothing is sent on its topic before it is done with. What is durable and not
        acknowledged there goes the other way, too.
        """
        self._subscription, self._way, self._allowed = subscription, way, allowed
        self._goes.set()

    def _begin(self, event: BusEvent, missed: int | None) -> None:
        task = asyncio.create_task(self._deliver(event, missed, self._tails.get(event.topic)))
        self._tails[event.topic] = task
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._ended(event.topic, done))

    def _ended(self, topic: str, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if self._tails.get(topic) is task:
            del self._tails[topic]
        self._slots.release()

    async def _deliver(self, event: BusEvent, missed: int | None, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait({before})
        await self._bring(event, missed)
        self._attempts.pop(event.id, None)
        self._feed.acknowledge(event)

    async def _bring(self, event: BusEvent, missed: int | None) -> None:
        """Returns when it is done with: acknowledged, given up, denied, or lost with the plugin's instance."""
        told = {**event.as_dict(), "missed": missed}
        tries = 0
        await self._goes.wait()
        while self._allowed(event.topic):
            made = self._attempts[event.id] = self._attempts.get(event.id, 0) + 1
            if made > ATTEMPTS:
                self._failed(event, f"it was tried {ATTEMPTS} times")
                return
            of = self._subscription
            try:
                await self._way.bring(of.topic, told, of.timeout_s)
            except (CallTimedOutError, LimitExceededError) as error:
                # Slow, or paused by an operator: no fault of the event's.
                self._attempts[event.id] = made - 1
                failure: WirthForgeError = error
            except WirthForgeError as error:
                failure = error
            else:
                return
            if not of.durable:
                if not isinstance(failure, PluginUnavailableError):
                    self._failed(event, failure.message)
                return
            # Of one that is gone, this is cancelled, unless another goes on in its place.
            await asyncio.sleep(PAUSES_S[min(tries, len(PAUSES_S) - 1)])
            await self._goes.wait()
            tries += 1
