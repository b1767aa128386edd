"""Events that are kept: written before they are told, read again from wherever a subscriber is.

This process alone writes the tables, one batch after another: ids grow in the order of commits, so nobody who reads on
from an id can miss one that came later.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

import structlog

from wirthforge_host.bus import store
from wirthforge_host.bus.models import BusEvent, Retention
from wirthforge_sdk.contracts.topics import Patterns, matches
from wirthforge_sdk.errors import LimitExceededError, WirthForgeError
from wirthforge_sdk.serving.database import Database, Transaction

BATCH = 200
"""Events of one commit, and of one read."""
MAX_TOPICS = 256
"""Topics on which events of one publisher are kept."""
PUBLISHER_BYTES = 64 * 1024 * 1024
"""Kept of one publisher on all topics: whoever floods pushes out only what is their own."""
SAVE_S = 0.2
"""How long an acknowledgement may wait to be written down; a host that is killed meanwhile sends again."""

_log = structlog.get_logger(__name__)

Cursor = tuple[str, str]
"""A plugin, and the pattern of its durable subscription."""
Draft = tuple[str, str, bytes]
"""Publisher, topic, data as JSON."""


class Log:
    """What is kept, and how far each durable subscription is. :meth:`load` before use.

    Args:
        database: Where.
        tell: Called with every event once it is kept, in order.
        now: The time.
    """

    def __init__(
        self, database: Database, tell: Callable[[BusEvent], None], *, now: Callable[[], datetime]
    ) -> None:
        self._database = database
        self._tell = tell
        self._now = now
        # Above every id of an earlier run, and exact in JSON until 2255.
        self.last = int(now().timestamp() * 1_000_000)
        """The newest id that was given."""
        self._kept: Patterns[Cursor | str] = Patterns()
        self.wanted: dict[str, Retention] = {}
        """What operators want kept, by pattern."""
        self.cursors: dict[Cursor, int] = {}
        """The id up to which each durable subscription has acknowledged all."""
        self._unsaved: set[Cursor] = set()
        self._topics: defaultdict[str, set[str]] = defaultdict(set)
        self._dropped: dict[tuple[str, str], int] = {}
        self._waiting: list[tuple[Draft, asyncio.Future[BusEvent]]] = []
        self._writer: asyncio.Task[None] | None = None
        self._saver: asyncio.Task[None] | None = None

    async def load(self) -> None:
        """Reads what an earlier run left."""
        async with self._database.reading() as tx:
            self.wanted = await store.all_kept(tx)
            self.cursors = await store.all_cursors(tx)
            # A clock that was turned back must not give an id twice.
            self.last = max(self.last, await store.newest(tx))
            for row in await store.usages(tx):
                self._topics[row.publisher].add(row.topic)
                self._dropped[row.publisher, row.topic] = row.dropped_id
        for pattern in self.wanted:
            self._kept.add(pattern, pattern)
        for cursor in self.cursors:
            self._kept.add(cursor[1], cursor)

    def next_id(self) -> int:
        """An id above all before."""
        self.last += 1
        return self.last

    def keeps(self, topic: str) -> bool:
        """Whether events of a topic are kept: an operator or a durable subscription wants them."""
        return self._kept.any(topic)

    async def append(self, publisher: str, topic: str, encoded: bytes) -> BusEvent:
        """Keeps an event; it is committed when this returns. What is published together shares a commit.

        Raises:
            LimitExceededError: The publisher has events on too many topics.
            DatabaseUnavailableError: It was not kept, and nobody was told.
        """
        topics = self._topics[publisher]
        if topic not in topics and len(topics) >= MAX_TOPICS:
            raise LimitExceededError(
                f"events of {MAX_TOPICS} topics of yours are kept: publish on one of them", topic=topic
            )
        topics.add(topic)
        done: asyncio.Future[BusEvent] = asyncio.get_running_loop().create_future()
        self._waiting.append(((publisher, topic, encoded), done))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write(), name="bus")
        return await done

    async def read(self, after: int, pattern: str, *, limit: int = BATCH) -> tuple[list[BusEvent], int]:
        """The kept events of a pattern among the next ``limit`` after an id, and the id up to which it looked."""
        async with self._database.reading() as tx:
            found = await store.after(tx, after, limit)
        position = found[-1].id if found else after
        return [event for event in found if matches(pattern, event.topic)], position

    def dropped(self, pattern: str) -> int:
        """The newest id of the pattern that retention dropped; 0: none."""
        dropped = (last for (_, topic), last in self._dropped.items() if last and matches(pattern, topic))
        return max(dropped, default=0)

    async def establish(self, cursor: Cursor) -> None:
        """Begins a durable subscription with the next event, unless it has begun."""
        if cursor in self.cursors:
            return
        self.cursors[cursor] = self.last
        self._kept.add(cursor[1], cursor)
        async with self._database.transaction() as tx:
            await store.set_cursors(tx, [(cursor, self.cursors[cursor])])

    async def abandon(self, plugin: str, patterns: Iterable[str]) -> None:
        """Ends durable subscriptions: what comes is no longer kept for them."""
        ended = [(plugin, pattern) for pattern in patterns if (plugin, pattern) in self.cursors]
        self._forget(ended)
        if ended:
            async with self._database.transaction() as tx:
                await store.remove_cursors(tx, plugin, [pattern for _, pattern in ended])

    async def purge(self, tx: Transaction, plugin: str) -> bool:
        """Ends every durable subscription of a plugin and deletes what it published; whether there was anything."""
        publisher = f"plugin:{plugin}"
        ended = [cursor for cursor in self.cursors if cursor[0] == plugin]
        count = await store.remove_cursors(tx, plugin) + await store.remove_of(tx, publisher)

        def told() -> None:
            self._forget(ended)
            self._topics.pop(publisher, None)

        tx.after_commit(told)
        return count > 0

    def acknowledge(self, cursor: Cursor, last: int) -> None:
        """Notes how far a subscription is; written down soon, and at the latest by :meth:`close`."""
        if self.cursors.get(cursor, last) < last:
            self.cursors[cursor] = last
            self._unsaved.add(cursor)
            if self._saver is None or self._saver.done():
                self._saver = asyncio.create_task(self._save_soon(), name="bus cursors")

    async def keep(self, pattern: str, retention: Retention, *, by: str, tx: Transaction) -> None:
        """Keeps events of a pattern, from the next on, in the caller's transaction."""
        await store.keep(tx, pattern, retention, by=by, at=self._now())

        def told() -> None:
            self._kept.add(pattern, pattern)
            self.wanted[pattern] = retention

        tx.after_commit(told)

    async def stop_keeping(self, pattern: str, *, tx: Transaction) -> bool:
        """Ends that, in the caller's transaction; whether it was so. What is kept stays until it is too old."""
        was = await store.stop_keeping(tx, pattern)
        if was:

            def told() -> None:
                self._kept.remove(pattern, pattern)
                del self.wanted[pattern]

            tx.after_commit(told)
        return was

    async def usages(self) -> list[store.UsageRow]:
        """What is kept, by publisher and topic."""
        async with self._database.reading() as tx:
            return await store.usages(tx)

    async def expire(self) -> None:
        """Drops what is older than its retention, and forgets topics of which nothing is left to tell."""
        now = self._now()
        async with self._database.transaction() as tx:
            for row in await store.usages(tx):
                age = timedelta(seconds=self._retention(row.topic).age_s)
                await store.expire(tx, row, now - age)
            await store.forget_empty(tx, min(self.cursors.values(), default=self.last))
            rows = await store.usages(tx)
        self._topics = defaultdict(set)
        for row in rows:
            self._topics[row.publisher].add(row.topic)
        self._dropped = {(row.publisher, row.topic): row.dropped_id for row in rows}

    async def close(self) -> None:
        """Returns when all that was taken is written."""
        if self._saver is not None:
            self._saver.cancel()
        if tasks := [task for task in (self._writer, self._saver) if task is not None]:
            await asyncio.wait(tasks)
        await self._save()

    def _forget(self, ended: Iterable[Cursor]) -> None:
        for cursor in ended:
            if self.cursors.pop(cursor, None) is not None:
                self._unsaved.discard(cursor)
                self._kept.remove(cursor[1], cursor)

    async def _write(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
            events = [
                BusEvent(self.next_id(), draft[1], draft[0], self._now(), draft[2]) for draft, _ in batch
            ]
            try:
                await self._commit(events)
            except Exception as error:  # noqa: BLE001  (whoever waits must learn of any fault)
                for _, done in batch:
                    if not done.done():
                        done.set_exception(error)
                continue
            for event, (_, done) in zip(events, batch, strict=True):
                self._tell(event)
                if not done.done():
                    done.set_result(event)

    async def _commit(self, events: list[BusEvent]) -> None:
        published = {(event.publisher, event.topic) for event in events}
        async with self._database.transaction() as tx:
            await store.add(tx, events)
            for publisher in {publisher for publisher, _ in published}:
                rows = await store.usages(tx, publisher)
                for row in rows:
                    if (publisher, row.topic) in published:
                        await store.trim(tx, row, self._retention(row.topic))
                excess = sum(row.size_bytes for row in rows) - PUBLISHER_BYTES
                if excess > 0:
                    largest = max(await store.usages(tx, publisher), key=lambda row: row.size_bytes)
                    await store.trim(tx, largest, Retention(size_bytes=largest.size_bytes - excess))
                for row in await store.usages(tx, publisher):
                    self._dropped[publisher, row.topic] = row.dropped_id

    def _retention(self, topic: str) -> Retention:
        """What operators said of the topic, the widest when several did; else the house's own."""
        said = [self.wanted[pattern] for pattern in self.wanted if matches(pattern, topic)]
        found = said[0] if said else Retention()
        for each in said[1:]:
            found = found.widest(each)
        return found

    async def _save_soon(self) -> None:
        while self._unsaved:
            await asyncio.sleep(SAVE_S)
            try:
                await self._save()
            except WirthForgeError as error:
                # They stay unsaved, and are written with the next; a crash before that sends them again.
                _log.warning("bus.cursors_not_saved", error=error.message)

    async def _save(self) -> None:
        unsaved = [(cursor, self.cursors[cursor]) for cursor in self._unsaved if cursor in self.cursors]
        if not unsaved:
            return
        async with self._database.transaction() as tx:
            await store.set_cursors(tx, unsaved)
        self._unsaved -= {cursor for cursor, last in unsaved if self.cursors.get(cursor) == last}
