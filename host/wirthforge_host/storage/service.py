"""Reading and writing what plugins store, within their quota."""

from __future__ import annotations

from dataclasses import dataclass

from wirthforge_host.errors import StorageFullError
from wirthforge_host.storage import store
from wirthforge_sdk.contracts.bridge import MAX_KEY_BYTES, MAX_VALUE_BYTES
from wirthforge_sdk.errors import InvalidInputError
from wirthforge_sdk.serving.database import Database, Transaction

MAX_LIST = 1000


@dataclass(frozen=True, slots=True)
class Keys:
    """Some keys, in order of their UTF-8 bytes."""

    keys: list[str]
    more: bool
    """There are further ones after the last."""


class Storage:
    """The key-value space of every plugin.

    ``plugin`` is always the name the host gave the connection, never something a message said: a plugin has
    no way to name another's space. Values are JSON texts; the caller has checked that they are JSON.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, plugin: str, key: str) -> bytes | None:
        """The JSON text stored under ``key``, or None.

        Raises:
            InvalidInputError: The key is empty or too long.
        """
        encoded = _key(key)
        async with self._database.reading() as tx:
            return await store.value_of(tx, plugin, encoded)

    async def set(self, plugin: str, key: str, value: bytes, *, quota_bytes: int) -> None:
        """Stores a JSON text in the place of what was there. Keys count against the quota as values do.

        Raises:
            InvalidInputError: The key or the value is over its bound.
            StorageFullError: The plugin would keep more than ``quota_bytes``.
        """
        encoded = _key(key)
        if len(value) > MAX_VALUE_BYTES:
            raise InvalidInputError(f"value: over {MAX_VALUE_BYTES} bytes as JSON", field="value")
        size = len(encoded) + len(value)
        async with self._database.transaction() as tx:
            used = await store.lock_usage(tx, plugin)
            after = used - await store.size_of(tx, plugin, encoded) + size
            # What shrinks is let through when an operator lowered the quota below what is there.
            if after > quota_bytes and after > used:
                raise StorageFullError(
                    f"the storage is full: {after} of {quota_bytes} bytes would be used",
                    quota_bytes=quota_bytes,
                    used_bytes=used,
                )
            await store.put(tx, plugin, encoded, value, size)
            await store.set_usage(tx, plugin, after)

    async def delete(self, plugin: str, key: str) -> bool:
        """Deletes what is stored under ``key``; whether there was something.

        Raises:
            InvalidInputError: The key is empty or too long.
        """
        encoded = _key(key)
        async with self._database.transaction() as tx:
            used = await store.lock_usage(tx, plugin)
            size = await store.size_of(tx, plugin, encoded)
            if size:
                await store.remove(tx, plugin, encoded)
                await store.set_usage(tx, plugin, used - size)
        return size > 0

    async def list(self, plugin: str, *, prefix: str = "", after: str = "", limit: int = 100) -> Keys:
        """The keys that begin with ``prefix`` and follow ``after``, at most ``limit`` (1 to 1000).

        Raises:
            InvalidInputError: An argument is out of its bounds.
        """
        if not 1 <= limit <= MAX_LIST:
            raise InvalidInputError(f"limit: must be 1 to {MAX_LIST}", field="limit")
        first = _key(prefix) if prefix else b""
        last = _key(after) if after else b""
        async with self._database.reading() as tx:
            found = await store.keys(tx, plugin, first, last, limit + 1)
        return Keys([key.decode() for key in found[:limit]], more=len(found) > limit)

    async def used_bytes(self, plugin: str) -> int:
        """What the plugin keeps, keys included."""
        async with self._database.reading() as tx:
            return await store.used_bytes(tx, plugin)

    async def purge(self, tx: Transaction, plugin: str) -> int:
        """Deletes everything the plugin stored, in the caller's transaction; returns the bytes it took."""
        used = await store.lock_usage(tx, plugin)
        await store.remove_all(tx, plugin)
        return used


def _key(key: str) -> bytes:
    encoded = key.encode()
    if not 0 < len(encoded) <= MAX_KEY_BYTES:
        raise InvalidInputError(f"key: must be 1 to {MAX_KEY_BYTES} bytes of UTF-8", field="key")
    return encoded
