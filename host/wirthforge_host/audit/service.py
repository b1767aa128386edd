"""Writing and reading the audit log."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Unpack

import structlog

from wirthforge_host.audit import store
from wirthforge_host.audit.records import Record, entry_of
from wirthforge_sdk.contracts.audit import Entry, chained
from wirthforge_sdk.contracts.audit_api import AuditOut, Sought
from wirthforge_sdk.serving.database import Database, Transaction

BUFFER = 10_000
"""Records that may wait to be written; then whoever has another waits."""
RESERVE = 1_000
"""Further ones, for summaries of what ended."""
BATCH = 500
"""Records written in one transaction."""
LINGER_S = 0.05
"""How long a record may wait for company before it is written: what of the enqueued a power cut can lose."""
LOOK_S = 5.0
"""How long who follows the log waits to be told of an entry, before looking."""
RETRY_S = 1.0
"""Pause after the database did not take a batch."""

_log = structlog.get_logger(__name__)


class Audit:
    """The audit log.

    Two ways in: :meth:`append` for an act that changes something, inside its transaction, so that both are
    kept or neither; :meth:`enqueue` for acts that happen thousands of times a second and change nothing of
    ours.
    """

    def __init__(
        self,
        database: Database,
        *,
        now: Callable[[], datetime],
        buffer: int = BUFFER,
        linger_s: float = LINGER_S,
    ) -> None:
        self._database = database
        self._now = now
        self._bound = buffer
        self._linger_s = linger_s
        self._waiting: deque[Entry] = deque()
        self._filled = asyncio.Event()
        self._emptied = asyncio.Condition()
        self._writing = asyncio.Lock()
        self._stopped = False
        self._grown = asyncio.Event()
        """Set, and replaced, when entries were committed."""

    async def append(self, tx: Transaction, *records: Record) -> int:
        """Writes records in the caller's transaction and returns the id of the last.

        Append as the last step: from here to the commit, no other transaction can append.
        """
        at = self._now()
        return await self._append(tx, [entry_of(record, at) for record in records])

    def offer(self, record: Record, *, last: bool = False) -> bool:
        """Takes a record to be written soon, or says at once that there is no room; ``last``: of a thing's end."""
        if len(self._waiting) >= self._bound + (RESERVE if last else 0):
            return False
        self._waiting.append(entry_of(record, self._now()))
        self._filled.set()
        return True

    async def enqueue(self, record: Record) -> None:
        """Takes a record to be written soon; waits while there is no room. Nothing is ever dropped."""
        while not self.offer(record):
            async with self._emptied:
                await self._emptied.wait_for(lambda: len(self._waiting) < self._bound)

    async def flush(self) -> None:
        """Returns when every record taken before is written.

        Raises:
            DatabaseUnavailableError: It could not be; the records wait on.
        """
        async with self._writing:
            for _ in range(-(-len(self._waiting) // BATCH)):
                await self._write_batch()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Writes enqueued records in the background during the block, and the rest of them at its end."""
        task = asyncio.create_task(self._write_until_stopped(), name="audit")
        try:
            yield
        finally:
            # Not cancelled: a commit that is cut off may have happened, and its records would be written
            # twice.
            self._stopped = True
            self._filled.set()
            await task
            await self.flush()

    async def page(
        self, *, after: int | None = None, limit: int = 50, **sought: Unpack[Sought]
    ) -> list[AuditOut]:
        """The entries that are sought, newest first, continuing below the id ``after``."""
        async with self._database.reading() as tx:
            return [_told(entry) for entry in await store.page(tx, sought, before=after, limit=limit)]

    async def follow(self, *, after: int | None = None) -> AsyncIterator[AuditOut]:
        """Entries as they are written, from the one after ``after``, or from now on."""
        async with self._database.reading() as tx:
            seen = (await store.newest(tx))[0] if after is None else after
        while True:
            grown = self._grown
            async with self._database.reading() as tx:
                entries = await store.after(tx, seen, BATCH)
            for entry in entries:
                yield _told(entry)
                seen = entry.id
            if not entries:
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_S):
                        await grown.wait()

    async def _write_until_stopped(self) -> None:
        while not self._stopped:
            await self._filled.wait()
            await asyncio.sleep(self._linger_s)
            try:
                await self.flush()
            except Exception as error:  # noqa: BLE001  (a loop that must survive)
                # The records stay, and the buffer fills until callers wait: no act goes on unrecorded.
                _log.error(
                    "audit records wait for the database", reason=repr(error), waiting=len(self._waiting)
                )
                await asyncio.sleep(RETRY_S)

    async def _write_batch(self) -> None:
        batch = list(itertools.islice(self._waiting, BATCH))
        async with self._database.transaction() as tx:
            await self._append(tx, batch)
        for _ in batch:
            self._waiting.popleft()
        if not self._waiting:
            self._filled.clear()
        async with self._emptied:
            self._emptied.notify_all()

    async def _append(self, tx: Transaction, new: Sequence[Entry]) -> int:
        last_id, last_hash = await store.lock_head(tx)
        if not new:
            return last_id
        links = chained(new, last_id, last_hash)
        await store.add(tx, links)
        tx.after_commit(self._grow)
        return links[-1].id

    def _grow(self) -> None:
        grown, self._grown = self._grown, asyncio.Event()
        grown.set()


def _told(entry: Entry) -> AuditOut:
    return AuditOut(
        id=entry.id,
        at=entry.at,
        actor=entry.actor,
        action=entry.action,
        outcome=entry.outcome,
        plugin=entry.plugin,
        detail=entry.details,
    )
