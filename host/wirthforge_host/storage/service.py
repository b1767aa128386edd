"""Reading and writing what plugins store, within their quota."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from wirthforge_host.errors import StorageFullError, VersionConflictError
from wirthforge_host.keyring import Key, Keyring
from wirthforge_host.storage import store
from wirthforge_host.storage.models import (
    Act,
    Delete,
    Entry,
    Get,
    Keys,
    Result,
    Set,
    Spot,
    Value,
    check_answer,
    check_value,
    checked_space,
    count_of,
    end_of,
    milliseconds,
    size_of,
    spot_of,
)
from wirthforge_host.storage.sealed import LIVE, USAGE, Head, Opened, Usage, encoded, owner_of, sealed_row
from wirthforge_sdk.contracts.bridge import MAX_BATCH
from wirthforge_sdk.errors import InvalidInputError
from wirthforge_sdk.serving.database import Database, Transaction

MAX_LIST = 1000


class Storage:
    """The values of every plugin.

    ``plugin`` is always the name the host gave the connection, never something a message said: a plugin has
    no way to name another's values. JSON values are texts; the caller has checked that they are JSON. Every method
    raises SealBrokenError, which names the place, when what it reads is not what was stored there.
    """

    def __init__(self, database: Database, keyring: Keyring, *, now: Callable[[], datetime]) -> None:
        self._database = database
        self._keyring = keyring
        self._now = now

    async def get(self, plugin: str, key: str, *, space: str = "") -> Entry | None:
        """What is stored under ``key``, or None.

        Raises:
            InvalidInputError: The key or the space is out of bounds.
        """
        spot = spot_of(space, key)
        async with self._database.reading() as tx:
            return await _entry(tx, Opened(self._keyring, tx, plugin), plugin, spot, milliseconds(self._now))

    async def set(self, plugin: str, key: str, value: Value, *, quota_bytes: int) -> None:
        """Does one :class:`Set`, see :meth:`apply`."""
        await self.apply(plugin, [Set(key, value)], quota_bytes=quota_bytes)

    async def delete(self, plugin: str, key: str, *, space: str = "", if_version: int | None = None) -> bool:
        """Does one :class:`Delete`, see :meth:`apply`; whether there was something."""
        (found,) = await self.apply(plugin, [Delete(key, space, if_version)], quota_bytes=0)
        return bool(found)

    async def apply(self, plugin: str, acts: Sequence[Act], *, quota_bytes: int) -> list[Result]:
        """Does up to 64 acts in their order, all or none; nobody sees some of them done.

        Raises:
            InvalidInputError: There are too many, or something in one is out of its bounds.
            VersionConflictError: Another version is there than an act names.
            LimitExceededError: What they read is over its bound.
            StorageFullError: The plugin would keep more than ``quota_bytes`` of values, keys and spaces.
        """
        if len(acts) > MAX_BATCH:
            raise InvalidInputError(f"acts: over {MAX_BATCH} in one batch", field="acts")
        spots = [spot_of(act.space, act.key) for act in acts]
        for act in acts:
            if isinstance(act, Set):
                check_value(act.value)
        now_ms = milliseconds(self._now)
        if all(isinstance(act, Get) for act in acts):
            async with self._database.reading() as tx:
                opened = Opened(self._keyring, tx, plugin)
                entries: list[Result] = [await _entry(tx, opened, plugin, spot, now_ms) for spot in spots]
            check_answer(entries)
            return entries
        async with self._database.transaction() as tx:
            writing = await Writing.begin(self._keyring, tx, plugin, seals=2 * count_of(acts), now_ms=now_ms)
            results = [await writing.do(act, spot) for act, spot in zip(acts, spots, strict=True)]
            check_answer(results)
            await writing.end(quota_bytes)
        return results

    async def list(
        self, plugin: str, *, prefix: str = "", after: str = "", limit: int = 100, space: str = ""
    ) -> Keys:
        """The keys that begin with ``prefix`` and follow ``after``, at most ``limit`` (1 to 1000).

        Raises:
            InvalidInputError: An argument is out of its bounds.
        """
        if not 1 <= limit <= MAX_LIST:
            raise InvalidInputError(f"limit: must be 1 to {MAX_LIST}", field="limit")
        first = spot_of(space, prefix).key if prefix else b""
        last = spot_of(space, after).key if after else b""
        async with self._database.reading() as tx:
            rows = await store.page(
                tx,
                plugin,
                Spot(checked_space(space), last),
                prefix=first,
                alive_at=milliseconds(self._now),
                limit=limit + 1,
            )
            opened = Opened(self._keyring, tx, plugin)
            for row in rows:
                await opened.head(row)
        return Keys([row.key.decode() for row in rows[:limit]], more=len(rows) > limit)

    async def used_bytes(self, plugin: str) -> int:
        """What the plugin keeps, keys included; also what is over and not swept yet."""
        async with self._database.reading() as tx:
            sealed = await store.usage_of(tx, plugin)
            if sealed is None:
                return 0
            return (await Opened(self._keyring, tx, plugin).document(USAGE, sealed, Usage)).used_bytes

    async def purge(self, tx: Transaction, plugin: str) -> bool:
        """Deletes everything the plugin stored, and its keys, in the caller's transaction.

        Returns:
            Whether it ever stored anything.
        """
        there = await store.lock_usage(tx, plugin) is not None
        await store.remove_all(tx, plugin)
        await self._keyring.forget(tx, owner_of(plugin))
        return there


class Writing:
    """One transaction that changes a plugin's values. It holds the lock that all its writers share."""

    def __init__(self, keyring: Keyring, tx: Transaction, plugin: str, key: Key, now_ms: int) -> None:
        self._tx = tx
        self._plugin = plugin
        self._key = key
        self._now_ms = now_ms
        self.opened = Opened(keyring, tx, plugin)
        self._before = Usage()
        self.used_bytes = 0
        self.revision = 0

    @staticmethod
    async def begin(
        keyring: Keyring, tx: Transaction, plugin: str, *, seals: int, now_ms: int = 0
    ) -> Writing:
        """Locks the plugin's values; ``seals`` is how often :attr:`key` may be used besides."""
        key = await keyring.sealer(tx, owner_of(plugin), uses=seals + 2)
        writing = Writing(keyring, tx, plugin, key, now_ms)
        sealed = await store.lock_usage(tx, plugin)
        if sealed is None:
            await store.begin_usage(tx, plugin, key.seal(USAGE, encoded(Usage())))
            sealed = await store.lock_usage(tx, plugin)
        if sealed is not None:
            writing._before = await writing.opened.document(USAGE, sealed, Usage)
        writing.used_bytes, writing.revision = writing._before.used_bytes, writing._before.revision
        return writing

    @property
    def key(self) -> Key:
        """Seals."""
        return self._key

    async def do(self, act: Act, spot: Spot) -> Result:
        """Does one act."""
        if isinstance(act, Get):
            return await _entry(self._tx, self.opened, self._plugin, spot, self._now_ms)
        row = await store.find(self._tx, self._plugin, spot, whole=False)
        kept = None if row is None else await self.opened.head(row)
        there = None if kept is None or kept.is_over(self._now_ms) else kept
        version = there.version if there else 0
        if act.if_version is not None and act.if_version != version:
            told = f"has version {version}" if version else "is not there"
            raise VersionConflictError(
                f"{act.key[:100]} {told}, and was expected to have {act.if_version}: read it anew",
                key=act.key,
                version=version,
            )
        if isinstance(act, Set):
            return await self._put(act, spot, kept)
        if there is None:
            return False
        await store.remove(self._tx, self._plugin, [spot])
        self.used_bytes -= there.size_bytes
        return True

    async def end(self, quota_bytes: int | None = None) -> None:
        """Writes down what is used now; the last step.

        Raises:
            StorageFullError: It is over ``quota_bytes``, and more than before.
        """
        after, before = Usage(self.used_bytes, self.revision), self._before
        # What shrinks is let through when an operator lowered the quota below what is there.
        if quota_bytes is not None and after.used_bytes > max(quota_bytes, before.used_bytes):
            raise StorageFullError(
                f"the storage is full: {after.used_bytes} of {quota_bytes} bytes would be used",
                quota_bytes=quota_bytes,
                used_bytes=before.used_bytes,
            )
        if after != before:
            await store.set_usage(self._tx, self._plugin, self._key.seal(USAGE, encoded(after)))

    async def _put(self, act: Set, spot: Spot, kept: Head | None) -> int:
        self.revision += 1
        head = Head(
            self.revision, act.value.is_json, size_of(spot, act.value), end_of(act.ttl_s, self._now_ms)
        )
        row = sealed_row(self._key, LIVE, spot, head, act.value)
        await store.put(self._tx, self._plugin, row)
        self.used_bytes += head.size_bytes - (kept.size_bytes if kept else 0)
        return self.revision


async def _entry(tx: Transaction, opened: Opened, plugin: str, spot: Spot, now_ms: int) -> Entry | None:
    row = await store.find(tx, plugin, spot, whole=True)
    if row is None:
        return None
    head = await opened.head(row)
    return None if head.is_over(now_ms) else Entry(await opened.value(row, head), head.version)
