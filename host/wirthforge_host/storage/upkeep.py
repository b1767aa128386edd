"""What goes on behind the plugins' backs: values that are over are swept, and old keys are replaced, row by row.

Nothing is remembered between steps but what the rows themselves say. A host that is killed goes on at its next start.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import TypeAlias

import structlog

from wirthforge_host.errors import SealBrokenError
from wirthforge_host.keyring import Key, Keyring
from wirthforge_host.keyring.sealing import header_of
from wirthforge_host.storage import store
from wirthforge_host.storage.models import Spot, milliseconds
from wirthforge_host.storage.sealed import (
    PREFIX,
    USAGE,
    Opened,
    Row,
    Summary,
    Usage,
    encoded,
    head_context,
    owner_of,
    summary_context,
    value_context,
)
from wirthforge_host.storage.service import Writing
from wirthforge_sdk.contracts.storage_api import RotationOut
from wirthforge_sdk.errors import WirthForgeError
from wirthforge_sdk.serving.database import Database, Transaction

EVERY_S = 15.0
"""Between two looks at what is to be done."""
SWEPT = 500
"""Rows that one transaction deletes."""
SEALED = 64
"""Rows that one transaction seals anew: at most as many megabytes are held in memory."""

Settle: TypeAlias = Callable[[str], Awaitable[None]]
"""Seals anew what an old key of a plugin sealed, and deletes that key; raises SealBrokenError when it cannot."""

_log = structlog.get_logger(__name__)


class Upkeep:
    """Let :meth:`run` run."""

    def __init__(
        self,
        database: Database,
        keyring: Keyring,
        *,
        now: Callable[[], datetime],
        others: Mapping[str, Settle] | None = None,
        every_s: float = EVERY_S,
        batch: int = SEALED,
    ) -> None:
        self._database = database
        self._keyring = keyring
        self._now = now
        self._every_s = every_s
        self._batch = batch
        self._asked = asyncio.Event()
        self._sealed = 0
        self._settlers: dict[str, Settle] = {PREFIX: self._settle, **(others or {})}
        self._broken: dict[str, str] = {}
        """By owner."""

    async def run(self) -> None:
        """Sweeps and settles until cancelled."""
        while True:
            for work in (self.sweep, self.settle, self._keyring.destroy_retired):
                await _tried(work)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._every_s):
                    await self._asked.wait()
            self._asked.clear()

    async def rotate(self, actor: str) -> RotationOut:
        """Replaces the master key at once, and has all that is kept sealed with other data keys in the background.

        Raises:
            UnavailableError: The keeper of the master key did not take part; nothing has changed.
        """
        await self._keyring.renew(actor)
        self._sealed = 0
        self._broken.clear()
        self._asked.set()
        return await self.rotation()

    async def rotation(self) -> RotationOut:
        """How far the replacement of data keys has come."""
        left = await self._keyring.unsettled()
        return RotationOut(
            done=not set(left) - self._broken.keys(),
            plugins_left=sorted({_parts(owner)[1] for owner in left}),
            values_sealed=self._sealed,
            broken={_parts(owner)[1]: told for owner, told in self._broken.items()},
        )

    async def sweep(self) -> int:
        """Deletes every value whose time has come; returns how many."""
        now_ms = milliseconds(self._now)
        async with self._database.reading() as tx:
            plugins = await store.plugins_with_ends(tx, now_ms)
        count = 0
        for plugin in plugins:
            try:
                count += await self._swept(plugin, now_ms)
            except SealBrokenError as error:
                # Its key or its count: what is wrong with one plugin's storage keeps no other's from its room.
                _log.error("a plugin's storage cannot be swept", plugin=plugin, reason=error.message)
        return count

    async def settle(self) -> None:
        """Seals with each owner's newest key what is sealed with an older one, and then deletes the older ones."""
        for owner in await self._keyring.unsettled():
            prefix, plugin = _parts(owner)
            if owner not in self._broken:
                try:
                    await self._settlers[prefix](plugin)
                except SealBrokenError as error:
                    # The old keys stay: they may still open what a backup brings back.
                    self._broken[owner] = error.message
                    _log.error("what is kept cannot be sealed anew", owner=owner, reason=error.message)

    async def _swept(self, plugin: str, now_ms: int) -> int:
        count, after = 0, None
        while True:
            async with self._database.transaction() as tx:
                writing = await Writing.begin(self._keyring, tx, plugin, seals=0)
                rows = await store.over(tx, plugin, now_ms, after, SWEPT)
                gone: list[Spot] = []
                for row in rows:
                    try:
                        head = await writing.opened.head(row)
                    except SealBrokenError as error:
                        # It stays, for whoever reads it to be told.
                        _log.error("a stored value cannot be swept", plugin=plugin, reason=error.message)
                        continue
                    writing.used_bytes -= head.size_bytes
                    gone.append(row.spot)
                await store.remove(tx, plugin, gone)
                await writing.end()
            count += len(gone)
            if len(rows) < SWEPT:
                return count
            after = rows[-1].spot

    async def _settle(self, plugin: str) -> None:
        after: Row | None = None
        broken: SealBrokenError | None = None
        while True:
            async with self._database.transaction() as tx:
                number = await self._keyring.lock(tx, owner_of(plugin))
                rows = await store.sealed_otherwise(tx, plugin, header_of(number), after, self._batch)
                if rows:
                    broken = await self._seal(tx, plugin, rows) or broken
                elif broken is None and after is None:
                    await self._finish(tx, plugin)
                    return
            if not rows and broken is not None:
                raise broken
            after = rows[-1] if rows else None

    async def _seal(self, tx: Transaction, plugin: str, rows: list[Row]) -> SealBrokenError | None:
        """Seals rows anew; what is wrong with the last of those that cannot be opened."""
        key = await self._keyring.sealer(tx, owner_of(plugin), uses=2 * len(rows))
        opened = Opened(self._keyring, tx, plugin)
        anew: list[Row] = []
        broken = None
        for row in rows:
            try:
                anew.append(await _sealed_anew(opened, key, row))
            except SealBrokenError as error:
                broken = error
        await store.rewrite(tx, plugin, anew, whole=True)
        self._sealed += len(anew)
        return broken

    async def _finish(self, tx: Transaction, plugin: str) -> None:
        opened = Opened(self._keyring, tx, plugin)
        snapshots = await store.all_snapshots(tx, plugin)
        key = await self._keyring.sealer(tx, owner_of(plugin), uses=len(snapshots) + 1)
        for row in snapshots:
            context = summary_context(row.id)
            summary = await opened.document(context, row.sealed, Summary)
            sealed = key.seal(context, encoded(summary))
            await store.set_snapshot(tx, plugin, row._replace(sealed=sealed))
        if (usage := await store.lock_usage(tx, plugin)) is not None:
            used = await opened.document(USAGE, usage, Usage)
            await store.set_usage(tx, plugin, key.seal(USAGE, encoded(used)))
        await self._keyring.retire(tx, owner_of(plugin))


def _parts(owner: str) -> tuple[str, str]:
    prefix, colon, plugin = owner.partition(":")
    return prefix + colon, plugin


async def _sealed_anew(opened: Opened, key: Key, row: Row) -> Row:
    head = await opened.head(row)
    value = await opened.value(row, head)
    return row._replace(
        head=key.seal(head_context(row.snapshot, row.spot), encoded(head)),
        value=key.seal(value_context(row.spot, head.version), value.data),
    )


async def _tried(work: Callable[[], Awaitable[object]]) -> None:
    try:
        await work()
    except WirthForgeError as error:
        _log.error("the upkeep of storage is tried again later", reason=error.message)
    except Exception as error:  # noqa: BLE001  (a loop that must survive)
        _log.error("the upkeep of storage failed", reason=repr(error))
