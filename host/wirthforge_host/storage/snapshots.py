"""Snapshots: all that a plugin had stored at a moment, bound to the release that ran then."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

import msgspec

from wirthforge_host.audit.records import Outcome, Record
from wirthforge_host.audit.service import Audit
from wirthforge_host.keyring import Keyring
from wirthforge_host.storage import store
from wirthforge_host.storage.models import Spot, milliseconds
from wirthforge_host.storage.sealed import LIVE, Head, Row, Summary, encoded, head_context, summary_context
from wirthforge_host.storage.service import Writing
from wirthforge_host.storage.store import SnapshotRow
from wirthforge_sdk.contracts.storage_api import MAX_SNAPSHOTS, MAX_UPGRADE_SNAPSHOTS, SnapshotOut
from wirthforge_sdk.errors import LimitExceededError, NotFoundError
from wirthforge_sdk.serving.database import Database, Transaction

MAX_SNAPSHOT_BYTES = 1024 * 1024 * 1024
"""Of all snapshots of one plugin together."""
BATCH = 500
"""Heads that are held in memory at a time."""


@dataclass(slots=True)
class _Content:
    """What a walk over rows adds up."""

    entries: int = 0
    size_bytes: int = 0
    _hash: hashlib._Hash = field(default_factory=hashlib.sha256)

    def add(self, spot: Spot, head: Head) -> None:
        self.entries += 1
        self.size_bytes += head.size_bytes
        self._hash.update(msgspec.msgpack.encode((spot, head)))

    @property
    def digest(self) -> bytes:
        return self._hash.digest()


class Snapshots:
    """The snapshots of every plugin: some that an operator keeps, and some that upgrades keep.

    There are only so many of each kind, and the oldest make room for another of that kind: an upgrade takes no snapshot
    away from an operator. :meth:`take` and :meth:`restore` work in a caller's transaction, so that an upgrade keeps
    both or neither. The rest is what an operator does, with its record.
    """

    def __init__(
        self,
        database: Database,
        keyring: Keyring,
        audit: Audit,
        *,
        now: Callable[[], datetime],
        max_bytes: int = MAX_SNAPSHOT_BYTES,
    ) -> None:
        self._database = database
        self._keyring = keyring
        self._audit = audit
        self._now = now
        self._max_bytes = max_bytes

    async def of_plugin(self, plugin: str) -> list[SnapshotOut]:
        """The plugin's snapshots, oldest first."""
        async with self._database.transaction() as tx:
            writing = await Writing.begin(self._keyring, tx, plugin, seals=0)
            return [told(plugin, row.id, summary) for row, summary in await _all(tx, plugin, writing)]

    async def take(
        self, tx: Transaction, plugin: str, digest: str, by: Literal["operator", "upgrade"] = "upgrade"
    ) -> SnapshotOut:
        """Keeps what the plugin has stored, as that of the release ``digest``; the oldest of its kind make room.

        Raises:
            LimitExceededError: There is no room for it beside those of the other kind.
            SealBrokenError: Something was altered, or is missing.
        """
        count = await store.count(tx, plugin, LIVE)
        writing = await Writing.begin(self._keyring, tx, plugin, seals=count + 1)
        await self._make_room(tx, plugin, writing, by)
        writing.revision += 1
        number = writing.revision
        content = await _moved(tx, plugin, writing, LIVE, number)
        if content.size_bytes != writing.used_bytes:
            raise writing.opened.incomplete(("usage",))
        now_ms = milliseconds(self._now)
        summary = Summary(digest, now_ms, content.entries, content.size_bytes, content.digest, by)
        sealed = writing.key.seal(summary_context(number), encoded(summary))
        await store.add_snapshot(tx, plugin, SnapshotRow(number, sealed))
        await writing.end()
        return told(plugin, number, summary)

    async def restore(self, tx: Transaction, plugin: str, number: int) -> SnapshotOut:
        """Replaces all that the plugin has stored by a snapshot, which stays.

        Raises:
            NotFoundError: There is no such snapshot.
            SealBrokenError: Something in it was altered, or is missing.
        """
        count = await store.count(tx, plugin, number)
        writing = await Writing.begin(self._keyring, tx, plugin, seals=count)
        summary = await _summary(tx, plugin, writing, number)
        content = await _moved(tx, plugin, writing, number, LIVE)
        if content.digest != summary.content:
            raise writing.opened.incomplete(summary_context(number))
        writing.used_bytes = content.size_bytes
        writing.revision += 1
        await writing.end()
        return told(plugin, number, summary)

    async def create(self, plugin: str, digest: str, actor: str) -> SnapshotOut:
        """As :meth:`take`, for an operator."""
        async with self._database.transaction() as tx:
            taken = await self.take(tx, plugin, digest, "operator")
            await self._record(tx, "storage.snapshot", taken, actor)
        return taken

    async def bring_back(self, plugin: str, number: int, actor: str) -> SnapshotOut:
        """As :meth:`restore`, for an operator."""
        async with self._database.transaction() as tx:
            restored = await self.restore(tx, plugin, number)
            await self._record(tx, "storage.restore", restored, actor)
        return restored

    async def remove(self, plugin: str, number: int, actor: str) -> None:
        """Deletes a snapshot.

        Raises:
            NotFoundError: There is no such snapshot.
        """
        async with self._database.transaction() as tx:
            writing = await Writing.begin(self._keyring, tx, plugin, seals=0)
            summary = await _summary(tx, plugin, writing, number)
            await store.remove_snapshot(tx, plugin, number)
            await self._record(tx, "storage.snapshot_delete", told(plugin, number, summary), actor)

    async def _make_room(self, tx: Transaction, plugin: str, writing: Writing, by: str) -> None:
        every = await _all(tx, plugin, writing)
        total = sum(summary.size_bytes for _, summary in every) + writing.used_bytes
        kept = [(row.id, summary.size_bytes) for row, summary in every if summary.by == by]
        most = MAX_SNAPSHOTS if by == "operator" else MAX_UPGRADE_SNAPSHOTS
        while kept and (len(kept) >= most or total > self._max_bytes):
            number, size_bytes = kept.pop(0)
            total -= size_bytes
            await store.remove_snapshot(tx, plugin, number)
        if total > self._max_bytes:
            raise LimitExceededError(
                f"the snapshots of {plugin} would have {total} bytes, more than {self._max_bytes}: delete one that is "
                f"not needed (`wirthforge storage snapshots {plugin}`)",
                plugin=plugin,
            )

    async def _record(self, tx: Transaction, action: str, snapshot: SnapshotOut, actor: str) -> None:
        detail = {"snapshot": snapshot.id, "digest": snapshot.digest, "bytes": snapshot.size_bytes}
        record = Record(
            actor=actor, action=action, outcome=Outcome.ALLOWED, plugin=snapshot.plugin, detail=detail
        )
        await self._audit.append(tx, record)


def told(plugin: str, number: int, summary: Summary) -> SnapshotOut:
    """A snapshot as the API shows it."""
    return SnapshotOut(
        id=number,
        plugin=plugin,
        digest=summary.digest,
        by=summary.by,
        created_at=datetime.fromtimestamp(summary.created_ms / 1000, UTC),
        entries=summary.entries,
        size_bytes=summary.size_bytes,
    )


async def _all(tx: Transaction, plugin: str, writing: Writing) -> list[tuple[SnapshotRow, Summary]]:
    found = await store.all_snapshots(tx, plugin)
    return [
        (row, await writing.opened.document(summary_context(row.id), row.sealed, Summary)) for row in found
    ]


async def _summary(tx: Transaction, plugin: str, writing: Writing, number: int) -> Summary:
    for row in await store.all_snapshots(tx, plugin):
        if row.id == number:
            return await writing.opened.document(summary_context(number), row.sealed, Summary)
    raise NotFoundError(f"{plugin} has no snapshot {number}", plugin=plugin)


async def _moved(tx: Transaction, plugin: str, writing: Writing, source: int, target: int) -> _Content:
    """Puts the rows of ``source`` in the place of those of ``target``, and their heads under seals of their own."""
    await store.copy(tx, plugin, source, target)
    content, after = _Content(), None
    while rows := await store.heads(tx, plugin, source, after, BATCH):
        anew: list[Row] = []
        for row in rows:
            head = await writing.opened.head(row)
            content.add(row.spot, head)
            sealed = writing.key.seal(head_context(target, row.spot), encoded(head))
            anew.append(row._replace(snapshot=target, head=sealed))
        await store.rewrite(tx, plugin, anew, whole=False)
        after = rows[-1].spot
    return content
