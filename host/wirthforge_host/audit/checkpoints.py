"""Signs what the log is from time to time, checks all of it, and hands it out to auditors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path

import structlog

from wirthforge_host.audit import store
from wirthforge_host.audit.records import Outcome, Record
from wirthforge_host.audit.service import Audit
from wirthforge_host.audit.verification import BATCH, Verification, verified
from wirthforge_sdk.contracts.audit import (
    CHECKPOINT,
    GENESIS,
    CheckpointLine,
    Entry,
    LogLine,
    line_of,
    written,
)
from wirthforge_sdk.errors import NotFoundError, WirthForgeError
from wirthforge_sdk.packaging.checkpoints import Checkpoint
from wirthforge_sdk.packaging.keys import PublicKey, SigningKey
from wirthforge_sdk.serving.database import Database, Transaction

EVERY = 10_000
"""Entries after which there is another checkpoint."""
AT_LEAST = timedelta(hours=1)
"""After which there is one when there was any entry."""
LOOK_S = 30.0

_log = structlog.get_logger(__name__)


class Checkpoints:
    """The signed checkpoints of this host's audit log; ``origin`` names the log in them."""

    def __init__(
        self,
        database: Database,
        audit: Audit,
        key: SigningKey,
        origin: str,
        *,
        now: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._audit = audit
        self._key = key
        self._now = now
        self.origin = origin
        self._verifying = asyncio.Lock()
        """It takes a core for as long as it takes."""

    @property
    def key(self) -> PublicKey:
        """Checks the checkpoints. An auditor should know it from elsewhere than the host they audit."""
        return self._key.public

    async def make(self) -> str:
        """The signed note of the newest entry: a new one, unless nothing was written since the last.

        Raises:
            NotFoundError: The log is empty.
        """
        await self._audit.flush()
        async with self._database.transaction() as tx:
            return await self._made(tx)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Makes checkpoints during the block when they are due, and one at its end."""
        task = asyncio.create_task(self._make_when_due(), name="checkpoints")
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            await self._survive(self._make_if_due(at_least=timedelta()))

    async def verify(self, remembered: Checkpoint | None = None) -> AsyncIterator[Verification]:
        """Computes the whole log again and holds it against its checkpoints; the last one told is done.

        Args:
            remembered: A checkpoint that was kept elsewhere.
        """
        async with self._verifying:
            await self._audit.flush()
            async for told in verified(self._database.reading, self.origin, self.key, remembered):
                yield told

    async def export(self, *, after: int = 0) -> AsyncIterator[bytes]:
        """The entries above ``after`` as lines (``wirthforge_sdk.contracts.audit``), ended by a checkpoint."""
        newest = await self.make()
        last = Checkpoint.read(newest, self.key).id
        after = min(after, last)
        async with self._database.reading() as tx:
            before = await store.after(tx, after - 1, 1) if after else []
            notes = await store.notes(tx, above=after)
        hash_before = before[0].hash if before else GENESIS
        yield written(LogLine(self.origin, str(self.key), after, hash_before))
        if after == last:
            yield written(CheckpointLine(newest))
        async for entries in self.entries(after=after, last=last):
            chunk = bytearray()
            for entry in entries:
                chunk += line_of(entry)
                if entry.id in notes:
                    chunk += written(CheckpointLine(notes[entry.id]))
            yield bytes(chunk)

    async def entries(self, *, after: int, last: int | None = None) -> AsyncIterator[list[Entry]]:
        """The entries above ``after``, up to ``last`` or to the present end, in batches."""
        await self._audit.flush()
        if last is None:
            async with self._database.reading() as tx:
                last, _ = await store.newest(tx)
        while after < last:
            async with self._database.reading() as tx:
                batch = await store.after(tx, after, min(BATCH, last - after))
            if not batch:
                return  # they are missing; an export then has no checkpoint at its end
            yield batch
            after = batch[-1].id

    async def _make_when_due(self) -> None:
        while True:
            await self._survive(self._make_if_due(at_least=AT_LEAST))
            await asyncio.sleep(LOOK_S)

    async def _make_if_due(self, *, at_least: timedelta) -> None:
        async with self._database.reading() as tx:
            newest, _ = await store.newest(tx)
            last = await store.newest_checkpoint(tx)
        since = newest - (last.id if last else 0)
        # Its own record is no reason for another.
        if since <= (1 if last else 0):
            return
        age = self._now() - last.at if last else at_least
        if since >= EVERY or age >= at_least:
            await self.make()

    async def _made(self, tx: Transaction) -> str:
        newest, newest_hash = await store.lock_head(tx)
        last = await store.newest_checkpoint(tx)
        if not newest:
            raise NotFoundError("the audit log is empty: there is nothing to sign yet")
        if last is not None and newest <= last.id + 1:
            return last.note
        at = self._now()
        note = Checkpoint(self.origin, newest, newest_hash, at).note(self._key)
        await store.add_checkpoint(tx, newest, at, note)
        record = Record(actor="host", action=CHECKPOINT, outcome=Outcome.ALLOWED, detail={"at": newest})
        await self._audit.append(tx, record)
        return note

    async def _survive(self, work: Awaitable[object]) -> None:
        try:
            await work
        except WirthForgeError as error:
            _log.warning("audit.no_checkpoint", error=error.message)


def own_key(path: Path) -> SigningKey:
    """The key in the file, which is made when it is not there.

    Raises:
        KeyUnreadableError: It cannot be read or made.
    """
    if not path.exists():
        SigningKey.generate().save(path, passphrase=None)
    return SigningKey.load(path)
